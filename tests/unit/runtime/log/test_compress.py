"""Rotated logs that are compressed: whole or not at all, under whatever name they have by then."""

from __future__ import annotations

import gzip
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pier.runtime.log import compress
from pier.runtime.log.compress import compress_rotated, inode_before, pending, renaming
from pier.runtime.log.rotation import RotatingFile


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' own process keeps its priority."""
    monkeypatch.setattr(compress.os, "setpriority", lambda *_: None)


def whole(fd: int, size: int) -> int:
    return size


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_compressed_file_says_what_it_was(tmp_path: Path) -> None:
    texts = {number: b"line %d\n" % number * 50_000 for number in (1, 2)}
    inodes = {}
    for number, text in texts.items():
        (tmp_path / f"log.{number}").write_bytes(text)
        inodes[number] = (tmp_path / f"log.{number}").stat().st_ino
    (tmp_path / "log").write_text("new\n")
    compress_rotated(f"{tmp_path}/log", 5)
    assert names(tmp_path) == ["log", "log.1.gz", "log.2.gz"]
    for number, text in texts.items():
        path = tmp_path / f"log.{number}.gz"
        packed = path.read_bytes()
        assert gzip.decompress(packed) == text
        assert inode_before(packed[:40]) == inodes[number]
        assert path.stat().st_mode & 0o7777 == 0o640


@pytest.mark.parametrize("head", [b"", b"\x1f\x8b\x08\0" + bytes(40), b"\x1f\x8b\x08\x04" + bytes(40)])
def test_other_gzip_says_nothing(head: bytes) -> None:
    assert inode_before(head) is None


def moved_on(folder: Path) -> None:
    (folder / "log.1").rename(folder / "log.2")
    (folder / "log.1").write_bytes(b"another")


def gone(folder: Path) -> None:
    (folder / "log.1").unlink()


@pytest.mark.parametrize(("meanwhile", "left"), [(moved_on, {"log.1.gz": b"another", "log.2.gz": b"text"}), (gone, {})])
def test_the_monitor_goes_on_rotating(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[Path], None], left: dict[str, bytes]
) -> None:
    (tmp_path / "log.1").write_bytes(b"text")
    deeds = iter([meanwhile])
    monkeypatch.setattr(compress.os, "fsync", lambda fd: next(deeds, lambda folder: None)(tmp_path))
    compress_rotated(f"{tmp_path}/log", 5)
    assert {path.name: gzip.decompress(path.read_bytes()) for path in tmp_path.iterdir()} == left


def test_killed_in_the_middle_it_leaves_nothing_and_the_next_one_does_it(tmp_path: Path) -> None:
    text = random.Random(1).randbytes(16 << 20)
    (tmp_path / "log.1").write_bytes(text)
    pid = os.fork()
    if not pid:
        try:
            compress_rotated(f"{tmp_path}/log", 5)
        finally:
            os._exit(0)
    while not Path(f"/proc/{pid}/fd").exists() or not any(
        " (deleted)" in os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")
    ):
        time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    assert names(tmp_path) == ["log.1"]
    assert pending(f"{tmp_path}/log", 2)
    asked: list[bool] = []
    RotatingFile(f"{tmp_path}/log", 10, 2, whole, lambda: asked.append(True)).close()
    assert asked == [True]


def test_rotation_takes_both_kinds_along(tmp_path: Path) -> None:
    path = f"{tmp_path}/log"
    log = RotatingFile(path, 10, 4, whole, lambda: None)
    for number in range(3):
        log.append(b"%d" % number * 8)
    compress_rotated(path, 4)
    assert names(tmp_path) == ["log", "log.1.gz", "log.2.gz"]
    for number in range(3, 6):
        log.append(b"%d" % number * 8)
    assert {name: (tmp_path / name).read_bytes()[:1] for name in names(tmp_path)} == {
        "log": b"5",
        "log.1": b"4",
        "log.2": b"3",
        "log.3": b"2",
    }
    compress_rotated(path, 4)
    log.append(b"6" * 8)
    assert names(tmp_path) == ["log", "log.1", "log.2.gz", "log.3.gz"]
    assert gzip.decompress((tmp_path / "log.3.gz").read_bytes()) == b"3" * 8
    log.close()


def test_nobody_waits_for_who_is_renaming(tmp_path: Path) -> None:
    """A compressor that is stopped at the worst moment does not stop the program: the file grows."""
    path, told = f"{tmp_path}/log", []
    log = RotatingFile(path, 10, 3, whole, lambda: told.append(True))
    log.append(b"a" * 8)
    folder = os.open(tmp_path, os.O_RDONLY)
    with renaming(folder, wait=True):
        log.append(b"b" * 8)
    os.close(folder)
    assert (names(tmp_path), told) == (["log"], [])
    log.append(b"c" * 8)
    assert ((tmp_path / "log").read_bytes(), told) == (b"c" * 8, [True])
    assert (tmp_path / "log.1").read_bytes() == b"a" * 8 + b"b" * 8
    log.close()
