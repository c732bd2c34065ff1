"""A process that has been forked and is not yet the program: its streams, what it reports (`init.Report`), its end."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
from collections.abc import Iterable
from typing import Any, NamedTuple

from pier.kernel.paths import closing
from pier.runtime import wire
from pier.runtime.process.init import Stdio

START_TIMEOUT_S = 120.0
"""A start that hangs (a dead NFS server under a bind mount) is given up after this."""
BURIAL_S = 2.0
"""How long a process that was killed may take to end."""


class Outer(NamedTuple):
    """The monitor's ends of a process's pipes; -1 for none."""

    stdin: int
    stdout: int
    stderr: int


def make_stdio(*, terminal: bool, open_stdin: bool) -> tuple[Stdio, Outer]:
    """Pipes for a process's streams (none with a terminal): (its ends, ours); /dev/null without `open_stdin`."""
    if terminal:
        return Stdio(-1, -1, -1), Outer(-1, -1, -1)
    if open_stdin:
        stdin, our_stdin = os.pipe2(os.O_CLOEXEC)
    else:
        stdin, our_stdin = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC), -1
    our_stdout, stdout = os.pipe2(os.O_CLOEXEC)
    our_stderr, stderr = os.pipe2(os.O_CLOEXEC)
    return Stdio(stdin, stdout, stderr), Outer(our_stdin, our_stdout, our_stderr)


def close_fds(fds: Iterable[int]) -> None:
    """Close what there is to close: all are open, or -1."""
    for fd in fds:
        if fd >= 0:
            os.close(fd)


class Starting:
    """A process that is not yet the program: what it reports, and what the monitor holds for it meanwhile."""

    def __init__(self, pid: int, report: socket.socket, outer: Outer, *, terminal: bool, goes_on: bool = True) -> None:
        """`goes_on`: False where the process itself never is the program, but names another one that is."""
        self.pid = pid
        self.report = report
        self.terminal = terminal
        self.done = False
        self.error: tuple[str, int] | None = None
        self.resolver: list[int] = []
        """The name server's sockets, UDP and TCP, where the container has one."""
        self._outer = outer
        self._terminal_fd = -1
        self._passed_on = False
        self._goes_on = goes_on
        self._warnings: list[str] = []
        report.settimeout(START_TIMEOUT_S)

    def let_go_on(self) -> bool:
        """Tell a process that was made ahead to become the program; whether it is there to hear it."""
        try:
            self.report.send(b"\0")
        except OSError:
            return False
        return True

    def receive(self) -> None:
        """Take one message of the process, or the end of file that says it is the program now."""
        try:
            received = wire.receive(self.report)
        except BlockingIOError:
            return
        except TimeoutError:
            self.give_up()
            return
        except (OSError, ValueError) as error:
            self._end((str(error), 128))
            return
        if received is None:
            lost = not (self._goes_on or self._passed_on)
            self._end(("its process is no child of the container's monitor", 128) if lost else None)
            return
        message, fds = received
        try:
            self._take(message, fds)
        except (TypeError, ValueError) as error:
            self._end((f"malformed report: {error}", 128))

    def _take(self, message: dict[str, Any], fds: list[int]) -> None:
        if message.get("terminal") and fds and self._terminal_fd < 0:
            self._terminal_fd = fds.pop()
        elif message.get("resolver") and len(fds) == 2 and not self.resolver:
            self.resolver, fds = fds, []
        close_fds(fds)
        if "error" in message:
            self._end((str(message["error"]), int(message.get("exit_code", 128))))
        elif "warning" in message:
            self._warnings.append(str(message["warning"]))
        elif "pid" in message:
            self._pass_on(int(message["pid"]), reborn=bool(message.get("reborn")))

    def _pass_on(self, pid: int, *, reborn: bool) -> None:
        """The process ends, and a sibling it has made goes on in its place. The `reborn` wait for its end.

        Who goes on may be in the power of the container's debugger already: only a child of ours is taken, and once.
        """
        if self._passed_on:
            return
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if reborn:
                os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid, self._passed_on = pid, True
            if reborn:
                with contextlib.suppress(OSError):  # it has ended already
                    wire.send(self.report, {})

    def give_up(self) -> None:
        """It takes too long."""
        self._end((f"the process was not ready after {START_TIMEOUT_S:.0f} s", 128))

    def _end(self, error: tuple[str, int] | None) -> None:
        self.done = True
        self.error = error

    def take_warnings(self) -> list[str]:
        taken, self._warnings = self._warnings, []
        return taken

    def abandon(self) -> None:
        """The start has failed: end the process. It is still to be buried; one that hangs in the kernel may stay."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        close_fds([*self._outer, self._terminal_fd, *self.resolver])

    def bury(self) -> None:
        """Wait for the end after `abandon`, but not for ever: a process that does not end is left to init."""
        with contextlib.suppress(ProcessLookupError, ChildProcessError), closing(os.pidfd_open(self.pid)) as pidfd:
            ended = select.poll()
            ended.register(pidfd, select.POLLIN)
            if ended.poll(BURIAL_S * 1000):
                os.waitpid(self.pid, 0)

    @property
    def outputs(self) -> dict[int, int]:
        """The program's descriptor -> where its output is read."""
        if self.terminal:
            return {1: self._terminal_fd}
        return {1: self._outer.stdout, 2: self._outer.stderr}

    @property
    def stdin(self) -> int | None:
        fd = self._terminal_fd if self.terminal else self._outer.stdin
        return fd if fd >= 0 else None
