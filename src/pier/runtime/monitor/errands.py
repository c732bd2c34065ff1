"""Calls of another OCI runtime that a monitor waits for without standing still: signals, pauses, updates."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from typing import Any

from pier.runtime import wire
from pier.runtime.monitor.maker import Maker
from pier.runtime.monitor.poll import READ, Poller
from pier.runtime.monitor.starting import Outer, Starting
from pier.runtime.process.init import Report


class Errands:
    """A forked caller each; it ends by itself, in time (`oci_call.CALL_S`)."""

    def __init__(self, poller: Poller, maker: Maker) -> None:
        self._poller = poller
        self._maker = maker
        self._running: set[int] = set()

    @property
    def any_running(self) -> bool:
        return bool(self._running)

    def run(self, verb: str, *rest: str, then: Callable[[str], None], resources: dict[str, Any] | None = None) -> None:
        """Have the runtime called; `then` is told its error, "" for none. Raises ValueError where there is none."""
        mine, theirs = wire.pair()
        try:
            pid = self._maker.errand(Report(theirs), verb, *rest, resources=resources)
        finally:
            theirs.close()
        starting = Starting(pid, mine, Outer(-1, -1, -1), terminal=False)
        self._running.add(pid)
        self._poller.watch(mine.fileno(), READ, lambda events: self._progress(starting, mine, then))

    def _progress(self, starting: Starting, mine: socket.socket, then: Callable[[str], None]) -> None:
        starting.receive()
        if not starting.done:
            return
        self._poller.forget(mine.fileno())
        mine.close()
        self._running.discard(starting.pid)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(starting.pid, 0)
        then("" if starting.error is None else starting.error[0])
