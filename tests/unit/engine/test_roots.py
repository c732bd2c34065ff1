import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from pier.engine.roots import DATA_MODE, EXEC_MODE, UnsafeFolder, make_root


def make(path: Path, mode: int = DATA_MODE) -> None:
    make_root(str(path), mode, what="data root", flag="--data-root")


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_roots_are_made_and_tightened(tmp_path: Path) -> None:
    make(tmp_path / "a" / "b")
    assert mode_of(tmp_path / "a" / "b") == 0o700
    loose = tmp_path / "loose"
    loose.mkdir(mode=0o777)
    loose.chmod(0o777)
    make(loose)
    assert mode_of(loose) == 0o700
    make(loose, EXEC_MODE)
    assert mode_of(loose) == 0o711


def test_a_root_is_a_folder_and_no_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "file").touch()
    for name in ("link", "file"):
        with pytest.raises(UnsafeFolder, match=f"{name} cannot be the data root"):
            make(tmp_path / name)


@pytest.mark.root
def test_a_root_of_another_user_is_refused(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    os.chown(theirs, 65534, 65534)
    with pytest.raises(UnsafeFolder, match="belongs to uid 65534"):
        make(theirs)


@pytest.mark.root
def test_attack_23_no_local_user_traverses_the_data_root(tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == 0 and folder.is_relative_to("/tmp/pytest-of-root"):
            folder.chmod(0o755)
    make(tmp_path / "data")
    make(tmp_path / "exec", EXEC_MODE)
    (tmp_path / "data" / "setuid").touch(mode=0o4755)
    (tmp_path / "exec" / "pier.sock").touch()
    probe = (
        "import os, sys; os.setgroups([]); os.setgid(65534); os.setuid(65534); d = sys.argv[1]\n"
        "assert os.path.exists(d + '/exec/pier.sock')\n"
        "for path in ('/data', '/exec'):\n"
        "    try: os.listdir(d + path); sys.exit('listed ' + path)\n"
        "    except PermissionError: pass\n"
        "try: os.stat(d + '/data/setuid'); sys.exit('reached')\n"
        "except PermissionError: pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-IS", "-c", probe, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
