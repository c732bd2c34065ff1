"""How a monitor's container comes to be: its own runtime's way, a fork that becomes the program.

`foreign.ForeignMaker` is the other way. Everything else a monitor does, it does for both alike.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any, NoReturn, Protocol

from pier.kernel import namespaces
from pier.kernel.cgroups import Cgroup
from pier.kernel.paths import closing
from pier.runtime.monitor.oci_call import OciRuntime
from pier.runtime.process.init import Report, Stage, Stdio
from pier.runtime.process.init import run as run_init
from pier.runtime.process.join import WaitingStage
from pier.runtime.process.join import run as run_exec
from pier.runtime.request import ExecRequest

RunFirst = Callable[[int, Report, Stdio, Cgroup], NoReturn]
"""Becomes a container's first process (`init.run`)."""
MakeExec = Callable[[ExecRequest, Report, Stdio, int], int]
"""Makes one more process, given the pid of the container's first one; returns its pid."""


class Maker(Protocol):
    """Makes processes in a container; each reports to the monitor, which waits for it as its own child."""

    @property
    def runtime(self) -> OciRuntime | None:
        """What signals and pauses are left to; None: the kernel."""

    def first(self, request_fd: int, report: Report, stdio: Stdio) -> tuple[int, bool]: ...
    def exec(self, request: ExecRequest, report: Report, stdio: Stdio, init_pid: int) -> int: ...
    def exec_ahead(self, request: ExecRequest, report: Report, stdio: Stdio, init_pid: int) -> int: ...
    def errand(self, report: Report, verb: str, *rest: str, resources: dict[str, Any] | None = None) -> int: ...
    def settled(self, known: set[int]) -> None: ...
    def clear(self) -> None: ...


class OwnMaker:
    """Forks what becomes the program."""

    def __init__(self, cgroup: Cgroup, pid_namespace: str | None, run_first: RunFirst = run_init) -> None:
        """`pid_namespace` as in `Supervision`."""
        self._cgroup = cgroup
        self._pid_namespace = pid_namespace
        self._run_first = run_first

    @property
    def runtime(self) -> OciRuntime | None:
        """None: signals and pauses are the kernel's business."""
        return None

    def first(self, request_fd: int, report: Report, stdio: Stdio) -> tuple[int, bool]:
        """Fork the first process, in the container's pid namespace and cgroup2.

        Returns its pid, and whether it becomes the program itself rather than name another one that does.
        """
        with closing(os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)) as own:
            _prepare_pid_namespace(self._pid_namespace)
            self._cgroup.create_unified()
            pid = self._fork()
            if pid == 0:
                self._run_first(request_fd, report, stdio, self._cgroup)
            namespaces.setns(own, namespaces.CLONE_NEWPID)
        return pid, True

    def exec(self, request: ExecRequest, report: Report, stdio: Stdio, init_pid: int) -> int:
        """Fork one more process."""
        return self._fork_exec(request, report, stdio, init_pid, Stage())

    def exec_ahead(self, request: ExecRequest, report: Report, stdio: Stdio, init_pid: int) -> int:
        """The same; it waits until it is told to go on (`Starting.let_go_on`) before it is born in the container."""
        return self._fork_exec(request, report, stdio, init_pid, WaitingStage(report))

    def _fork_exec(self, request: ExecRequest, report: Report, stdio: Stdio, init_pid: int, stage: Stage) -> int:
        init = os.pidfd_open(init_pid)
        with closing(init):
            pid = self._fork(init_pid)
            if pid == 0:
                run_exec(request, report, stdio, self._cgroup, init, stage=stage)
        return pid

    def _fork(self, init_pid: int | None = None) -> int:
        """Fork a process that is in the container's cgroup2, where the machine has that and it is there already."""
        if init_pid is None and self._cgroup.made_around_a_process:
            return _fork_into(None)
        try:
            return _fork_into(self._cgroup.open_unified())
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                self._cgroup.require_domain()
            # A container that divides its cgroup (systemd does) lets no process into the top of it.
            if error.errno != errno.EBUSY or init_pid is None:
                raise
            return _fork_into(self._cgroup.open_unified_of(init_pid))

    def errand(self, report: Report, verb: str, *rest: str, resources: dict[str, Any] | None = None) -> int:
        """There is no other program to call."""
        raise ValueError(f"the container has no other runtime to {verb} it")

    def settled(self, known: set[int]) -> None:
        """Nothing to do: no process was adopted."""

    def clear(self) -> None:
        """Nothing to do: all of the container is in its cgroup."""


def _fork_into(cgroup_fd: int | None) -> int:
    try:
        return namespaces.fork_into_cgroup(cgroup_fd)
    finally:
        if cgroup_fd is not None:
            os.close(cgroup_fd)


def _prepare_pid_namespace(path: str | None) -> None:
    """Have this process's next child born in the container's pid namespace."""
    if path:
        with closing(os.open(path, os.O_RDONLY | os.O_CLOEXEC)) as fd:
            namespaces.setns(fd, namespaces.CLONE_NEWPID)
    elif path is not None:
        namespaces.unshare(namespaces.CLONE_NEWPID)
