"""One more process in a running container, from fork to execve (`docker exec`).

Two processes do it. The first stays outside the container's pid namespace, where nothing of the container sees it, as
long as it has the host's root or privileges; its child, which takes its place, is born inside with the program's own.
A container with CAP_SYS_PTRACE would else open the host through /proc/PID/root (CVE-2016-9962 and worse).
"""

from __future__ import annotations

import contextlib
import os
import signal
from typing import NoReturn

from pier.kernel import namespaces, process
from pier.kernel.cgroup_tree import CgroupTree
from pier.kernel.namespaces import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
)
from pier.kernel.paths import RESOLVE_IN_ROOT, RESOLVE_NO_SYMLINKS, closing, open_in_root, require_fs
from pier.runtime.process import idmap, program, remap
from pier.runtime.process.failure import ProgramError
from pier.runtime.process.init import (
    Report,
    Stage,
    Stdio,
    become_root,
    become_user,
    finish,
    join_cgroup,
    keyring_name,
    set_oom_score,
    use_stdio,
)
from pier.runtime.process.rootfs import DEVPTS_SUPER_MAGIC
from pier.runtime.request import ExecRequest

JOINED = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWCGROUP | CLONE_NEWPID


class WaitingStage(Stage):
    """Of an exec that was made ahead (`monitor.prepared`)."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def joined(self) -> None:
        self._report.wait_for_word()


def run(
    request: ExecRequest, report: Report, stdio: Stdio, cgroup: CgroupTree, init_pidfd: int, *, stage: Stage
) -> NoReturn:
    """Be the new process. Never returns; every failure is reported."""
    try:
        process.close_all_but([report.fileno(), init_pidfd, *stdio])
        process.prctl(process.PR_SET_PDEATHSIG, signal.SIGKILL)
        joined = JOINED
        if request.remapped_root is not None:
            joined |= CLONE_NEWUSER
            idmap.own_pipes(stdio, *request.remapped_root)
            with contextlib.suppress(OSError):  # what cannot be raised is judged when it is set
                idmap.raise_hard_limits(os.getpid(), request.process.get("rlimits", []))
        enter(request, report, stdio, cgroup=cgroup, init_pidfd=init_pidfd, stage=stage, joined=joined)
    except BaseException as error:
        report.fail(error)


def enter(
    request: ExecRequest,
    report: Report,
    stdio: Stdio,
    *,
    cgroup: CgroupTree,
    init_pidfd: int,
    stage: Stage,
    joined: int = JOINED,
) -> NoReturn:
    """Join the container of the process behind `init_pidfd` (its `joined` namespaces) and become the program."""
    process.prctl(process.PR_SET_DUMPABLE, 0)
    bpf = program.read_filter(request.seccomp_bpf)
    program.check_labels(request.process)
    set_oom_score(request.process.get("oomScoreAdj"), set(), report)
    join_cgroup(cgroup)
    namespaces.setns(init_pidfd, joined)
    os.close(init_pidfd)
    if joined & CLONE_NEWUSER:
        become_root()
    process.join_session_keyring(keyring_name(cgroup.path))
    os.umask(0)
    with closing(os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as root_fd:
        ready = program.prepare(
            request.process, request.user, request.group_add, filter=bpf, root_fd=root_fd, labels=[]
        )
        if request.process.get("terminal"):
            stdio = _open_terminal(request, root_fd, report)
    use_stdio(stdio)
    become_user(ready)
    path = _find_ahead(ready)
    stage.joined()
    # The sibling is born in the pid namespace that was joined. What it touches is copied: it does the least it can.
    remap.go_on_in_sibling(namespaces.fork_sibling, report.pass_on)
    if request.process.get("terminal"):
        process.make_controlling_terminal(0)
    else:
        os.setsid()
    if program.has_labels(request.process):
        ready = ready._replace(labels=program.open_labels(request.process))
    finish(ready, path or program.find(ready), report, set(), stage)


def _find_ahead(ready: program.Program) -> str | None:
    """The program's file, None for what is not there: below /proc/self nothing is, seen from outside."""
    try:
        return program.find(ready)
    except ProgramError:
        return None


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
    return Stdio(slave, slave, slave)
