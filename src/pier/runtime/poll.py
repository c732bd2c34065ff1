"""A callback for each descriptor, over epoll(7): the whole event loop a monitor needs."""

from __future__ import annotations

import select
from collections.abc import Callable

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
HANGUP = select.EPOLLHUP | select.EPOLLERR

Callback = Callable[[int], None]
"""Called with the epoll events that are ready."""


class Poller:
    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callback] = {}

    def watch(self, fd: int, events: int, callback: Callback) -> None:
        """Call `callback` when one of `events` (READ, WRITE, 0: hang-up alone) is ready; replaces an earlier call."""
        if fd in self._callbacks:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._callbacks[fd] = callback

    def forget(self, fd: int) -> None:
        """Stop watching; must come before the descriptor is closed."""
        if self._callbacks.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def run_once(self, timeout_s: float | None = None) -> None:
        """Wait until something is ready, or for `timeout_s`, and make its callbacks."""
        for fd, events in self._epoll.poll(timeout_s):
            # An earlier callback of this round may have forgotten the descriptor.
            callback = self._callbacks.get(fd)
            if callback is not None:
                callback(events)

    def close(self) -> None:
        self._epoll.close()
