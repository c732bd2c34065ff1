"""Execs made ahead: between a client's `create` and its `start` the process joins the container, and waits.

What waits is the first of an exec's two processes (`process/join.py`). It has all that the program will have but a
place in the container's pid namespace, so nothing of the container sees it. It is used for the very request that it was
made for, within WAIT_S; anything else, and any failure, costs the start nothing but the advantage.
"""

from __future__ import annotations

from collections.abc import Callable

from pier.runtime.monitor.poll import READ, Poller
from pier.runtime.monitor.starting import Starting
from pier.runtime.request import ExecRequest

WAIT_S = 2.0
"""How long an exec's process waits for its start."""
WAITING_MAX = 4
"""So many wait at a time: what is created and never started must not add up."""


class Prepared:
    """The processes that wait."""

    def __init__(self, poller: Poller, abandon: Callable[[Starting], None]) -> None:
        """`abandon` ends and buries one, and may not block."""
        self._poller = poller
        self._abandon = abandon
        self._waiting: dict[str, tuple[ExecRequest, Starting]] = {}

    def wants(self, request: ExecRequest) -> bool:
        """Whether a process may be made to wait for the start of `request`: there is none, and not too many others."""
        return len(self._waiting) < WAITING_MAX and request.exec_id not in self._waiting

    def add(self, request: ExecRequest, starting: Starting) -> None:
        """Keep a process that waits for the start of `request`."""
        self._waiting[request.exec_id] = (request, starting)

        def progress(events: int) -> None:
            starting.receive()
            if starting.done:  # it has failed, or was killed: the start will find out why
                self._drop(request.exec_id)

        self._poller.watch(starting.report.fileno(), READ, progress)
        self._poller.after(starting, WAIT_S, lambda: self._drop(request.exec_id))

    def take(self, request: ExecRequest) -> Starting | None:
        """The process that was made for exactly this, on its way now; None without one."""
        found = self._waiting.get(request.exec_id)
        if found is None:
            return None
        prepared, starting = found
        if prepared.to_dict() == request.to_dict() and starting.let_go_on():
            self._forget(request.exec_id)
            return starting
        self._drop(request.exec_id)
        return None

    def _forget(self, exec_id: str) -> Starting:
        _, starting = self._waiting.pop(exec_id)
        self._poller.cancel(starting)
        self._poller.forget(starting.report.fileno())
        return starting

    def _drop(self, exec_id: str) -> None:
        starting = self._forget(exec_id)
        starting.report.close()
        self._abandon(starting)
