"""Followers are woken by changes in their own folder, and by none when inotify cannot be had."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest

from pier.kernel import inotify
from pier.logs import Follower, Query, Watcher, read
from pier.logs import reader as reader_module
from pier.logs.watch import MASK
from pier.runtime.log.logfile import Log
from pier.runtime.request import LogFile

SOON_S = 10.0


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_each_folder_wakes_its_own(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    before, watcher = open_fds(), Watcher()
    with (
        watcher.watch(str(tmp_path / "a")) as one,
        watcher.watch(str(tmp_path / "a")) as two,
        watcher.watch(str(tmp_path / "b")) as other,
    ):
        (tmp_path / "a/log").write_text("x")
        async with asyncio.timeout(SOON_S):
            await one.wait(SOON_S)
            await two.wait(SOON_S)
        await other.wait(0)
        os.rename(tmp_path / "a/log", tmp_path / "b/log")
        async with asyncio.timeout(SOON_S):
            await other.wait(2 * SOON_S)
    assert open_fds() == before


async def test_a_folder_that_goes_wakes_too_and_is_forgotten(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    watcher = Watcher()
    with watcher.watch(str(tmp_path / "a")) as event:
        (tmp_path / "a").rmdir()
        async with asyncio.timeout(SOON_S):
            await event.wait(2 * SOON_S)
    with watcher.watch(str(tmp_path)) as event:
        (tmp_path / "new").touch()
        async with asyncio.timeout(SOON_S):
            await event.wait(2 * SOON_S)


async def test_without_inotify_a_follower_looks_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(inotify, "inotify_init", refuse)
    monkeypatch.setattr(reader_module, "LOOK_S", 0.01)
    assert await _followed(tmp_path, Watcher()) == b"one\ntwo\n"


async def test_the_end_of_the_run_ends_the_wait(tmp_path: Path) -> None:
    assert await _followed(tmp_path, Watcher()) == b"one\ntwo\n"


async def _followed(tmp_path: Path, watcher: Watcher) -> bytes:
    log = Log(LogFile(str(tmp_path / "log")))
    log.write("stdout", b"one\n")
    running, ended = [True], asyncio.get_running_loop().create_future()
    follower = Follower(watcher, lambda: running[0], lambda: None if ended.done() else ended)
    batches = read(str(tmp_path / "log"), Query(raw=True), follower=follower)
    async with asyncio.timeout(SOON_S):
        found = await anext(batches)
        log.write("stdout", b"two\n")
        found += await anext(batches)
        log.close()
        running[0] = False
        ended.set_result(None)
        found += b"".join([batch async for batch in batches])
    return found


def test_the_numbers_of_a_watch(tmp_path: Path) -> None:
    fd = inotify.inotify_init()
    try:
        number = inotify.add_watch(fd, str(tmp_path), MASK)
        assert inotify.add_watch(fd, str(tmp_path), MASK) == number
        assert list(inotify.read_events(fd)) == []
        (tmp_path / "file").touch()
        assert (number, inotify.IN_CREATE) in list(inotify.read_events(fd))
        inotify.rm_watch(fd, number)
        assert [mask for _, mask in inotify.read_events(fd)] == [inotify.IN_IGNORED]
        with pytest.raises(OSError, match="inotify_rm_watch"):
            inotify.rm_watch(fd, number)
        with pytest.raises(NotADirectoryError):
            inotify.add_watch(fd, str(tmp_path / "file"), MASK)
    finally:
        os.close(fd)
