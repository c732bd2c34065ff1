"""Copy-up: whole or not at all, into empty volumes only, and with everything that belongs to a file."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pier.kernel.paths import closing
from pier.storage import copy_tree, faults
from pier.volumes import fill
from pier.volumes.fill import OverFile, open_source, recover


class Stage:
    def __init__(self, top: Path) -> None:
        self.source, self.folder = top / "image", top / "volume"
        self.data = self.folder / "_data"
        self.data.mkdir(parents=True)
        self.source.mkdir()

    @contextlib.contextmanager
    def open(self) -> Iterator[tuple[int, int, int]]:
        flags = os.O_RDONLY | os.O_DIRECTORY
        with contextlib.ExitStack() as stack:
            paths = (self.folder, self.data, self.source)
            folder, data, source = (stack.enter_context(closing(os.open(path, flags))) for path in paths)
            yield folder, data, source

    def fill(self, **more: object) -> bool:
        with self.open() as (folder, data, source):
            return fill.fill(folder, data, source, **more)  # type: ignore[arg-type]

    def recover(self) -> bool:
        with self.open() as (folder, data, _):
            return recover(folder, data)

    def names(self) -> set[str]:
        return {path.name for path in self.data.iterdir()}


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def test_everything_that_belongs_to_a_file_is_copied(stage: Stage) -> None:
    source = stage.source
    (source / "deep/er").mkdir(parents=True)
    (source / "deep/er/file").write_text("x")
    os.link(source / "deep/er/file", source / "twin")
    (source / "link").symlink_to("/etc/passwd")
    os.mkfifo(source / "pipe")
    (source / "tool").write_text("#!")
    os.chmod(source / "tool", 0o4755)
    os.setxattr(source / "tool", "user.note", b"kept")
    (source / "big").write_bytes(b"y" * 300_000)
    with open(source / "sparse", "wb") as file:
        file.truncate(1 << 24)
    os.utime(source / "deep", (5, 1_500_000_000))
    os.chmod(source, 0o1770)
    assert stage.fill()
    made = stage.data
    assert stat.S_IMODE(made.stat().st_mode) == 0o1770
    assert (made / "deep").stat().st_mtime == 1_500_000_000
    assert (made / "twin").stat().st_ino == (made / "deep/er/file").stat().st_ino
    assert os.readlink(made / "link") == "/etc/passwd"
    assert stat.S_ISFIFO((made / "pipe").lstat().st_mode)
    assert stat.S_IMODE((made / "tool").stat().st_mode) == 0o4755
    assert os.getxattr(made / "tool", "user.note") == b"kept"
    assert (made / "big").read_bytes() == b"y" * 300_000
    assert (made / "sparse").stat().st_size == 1 << 24
    assert (made / "sparse").stat().st_blocks * 512 < 1 << 20
    assert {path.name for path in stage.folder.iterdir()} == {"_data"}


def test_a_volume_with_something_in_it_is_left_alone(stage: Stage) -> None:
    (stage.source / "file").write_text("image's")
    (stage.data / ".hidden").write_text("mine")
    assert not stage.fill()
    assert stage.names() == {".hidden"}


def test_into_a_part_of_the_volume(stage: Stage) -> None:
    (stage.source / "file").write_text("x")
    (stage.data / "a/b").mkdir(parents=True)
    (stage.data / "other").write_text("y")
    assert stage.fill(into="a/b")
    assert (stage.data / "a/b/file").exists()
    assert stage.names() == {"a", "other"}


@pytest.mark.parametrize("into", ["up", "out", "../x"])
def test_attack_07_no_link_leads_a_copy_out_of_the_volume(stage: Stage, tmp_path: Path, into: str) -> None:
    (stage.source / "file").write_text("x")
    (tmp_path / "x").mkdir()
    (stage.data / "up").symlink_to("../../x")
    (stage.data / "out").symlink_to(tmp_path / "x")
    with pytest.raises(OSError, match=r"(?i)cross-device"):
        stage.fill(into=into)
    assert list((tmp_path / "x").iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files away")
def test_owners_are_those_of_the_user_namespace(stage: Stage) -> None:
    (stage.source / "file").write_text("x")
    os.chown(stage.source / "file", 7, 8)
    assert stage.fill(owners=lambda uid, gid: (uid + 100_000, gid + 200_000))
    info = (stage.data / "file").stat()
    assert (info.st_uid, info.st_gid) == (100_007, 200_008)
    assert stage.data.stat().st_uid == 100_000


KILLS = ("fill-begun", "copy-entry:1", "copy-entry:3", "fill-copied", "fill-filled", "fill-moved:1", "fill-moved:3")


@pytest.mark.parametrize("name", KILLS)
@pytest.mark.parametrize("deed", ["kill", "ENOSPC"])
def test_attack_26_half_a_copy_is_never_taken_for_a_whole_one(
    stage: Stage, name: str, deed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        (stage.source / f"file{number}").write_text("x")
    point, _, count = name.partition(":")
    armed: Callable[[str], None] = faults._armed(f"{point}:{deed}:{count or 1}")
    child = os.fork()
    if not child:
        for module in (fill, copy_tree):
            monkeypatch.setattr(module, "point", armed)
        with contextlib.suppress(OSError):
            stage.fill()
            os._exit(7)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    ended = os.waitstatus_to_exitcode(status)
    assert ended == (-signal.SIGKILL if deed == "kill" else 1), "the point was passed"
    stage.recover()
    whole = {f"file{number}" for number in range(4)}
    assert stage.names() in (set(), whole)
    assert (stage.names() == whole) == point.startswith(("fill-filled", "fill-moved"))
    assert {path.name for path in stage.folder.iterdir()} == {"_data"}
    if not stage.names():
        assert stage.fill(), "and can be begun again"


def test_what_was_put_there_meanwhile_stays(stage: Stage) -> None:
    (stage.source / "file").write_text("image's")
    (stage.folder / ".filled/tree").mkdir(parents=True)
    (stage.folder / ".filled/into").write_text("")
    (stage.folder / ".filled/tree/file").write_text("image's")
    (stage.folder / ".filled/tree/more").write_text("image's")
    (stage.data / "file").write_text("mine")
    assert stage.recover()
    assert (stage.data / "file").read_text() == "mine"
    assert stage.names() == {"file", "more"}


def test_open_source_stays_in_the_image(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "file").write_text("x")
    (tmp_path / "abs").symlink_to("/data")
    (tmp_path / "out").symlink_to("../../../../etc")
    with closing(os.open(tmp_path, os.O_PATH)) as image:
        fd = open_source(image, "/abs")
        assert fd is not None
        with closing(fd):
            assert os.fstat(fd).st_ino == (tmp_path / "data").stat().st_ino
        assert open_source(image, "/out") is None
        assert open_source(image, "/nothing/here") is None
        assert open_source(image, "/file/below") is None
        with pytest.raises(OverFile, match="cannot mount volume over existing file, file exists /file"):
            open_source(image, "/file")
