"""Wakes whoever follows a log when it grows: one inotify descriptor for all followers, one watch for each folder."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from typing import Any

from pier.kernel import inotify

MASK = inotify.IN_MODIFY | inotify.IN_CREATE | inotify.IN_MOVED_TO | inotify.IN_ONLYDIR


class Change:
    """Has something changed since `clear`? Waiting for it makes no task: a busy log wakes each follower often."""

    def __init__(self) -> None:
        self._is_set = False
        self._waiter: asyncio.Future[None] | None = None

    def clear(self) -> None:
        self._is_set = False

    def set(self) -> None:
        self._is_set = True
        self._wake()

    def _wake(self, _: object = None) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self, seconds: float, ended: asyncio.Future[Any] | None = None) -> None:
        """Until something has changed, `ended` is done or the time is over. One waits at a time."""
        if self._is_set:
            return
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer = loop.call_later(seconds, self._wake)
        if ended is not None:
            ended.add_done_callback(self._wake)
        try:
            await self._waiter
        finally:
            timer.cancel()
            self._waiter = None
            if ended is not None:
                ended.remove_done_callback(self._wake)


class Watcher:
    """One for each event loop. Without inotify (too many instances or watches) its events never come: followers look
    now and then by themselves."""

    def __init__(self) -> None:
        self._fd = -1
        self._waiting: dict[int, set[Change]] = {}

    @contextlib.contextmanager
    def watch(self, folder: str) -> Iterator[Change]:
        """What is set whenever something changes in the folder; whoever waits for it clears it."""
        change = Change()
        number = self._add(folder, change)
        try:
            yield change
        finally:
            if number is not None:
                self._remove(number, change)

    def _add(self, folder: str, change: Change) -> int | None:
        try:
            if self._fd < 0:
                self._fd = inotify.inotify_init()
                asyncio.get_running_loop().add_reader(self._fd, self._read)
            number = inotify.add_watch(self._fd, folder, MASK)
        except OSError:
            self._close_if_idle()
            return None
        self._waiting.setdefault(number, set()).add(change)
        return number

    def _remove(self, number: int, change: Change) -> None:
        waiting = self._waiting.get(number)
        if waiting is None:  # the folder has gone, and its watch with it
            return
        waiting.discard(change)
        if not waiting:
            del self._waiting[number]
            with contextlib.suppress(OSError):
                inotify.rm_watch(self._fd, number)
            self._close_if_idle()

    def _close_if_idle(self) -> None:
        if self._fd >= 0 and not self._waiting:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _read(self) -> None:
        for number, mask in inotify.read_events(self._fd):
            if mask & inotify.IN_Q_OVERFLOW:
                for waiting in self._waiting.values():
                    _set(waiting)
            elif mask & inotify.IN_IGNORED:
                _set(self._waiting.pop(number, set()))
            else:
                _set(self._waiting.get(number, set()))


def _set(changes: set[Change]) -> None:
    for change in changes:
        change.set()
