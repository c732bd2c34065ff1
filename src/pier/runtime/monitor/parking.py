"""A container's first process, parked before anyone has asked for the container.

Most containers want the same of the kernel: namespaces, loopback, `/dev` with its nodes, sysfs, message queues. A
parked process has made them, and has touched the memory it will work with. When an order comes it is born again
(`namespaces.be_reborn`) in the container's cgroup and pid namespace, with all it holds and nothing copied, and goes on
as `init.run` does.

A container that wants something else is made by a plain fork.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
from collections.abc import Sequence
from typing import Any, NoReturn

from pier.errors import PierError
from pier.kernel import namespaces, process
from pier.kernel.cgroup_layout import detect
from pier.kernel.cgroups import Cgroup
from pier.kernel.netlink import NetlinkSocket
from pier.runtime import wire
from pier.runtime.group import group_at
from pier.runtime.monitor.maker import OwnMaker
from pier.runtime.process import init, rootfs
from pier.runtime.process.init import Report, Stdio
from pier.runtime.request import PARKED_NAMESPACES

NAME = "pier-parked"
"""What a parked process and its monitor are called."""


class Parked:
    """What the monitor holds of the process it has parked."""

    def __init__(self, standard_mounts: list[dict[str, Any]]) -> None:
        """Fork it. Needs SIGCHLD's default disposition."""
        self._sock, theirs = wire.pair()
        self.pid = os.fork()
        if self.pid == 0:
            self._sock.close()
            _wait(theirs, standard_mounts)
        theirs.close()

    def set_off(self, place: str, cgroup_fd: int | None, fds: Sequence[int]) -> None:
        """Send it on its way into the cgroup at `place` (`group_at`). Raises OSError when it is gone.

        `cgroup_fd` is the directory in cgroup2, where there is one to be born in; `fds` are the request, the report's
        socket, and the three standard streams (-1: none).
        """
        given = [fd for fd in fds if fd >= 0] + ([] if cgroup_fd is None else [cgroup_fd])
        wire.send(self._sock, {"cgroup": place, "streams": fds[-1] >= 0, "born_in": cgroup_fd is not None}, given)
        self._sock.close()

    def give_up(self) -> None:
        """End it unused."""
        self._sock.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


class ParkedMaker(OwnMaker):
    """Has a parked process become the first one, and forks all others."""

    def __init__(self, cgroup: Cgroup, place: str, parked: Parked) -> None:
        super().__init__(cgroup, pid_namespace="")
        self._place = place
        self._parked = parked

    def first(self, request_fd: int, report: Report, stdio: Stdio) -> tuple[int, bool]:
        """As `OwnMaker.first`, which is the way if the parked process has been killed."""
        self._cgroup.create_unified()
        cgroup_fd = None if self._cgroup.made_around_a_process else self._cgroup.open_unified()
        try:
            self._parked.set_off(self._place, cgroup_fd, (request_fd, report.fileno(), *stdio))
        except OSError:
            self._parked.give_up()
            return super().first(request_fd, report, stdio)
        finally:
            if cgroup_fd is not None:
                os.close(cgroup_fd)
        return self._parked.pid, False


def _wait(sock: socket.socket, standard_mounts: list[dict[str, Any]]) -> NoReturn:
    try:
        process.prctl(process.PR_SET_PDEATHSIG, signal.SIGKILL)
        process.prctl(process.PR_SET_DUMPABLE, 0)
        process.set_name(NAME)
        process.close_all_but([sock.fileno()])
        prepared = _prepare(standard_mounts)
        message, fds = wire.receive(sock) or ({}, [])
        if message:
            _become_first(message, fds, prepared)
    except BaseException:  # nobody listens yet: the monitor sees the end of the process, and makes another
        os._exit(1)
    os._exit(0)


def _prepare(standard_mounts: list[dict[str, Any]]) -> init.Prepared:
    host_link = NetlinkSocket()
    namespaces.unshare(namespaces.flags_of(PARKED_NAMESPACES))
    with NetlinkSocket() as inside:
        inside.set_loopback_up()
    os.umask(0)
    return init.Prepared(frozenset(PARKED_NAMESPACES), host_link, rootfs.prepare(standard_mounts))


def _become_first(message: dict[str, Any], fds: list[int], prepared: init.Prepared) -> NoReturn:
    cgroup = group_at(detect(), message["cgroup"])
    born_in = fds.pop() if message["born_in"] else None
    request_fd, report_fd, *streams = fds
    stdio = Stdio(*streams) if message["streams"] else Stdio(-1, -1, -1)
    report = Report(socket.socket(fileno=report_fd))
    try:
        pid = _be_reborn(cgroup, born_in)
    except (OSError, PierError) as error:
        report.fail(error)
    report.take_over(pid)
    init.run(request_fd, report, stdio, cgroup, prepared)


def _be_reborn(cgroup: Cgroup, cgroup_fd: int | None) -> int:
    try:
        return namespaces.be_reborn(cgroup_fd)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            cgroup.require_domain()
        raise
