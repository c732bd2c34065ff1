"""Logs of which some files are compressed read as if none were."""

from __future__ import annotations

import asyncio
import gzip
import os
from pathlib import Path

import pytest

from pier.logs import Follower, Query, Watcher, files, read, read_all, truncate, usage
from pier.logs.files import LogUnreadable, files_of, open_all
from pier.runtime.log import compress
from pier.runtime.log.logfile import Log
from pier.runtime.request import LogFile

COUNT = 300


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compress.os, "setpriority", lambda *_: None)


def written(path: Path, driver: str) -> None:
    """Lines in some fifteen files, of which the second and older ones are compressed."""
    log = Log(LogFile(str(path), 2000, 100, driver))
    for number in range(COUNT):
        log.write("stdout", f"line {number} {'x' * 40}\n".encode())
    log.close()
    newest = path.with_name("log.1").rename(path.with_name("kept"))
    compress.compress_rotated(str(path), 100)
    newest.rename(path.with_name("log.1"))


def text(path: Path, driver: str, **query: object) -> str:
    return b"".join(read_all(str(path), Query(raw=True, **query), driver)).decode()  # type: ignore[arg-type]


def lines(first: int) -> str:
    return "".join(f"line {number} {'x' * 40}\n" for number in range(first, COUNT))


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_the_whole_and_every_tail(tmp_path: Path, driver: str) -> None:
    path = tmp_path / "log"
    written(path, driver)
    assert [name.endswith(".gz") for name in files_of(str(path))[-3:]] == [True, False, False]
    assert text(path, driver) == lines(0)
    for count in (0, 1, 20, 50, 100, COUNT - 1, COUNT, COUNT + 1):
        assert text(path, driver, tail=count) == lines(max(0, COUNT - count))


@pytest.mark.parametrize("driver", ["json-file", "local"])
async def test_who_follows_slowly_goes_on_after_what_was_compressed(tmp_path: Path, driver: str) -> None:
    path, running = tmp_path / "log", [True]
    log = Log(LogFile(str(path), 500, 100, driver))
    log.write("stdout", b"begin\n")
    follower = Follower(Watcher(), lambda: running[0], lambda: None)
    query, got = Query(raw=True), b""
    stream = read(str(path), query, driver=driver, follower=follower)
    async with asyncio.timeout(10):
        got += await anext(stream)
        for number in range(100):  # its file is rotated away, and is compressed before it looks again
            log.write("stdout", b"%d\n" % number)
        compress.compress_rotated(str(path), 100)
        log.close()
        running[0] = False
        got += b"".join([piece async for piece in stream])
    assert got == b"begin\n" + b"".join(b"%d\n" % number for number in range(100))
    assert len(files_of(str(path))) > 3


def test_they_count_on_the_disk_and_are_deleted(tmp_path: Path) -> None:
    path = tmp_path / "log"
    written(path, "local")
    count, size = usage(str(path))
    assert (count, size) == (len(os.listdir(tmp_path)), sum(item.stat().st_blocks * 512 for item in tmp_path.iterdir()))
    assert truncate(str(path)) == size
    assert [(item.name, item.stat().st_size) for item in tmp_path.iterdir()] == [("log", 0)]


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: data[:40] + b"?" + data[41:]])
def test_damage_costs_that_file_alone(tmp_path: Path, damage: object) -> None:
    path = tmp_path / "log"
    written(path, "json-file")
    broken = Path(files_of(str(path))[2])
    broken.write_bytes(damage(broken.read_bytes()))  # type: ignore[operator]
    found = text(path, "json-file")
    assert found.startswith("line 0 ")
    assert found.endswith(lines(COUNT - 100))
    assert text(path, "json-file", tail=COUNT).endswith(lines(COUNT - 100))


def test_a_copy_that_has_no_room_is_an_error_with_a_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "log"
    written(path, "local")
    monkeypatch.setattr(files.tempfile, "TemporaryFile", full)
    assert text(path, "local", tail=1) == lines(COUNT - 1)
    with pytest.raises(LogUnreadable, match="No space left"):
        text(path, "local", tail=COUNT)


def test_what_is_renamed_while_it_is_opened_is_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log"
    for name in ("log", "log.1"):
        (tmp_path / name).write_text(name)
    rotate = iter([True])
    real = files.open_file

    def opened(name: str) -> object:
        if name == str(path) and next(rotate, False):
            (tmp_path / "log.1").rename(tmp_path / "log.2")
            path.rename(tmp_path / "log.1")
            path.write_text("new")
            (tmp_path / "log.2.gz").write_bytes(gzip.compress(b"log.1"))
            (tmp_path / "log.2").unlink()
        return real(name)

    monkeypatch.setattr(files, "open_file", opened)
    found = open_all(str(path))
    assert [file.read(100) for file in found] == [b"log.1", b"log", b"new"]
    for file in found:
        file.close()
