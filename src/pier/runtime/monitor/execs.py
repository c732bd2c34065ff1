"""The execs of one container, as its monitor keeps them: starting, running, ended and perhaps not told of yet."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable
from typing import Any

from pier.runtime import wire
from pier.runtime.monitor.child import Child
from pier.runtime.monitor.maker import MakeExec, Maker
from pier.runtime.monitor.poll import READ, Poller
from pier.runtime.monitor.prepared import Prepared
from pier.runtime.monitor.starting import START_TIMEOUT_S, Starting, close_fds, make_stdio
from pier.runtime.monitor.streams import Streams
from pier.runtime.process.init import Report
from pier.runtime.process.reaper import exit_code
from pier.runtime.request import ExecRequest, ExitRecord

DRAIN_S = 2.0
"""How long the output of processes that outlive the one they come from is waited for (containerd waits as long)."""
KEPT_MAX = 16
"""So many execs that have ended are remembered, for a daemon that lost its memory; those never told come on top."""


class Client:
    """Who asked for an exec, and its end of the streams."""

    __slots__ = ("control", "number", "sock", "wants")

    def __init__(self, control: socket.socket, message: dict[str, Any], fds: list[int]) -> None:
        self.control = control
        self.number = message.get("id")
        self.sock = socket.socket(fileno=os.dup(fds[0])) if fds else None
        self.wants = {name: bool(message.get(name)) for name in ("stdin", "stdout", "stderr")}


class Exec:
    """One that runs or has run; `note` is the daemon's own, kept for it."""

    __slots__ = ("child", "note", "record", "told")

    def __init__(self, child: Child, note: str) -> None:
        self.child = child
        self.note = note
        self.record: ExitRecord | None = None
        self.told = False

    def describe(self) -> dict[str, Any]:
        record = None if self.record is None else self.record.to_dict()
        return {"pid": self.child.pid, "note": self.note, "ended": record, "told": self.told}


class Execs:
    def __init__(
        self,
        poller: Poller,
        maker: Maker,
        tell: Callable[[socket.socket, dict[str, Any]], bool],
        broadcast: Callable[[dict[str, Any]], bool],
    ) -> None:
        """`tell` and `broadcast` say whether anyone heard."""
        self._poller = poller
        self._maker = maker
        self._tell = tell
        self._broadcast = broadcast
        self._execs: dict[str, Exec] = {}
        self._under_way = 0
        self._prepared = Prepared(poller, self._abandon)

    def describe(self) -> dict[str, dict[str, Any]]:
        """Every one that is remembered, for a daemon that connects."""
        return {exec_id: item.describe() for exec_id, item in self._execs.items()}

    def all_told(self) -> None:
        """A daemon has received `describe`'s answer."""
        for item in self._execs.values():
            item.told = item.record is not None

    def running(self, exec_id: str) -> Child:
        """Raises ValueError."""
        found = self._execs.get(exec_id)
        if found is None or found.record is not None:
            raise ValueError(f"no such exec: {exec_id}")
        return found.child

    @property
    def any_running(self) -> bool:
        return any(item.record is None for item in self._execs.values())

    # start

    def prepare(self, request: ExecRequest, init_pid: int) -> None:
        """An exec that will be started in a moment, as its client has said: have its process wait. Raises OSError."""
        if self._maker.runtime is None and self._prepared.wants(request):
            self._prepared.add(request, self._fork(self._maker.exec_ahead, request, init_pid))

    def start(self, request: ExecRequest, init_pid: int, client: Client) -> None:
        """Make a process in the container; the answer follows when it is the program or has failed. Raises OSError."""
        starting = self._prepared.take(request) or self._fork(self._maker.exec, request, init_pid)
        self._under_way += 1

        def settle() -> None:
            self._settle_start(starting, request, client)
            self._under_way -= 1
            if not self._under_way:
                running = {item.child.pid for item in self._execs.values() if item.record is None}
                self._maker.settled({init_pid, *running})

        def progress(events: int) -> None:
            starting.receive()
            if starting.done:
                self._poller.cancel(starting)
                settle()

        def give_up() -> None:
            starting.give_up()
            settle()

        self._poller.watch(starting.report.fileno(), READ, progress)
        self._poller.after(starting, START_TIMEOUT_S, give_up)

    def _fork(self, make: MakeExec, request: ExecRequest, init_pid: int) -> Starting:
        terminal = bool(request.process.get("terminal"))
        inner, outer = make_stdio(terminal=terminal, open_stdin=request.open_stdin)
        mine, theirs = wire.pair()
        try:
            pid = make(request, Report(theirs), inner, init_pid)
        except OSError:
            close_fds((*inner, *outer))
            raise
        theirs.close()
        close_fds(inner)
        starting = Starting(pid, mine, outer, terminal=terminal, goes_on=self._maker.runtime is None)
        mine.setblocking(False)
        return starting

    def _settle_start(self, starting: Starting, request: ExecRequest, client: Client) -> None:
        self._poller.forget(starting.report.fileno())
        starting.report.close()
        if starting.error is None:
            answer = self._started(starting, request, client)
        else:
            text, code = starting.error
            answer = {"error": text, "exit_code": code}
            self._abandon(starting)
            if client.sock is not None:
                client.sock.close()
        self._tell(client.control, {"id": client.number, **answer})

    def _abandon(self, starting: Starting) -> None:
        """Take the status of a killed process when it comes: in the kernel's hands it may hang for long."""
        starting.abandon()
        pid = starting.pid
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return

        def gone(events: int) -> None:
            self._poller.forget(pidfd)
            os.close(pidfd)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)

        self._poller.watch(pidfd, READ, gone)

    def _started(self, starting: Starting, request: ExecRequest, client: Client) -> dict[str, Any]:
        streams = Streams(
            self._poller,
            outputs=starting.outputs,
            stdin=starting.stdin,
            terminal=starting.terminal,
            close_stdin_with_client=request.open_stdin and not starting.terminal,
            log=None,
            on_end=lambda: self._settle(request.exec_id),
        )
        child = Child(starting, streams)
        self._execs[request.exec_id] = Exec(child, request.note)
        if client.sock is not None:
            streams.attach(client.sock, **client.wants)
        self._poller.watch(child.pidfd, READ, lambda events: self._reap(request.exec_id, child))
        return {"pid": child.pid, "warnings": starting.take_warnings()}

    # end

    def _reap(self, exec_id: str, child: Child) -> None:
        _, status = os.waitpid(child.pid, 0)
        child.exit_code = exit_code(status)
        child.finished_at_ns = time.time_ns()
        self._poller.forget(child.pidfd)
        child.streams.drain()
        if child.streams.open:
            self._poller.after(exec_id, DRAIN_S, lambda: self._report(exec_id))
        else:
            self._report(exec_id)

    def _settle(self, exec_id: str) -> None:
        """Its output has been read to the end."""
        found = self._execs.get(exec_id)
        if found is not None and found.record is None and found.child.exit_code is not None:
            self._poller.cancel(exec_id)
            self._report(exec_id)

    def _report(self, exec_id: str) -> None:
        """Tell of its end. What processes that it has left behind still print is read, so that they go on, for nobody.

        The daemon first: a client that has seen its stream end asks for the exit code.
        """
        item = self._execs[exec_id]
        child = item.child
        item.record = ExitRecord(child.exit_code or 0, child.finished_at_ns)
        item.told = self._broadcast({"exec_ended": exec_id, "record": item.record.to_dict()})
        os.close(child.pidfd)
        child.streams.let_go()
        self._forget_old()

    def _forget_old(self) -> None:
        told = [exec_id for exec_id, item in self._execs.items() if item.told]
        for exec_id in told[:-KEPT_MAX]:
            del self._execs[exec_id]
