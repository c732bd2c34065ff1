"""`exec`: one more process in a running container, forked into all that its first process is in."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from typing import Any, NamedTuple, NoReturn

from pier.kernel import namespaces, process
from pier.kernel.cgroup_tree import CgroupTree
from pier.kernel.paths import closing
from pier.kernel.schedule import set_personality
from pier.runtime import wire
from pier.runtime.command import console
from pier.runtime.command.bundle import PROCESS, read_json
from pier.runtime.command.flags import Line
from pier.runtime.command.foreground import Foreground
from pier.runtime.command.launch import INHERITED, Started, drop_unknown_capabilities
from pier.runtime.command.life import cgroup_of, status
from pier.runtime.command.main import Context
from pier.runtime.command.schema import without_nulls
from pier.runtime.command.start import check_terminal, preserved_fds, tell
from pier.runtime.command.state import Container, Record, StateError
from pier.runtime.monitor.starting import Outer, Starting, close_fds
from pier.runtime.process.init import Report, Stage
from pier.runtime.process.join import enter
from pier.runtime.request import ExecRequest

JOINED_KINDS = ("user", "mount", "uts", "ipc", "network", "cgroup", "time")
"""Joined where they differ from ours; the pid namespace always."""


class _ExecStage(Stage):
    die_with_parent = 0

    def __init__(self, keep_fds: int) -> None:
        self.keep_fds = keep_fds


class _Order(NamedTuple):
    record: Record
    request: ExecRequest
    cgroup: CgroupTree
    personality: str
    preserved: int


def exec(context: Context, line: Line) -> int:
    """Returns the program's exit code; with --detach 0."""
    container_id, *args = line.arguments
    container = Container(context.root, container_id)
    record = container.load()
    found = status(container, record)
    if found == "stopped":
        raise StateError("cannot exec in a stopped container")
    if found == "paused" and not line.on("ignore-paused"):
        raise StateError("cannot exec in a paused container (use --ignore-paused to override)")
    spec = container.load_spec()
    wanted = process_of(line, spec["process"], args)
    drop_unknown_capabilities(wanted, context.log.warning)
    detach = line.on("detach")
    check_terminal(terminal=wanted["terminal"], detach=detach, console_socket=line.text("console-socket"))
    if wanted["terminal"] and not detach:
        console.adopt_size(wanted)
    preserved, added = preserved_fds(line.options["preserve-fds"])
    wanted["env"] = [*wanted.get("env", []), *added]
    linux = spec.get("linux", {})
    order = _Order(
        record,
        ExecRequest(exec_id="", process=wanted, seccomp_bpf=container.filter if linux.get("seccomp") else None),
        sub_cgroup(cgroup_of(record), line.options["cgroup"]),
        linux.get("personality", {}).get("domain", ""),
        preserved,
    )
    foreground = None if detach else Foreground(subreaper=False)
    started = _fork(container, order)
    tell(line, started)
    if foreground is None:
        return 0
    return foreground.attend(started.pid, started.terminal)


def process_of(line: Line, container_process: dict[str, Any], args: list[str]) -> dict[str, Any]:
    """OCI's `process` for an exec: a file's, or the container's own with what the options change. Raises StateError."""
    if line.text("process"):
        document = read_json(line.text("process"))
        PROCESS(document, "process")
        wanted: dict[str, Any] = without_nulls(document)
    else:
        # The limits of the container's first process are its own; runc gives an exec all but these fields too.
        wanted = {**container_process, "args": args, "terminal": False}
        for key in ("consoleSize", "scheduler", "ioPriority"):
            wanted.pop(key, None)
    if line.text("cwd"):
        wanted["cwd"] = line.text("cwd")
    wanted["env"] = [*wanted.get("env", []), *line.options["env"]]
    wanted["terminal"] = line.on("tty") or bool(wanted.get("terminal"))
    wanted["noNewPrivileges"] = line.on("no-new-privs") or bool(wanted.get("noNewPrivileges"))
    if line.text("apparmor"):
        wanted["apparmorProfile"] = line.text("apparmor")
    if line.text("process-label"):
        wanted["selinuxLabel"] = line.text("process-label")
    wanted["user"] = {"uid": 0, "gid": 0, **wanted.get("user", {}), **_user(line)}
    if line.options["cap"]:
        sets = wanted.get("capabilities", {})
        kinds = ("bounding", "effective", "permitted")
        wanted["capabilities"] = sets | {kind: [*sets.get(kind, []), *line.options["cap"]] for kind in kinds}
    if not wanted.get("cwd", "").startswith("/"):
        raise StateError("Cwd must be an absolute path")
    if not wanted.get("args"):
        raise StateError("exec args cannot be empty")
    return wanted


def _user(line: Line) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    if line.text("user"):
        uid, colon, gid = line.text("user").partition(":")
        changes["uid"] = _id(uid, "uid")
        if colon:
            changes["gid"] = _id(gid, "gid")
    if line.options["additional-gids"]:
        changes["additionalGids"] = [_id(text, "gid") for text in line.options["additional-gids"]]
    return changes


def _id(text: str, what: str) -> int:
    """A number, never a name that is looked up (CVE-2026-30892: `-u 1` is user 1)."""
    if not text.isascii() or not text.isdigit() or int(text) > 2**31 - 1:
        raise StateError(f'bad {what}: "{text}" is not a number from 0 to {2**31 - 1}')
    return int(text)


def sub_cgroup(cgroup: CgroupTree, wanted: list[str]) -> CgroupTree:
    """The cgroup below the container's that `--cgroup` names, the same in every hierarchy. Raises StateError."""
    if not wanted:
        return cgroup
    if len(wanted) > 1 or ":" in wanted[0]:
        raise StateError("--cgroup for single controllers is not implemented by Pier; name one sub-cgroup")
    if ".." in wanted[0].split("/"):
        raise StateError(f"{wanted[0]} is not a sub cgroup path")
    return CgroupTree(cgroup.layout, f"{cgroup.path}/{wanted[0].strip('/')}".rstrip("/"))


def _fork(container: Container, order: _Order) -> Started:
    """Fork the process; returns when it is the program. Raises StateError, OSError."""
    with closing(os.pidfd_open(order.record.pid)) as init:
        if not container.alive(order.record):
            raise StateError("container not running")
        ours, theirs = wire.pair()
        pid = _fork_into_cgroup(order)
        if pid == 0:
            _become(order, theirs, init)
        theirs.close()
    starting = Starting(pid, ours, Outer(-1, -1, -1), terminal=True)
    while not starting.done:
        starting.receive()
    ours.close()
    if starting.error is not None:
        starting.abandon()
        starting.bury()
        raise StateError(f"unable to start container process: {starting.error[0]}")
    return Started(starting.pid, -1 if starting.stdin is None else starting.stdin)


def _fork_into_cgroup(order: _Order) -> int:
    for entrance in (order.cgroup.open_unified, lambda: order.cgroup.open_unified_of(order.record.pid)):
        fd = entrance()
        try:
            return namespaces.fork(cgroup_fd=fd)
        except OSError as error:
            # A container that divides its cgroup (systemd does) lets no process into the top of it.
            if error.errno != errno.EBUSY:
                raise
        finally:
            close_fds([-1 if fd is None else fd])
    raise StateError("the container's cgroup takes no process")


def _become(order: _Order, sock: Any, init: int) -> NoReturn:
    report = Report(sock)
    try:
        signal.set_wakeup_fd(-1)  # the maker's
        process.close_all_but([report.fileno(), init, *range(3, 3 + order.preserved)])
        if order.personality:
            set_personality(order.personality)
        enter(
            order.request,
            report,
            INHERITED,
            cgroup=order.cgroup,
            init_pidfd=init,
            stage=_ExecStage(order.preserved),
            joined=joined_flags(order.record.pid) | namespaces.CLONE_NEWPID,
        )
    except BaseException as error:
        report.fail(error)


def joined_flags(pid: int) -> int:
    """CLONE_NEW* of the namespaces in which process `pid` is and we are not."""
    flags = 0
    for kind in JOINED_KINDS:
        with contextlib.suppress(FileNotFoundError):  # a kernel without time namespaces
            theirs = os.stat(namespaces.namespace_path(pid, kind))
            ours = os.stat(f"/proc/self/ns/{os.path.basename(namespaces.namespace_path(pid, kind))}")
            if theirs.st_ino != ours.st_ino:
                flags |= namespaces.OCI_TYPES[kind]
    return flags
