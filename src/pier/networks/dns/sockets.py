"""Many sockets behind one descriptor of the event loop's: an epoll(7) of their own.

Each container has two, each question that is passed on has one: to the event loop itself a socket costs a kilobyte and
ten microseconds.
"""

from __future__ import annotations

import asyncio
import logging
import select
import socket
from collections.abc import Callable

__all__ = ["Sockets"]

log = logging.getLogger("pier.dns")

ROUNDS = 4
"""So often the ready ones are served before the event loop has its turn: a flood of questions holds nobody up long."""
AT_ONCE = 32

Callback = Callable[[], None]


class Sockets:
    """A callback for each socket that has something to read, called once for each turn that it has."""

    def __init__(self) -> None:
        self._epoll: select.epoll | None = None
        self._callbacks: dict[int, Callback] = {}

    def watch(self, sock: socket.socket, callback: Callback) -> None:
        if self._epoll is None:
            self._epoll = select.epoll()
            asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._ready)
        self._epoll.register(sock.fileno(), select.EPOLLIN)
        self._callbacks[sock.fileno()] = callback

    def forget(self, sock: socket.socket) -> None:
        """Stop watching; must come before the socket is closed, and is no error twice."""
        if self._callbacks.pop(sock.fileno(), None) is not None and self._epoll is not None:
            self._epoll.unregister(sock.fileno())

    def close(self) -> None:
        """Let go of the event loop; the sockets are their owners'."""
        if self._epoll is not None:
            asyncio.get_running_loop().remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._epoll = None
        self._callbacks = {}

    def _ready(self) -> None:
        for _ in range(ROUNDS):
            events = self._epoll.poll(0, AT_ONCE) if self._epoll is not None else []
            if not events:
                return
            for fd, _ in events:
                callback = self._callbacks.get(fd)  # an earlier one of this round may have forgotten it
                if callback is not None:
                    try:
                        callback()
                    except Exception:
                        log.exception("serving a name server's socket")
