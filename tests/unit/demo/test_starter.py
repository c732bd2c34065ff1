import sys
import tarfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "demo"))

import starter


def test_busybox_is_a_complete_small_system() -> None:
    entries = {entry.name: (entry, content) for entry, content in starter.busybox_entries(["sh", "busybox"], b"ELF")}
    assert entries["bin/busybox"][1] == b"ELF"
    assert entries["bin/sh"][0].type == tarfile.SYMTYPE
    assert entries["bin/sh"][0].linkname == "busybox"
    assert entries["tmp"][0].mode == 0o1777
    assert entries["etc/passwd"][1].startswith(b"root:x:0:0:")
    assert {entry.mtime for entry, _ in entries.values()} == {0}


def test_the_archive_is_the_same_each_time(tmp_path: Path) -> None:
    try:
        one = starter.busybox(tmp_path).archive
    except starter.CannotMake as error:
        pytest.skip(str(error))
    first = one.read_bytes()
    one.unlink()
    assert starter.busybox(tmp_path).archive.read_bytes() == first
    with tarfile.open(one) as tar:
        assert "bin/sh" in tar.getnames()


def test_a_dynamic_busybox_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "busybox"
    fake.write_bytes(b"\x7fELF" + b"/lib64/ld-linux-x86-64.so.2")
    monkeypatch.setattr(starter, "BUSYBOX", fake)
    with pytest.raises(starter.CannotMake, match="busybox-static"):
        starter.busybox(tmp_path)
    monkeypatch.setattr(starter, "BUSYBOX", tmp_path / "missing")
    with pytest.raises(starter.CannotMake, match="is missing"):
        starter.busybox(tmp_path)


def test_mmdebstrap_builds_into_the_file_from_standard_input() -> None:
    command = starter.mmdebstrap(Path("/x/out.tar"))
    assert command[-2:] == ["/x/out.tar", "-"]
    assert "--include=python3" in command
