"""The sockets of a container's name server, as its monitor keeps them (`process.resolver`).

The daemon serves its copies of them. While there is no daemon, queries wait in the sockets for the next one.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable
from typing import NoReturn

from pier.kernel import namespaces, process
from pier.runtime import wire
from pier.runtime.monitor.poll import READ, Poller
from pier.runtime.monitor.starting import Outer, Starting, close_fds
from pier.runtime.process import resolver
from pier.runtime.process.init import Report


class NameServer:
    def __init__(self, poller: Poller) -> None:
        self._poller = poller
        self.fds: list[int] = []
        """UDP and TCP; empty where there is none."""

    def make(self, init_pidfd: int, then: Callable[[str], None]) -> None:
        """Give a running container one, where it has none yet; `then` is told the error, "" for none."""
        if self.fds:
            then("")
            return
        mine, theirs = wire.pair()
        pid = os.fork()
        if pid == 0:
            _be_maker(Report(theirs), init_pidfd)
        theirs.close()
        starting = Starting(pid, mine, Outer(-1, -1, -1), terminal=False)
        self._poller.watch(mine.fileno(), READ, lambda events: self._progress(starting, mine, then))

    def _progress(self, starting: Starting, mine: socket.socket, then: Callable[[str], None]) -> None:
        starting.receive()
        if not starting.done:
            return
        self._poller.forget(mine.fileno())
        mine.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(starting.pid, 0)
        if self.fds:  # asked for twice at once
            close_fds(starting.resolver)
        else:
            self.fds = starting.resolver
        then("" if starting.error is None else starting.error[0])

    def close(self) -> None:
        """The container has ended; its network namespace goes with the last socket in it."""
        close_fds(self.fds)
        self.fds = []


def _be_maker(report: Report, init_pidfd: int) -> NoReturn:
    """A process that makes the sockets in the container's network namespace, and joins nothing else of it."""
    try:
        process.close_all_but([report.fileno(), init_pidfd])
        process.prctl(process.PR_SET_PDEATHSIG, signal.SIGKILL)
        process.prctl(process.PR_SET_DUMPABLE, 0)
        namespaces.setns(init_pidfd, namespaces.CLONE_NEWNET)
        sockets = resolver.open_sockets()
        if sockets.warning:
            report.warn(sockets.warning)
        report.name_server(sockets)
    except BaseException as error:
        report.fail(error)
    os._exit(0)
