"""One more process in a running container, from fork to execve (`docker exec`)."""

from __future__ import annotations

import os
import signal
from typing import NoReturn

from pier.kernel import namespaces, process
from pier.kernel.cgroups import Cgroup
from pier.kernel.namespaces import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
)
from pier.kernel.paths import RESOLVE_IN_ROOT, RESOLVE_NO_SYMLINKS, closing, open_in_root, require_fs
from pier.runtime import program
from pier.runtime.init import (
    Report,
    Stage,
    Stdio,
    become_root,
    join_cgroup,
    keyring_name,
    set_oom_score,
    start_program,
    use_stdio,
)
from pier.runtime.request import ExecRequest
from pier.runtime.rootfs import DEVPTS_SUPER_MAGIC

JOINED = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWCGROUP
"""The pid namespace is not among them: the monitor's children are born in it."""


def run(request: ExecRequest, report: Report, stdio: Stdio, cgroup: Cgroup, init_pidfd: int) -> NoReturn:
    """Be the new process. Never returns; every failure is reported."""
    try:
        process.close_all_but([report.fileno(), init_pidfd, *stdio])
        process.prctl(process.PR_SET_PDEATHSIG, signal.SIGKILL)
        enter(request, report, stdio, cgroup=cgroup, init_pidfd=init_pidfd, stage=Stage())
    except BaseException as error:
        report.fail(error)


def enter(
    request: ExecRequest,
    report: Report,
    stdio: Stdio,
    *,
    cgroup: Cgroup,
    init_pidfd: int,
    stage: Stage,
    joined: int = JOINED,
) -> NoReturn:
    """Join the container of the process behind `init_pidfd` (its `joined` namespaces) and become the program."""
    # Until execve this is a root process of the host's Python inside the container: none may look into it.
    process.prctl(process.PR_SET_DUMPABLE, 0)
    bpf = program.read_filter(request.seccomp_bpf)
    labels = program.open_labels(request.process)
    set_oom_score(request.process.get("oomScoreAdj"), set(), report)
    join_cgroup(cgroup)
    process.join_session_keyring(keyring_name(cgroup.path))
    namespaces.setns(init_pidfd, joined)
    os.close(init_pidfd)
    if joined & CLONE_NEWUSER:
        become_root()
    os.umask(0)
    with closing(os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as root_fd:
        ready = program.prepare(
            request.process, request.user, request.group_add, filter=bpf, root_fd=root_fd, labels=labels
        )
        if request.process.get("terminal"):
            stdio = _open_terminal(request, root_fd, report)
    use_stdio(stdio)
    if not request.process.get("terminal"):
        os.setsid()
    start_program(ready, report, set(), stage)


def _open_terminal(request: ExecRequest, root_fd: int, report: Report) -> Stdio:
    """A terminal of the container's devpts; whatever else stands at /dev/pts is refused."""
    path = open_in_root(root_fd, "/dev/pts", os.O_PATH | os.O_DIRECTORY, resolve=RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS)
    with closing(path) as pts_fd:
        require_fs(pts_fd, DEVPTS_SUPER_MAGIC, "/dev/pts")
        master, slave, _ = process.open_pty(pts_fd)
    size = request.process.get("consoleSize") or {}
    if size.get("height") and size.get("width"):
        process.set_window_size(master, size["height"], size["width"])
    report.terminal(master)
    os.close(master)
    process.make_controlling_terminal(slave)
    return Stdio(slave, slave, slave)
