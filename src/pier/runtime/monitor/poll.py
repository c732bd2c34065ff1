"""A callback for each descriptor and for each deadline, over epoll(7): the whole event loop a monitor needs."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Hashable

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
CHANGED = select.EPOLLPRI
"""A kernfs file whose content has changed since it was read."""
HANGUP = select.EPOLLHUP | select.EPOLLERR

Callback = Callable[[int], None]
"""Called with the epoll events that are ready."""


class Poller:
    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callback] = {}
        self._deadlines: dict[Hashable, tuple[float, Callable[[], None]]] = {}

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

    def after(self, key: Hashable, delay_s: float, callback: Callable[[], None]) -> None:
        """Call `callback` once, in `delay_s`, unless `cancel(key)` comes before; replaces an earlier one."""
        self._deadlines[key] = (time.monotonic() + delay_s, callback)

    def cancel(self, key: Hashable) -> None:
        self._deadlines.pop(key, None)

    def run_once(self, timeout_s: float | None = None) -> None:
        """Wait until something is ready or due, or for `timeout_s`, and make its callbacks."""
        if self._deadlines:
            first = max(0.0, min(due for due, _ in self._deadlines.values()) - time.monotonic())
            timeout_s = first if timeout_s is None else min(first, timeout_s)
        for fd, events in self._epoll.poll(timeout_s):
            # An earlier callback of this round may have forgotten the descriptor.
            callback = self._callbacks.get(fd)
            if callback is not None:
                callback(events)
        if self._deadlines:
            self._ring()

    def _ring(self) -> None:
        now = time.monotonic()
        for key, entry in list(self._deadlines.items()):
            due, callback = entry
            if due <= now and self._deadlines.get(key) is entry:
                del self._deadlines[key]
                callback()

    def close(self) -> None:
        self._epoll.close()
