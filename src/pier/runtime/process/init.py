"""A container's first process, from fork to execve (runtime-spec, "Lifecycle" steps 3 to 8).

It makes its own namespaces, network and mounts, then becomes the program. The monitor waits on `Report`'s socket: an
error arrives as a message, success as end of file when execve closes it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
from functools import partial
from typing import Any, NamedTuple, NoReturn

from pier.errors import PierError
from pier.kernel import mounts, namespaces, process
from pier.kernel.cgroup_layout import Layout, detect
from pier.kernel.cgroup_tree import CgroupTree
from pier.kernel.cgroups import Cgroup
from pier.kernel.netlink import NetlinkSocket
from pier.kernel.paths import closing
from pier.kernel.schedule import set_personality
from pier.runtime import wire
from pier.runtime.process import idmap, network, program, remap, resolver, rootfs
from pier.runtime.process.blame import FieldError, asked_by
from pier.runtime.process.failure import OTHER, ProgramError
from pier.runtime.process.reaper import run_reaper, show_as_reaper
from pier.runtime.request import BindRoot, DetachedRoot, StartRequest


class Report:
    """What a new process tells its monitor before it becomes the program."""

    def __init__(self, sock: socket.socket, *, names_fields: bool = False) -> None:
        """With `names_fields` errors begin with the path of the configuration's field that they come from."""
        self._sock = sock
        self._names_fields = names_fields
        self._predecessor = False

    def fileno(self) -> int:
        return self._sock.fileno()

    def warn(self, text: str) -> None:
        wire.send(self._sock, {"warning": text})

    def terminal(self, master: int) -> None:
        wire.send(self._sock, {"terminal": True}, [master])

    def name_server(self, sockets: resolver.Sockets) -> None:
        """The name server's sockets are there; the caller keeps, and closes, its own."""
        wire.send(self._sock, {"resolver": True}, sockets.filenos())

    def pass_on(self, pid: int) -> None:
        """Another child of the monitor's goes on in this one's place."""
        wire.send(self._sock, {"pid": pid})

    def wait_for_word(self) -> None:
        """Wait for `Starting.let_go_on`; ends with a monitor that is gone."""
        if not os.read(self._sock.fileno(), 1):
            os._exit(1)

    def take_over(self, pid: int) -> None:
        """This process, `pid`, is the rebirth of the one that the monitor knows, which is to be killed."""
        wire.send(self._sock, {"pid": pid, "reborn": True})
        self._predecessor = True

    def settle(self) -> None:
        """Wait until the process that this one took over from is gone; before this one ends, or is the program."""
        if self._predecessor:
            self._predecessor = False
            wire.receive(self._sock)

    def fail(self, error: BaseException) -> NoReturn:
        """Say what went wrong and end. A traceback never leaves: its text goes with the message's class."""
        code = error.exit_code if isinstance(error, ProgramError) else OTHER
        text = error.wire if self._names_fields and isinstance(error, FieldError) else _words_of(error)
        if not isinstance(error, (ProgramError, PierError, OSError, ValueError)):
            text = f"{type(error).__name__}: {text}"
        with contextlib.suppress(OSError):
            wire.send(self._sock, {"error": text, "exit_code": code})
            self.settle()
        os._exit(1)


def _words_of(error: BaseException) -> str:
    """An error's text, without the number that OSError puts before it."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__


class Stdio(NamedTuple):
    """The program's ends of its standard streams; all -1 with a terminal, which the process opens itself."""

    stdin: int
    stdout: int
    stderr: int


class Prepared(NamedTuple):
    """What a process has already that becomes a container's first one (`parking`)."""

    namespaces: frozenset[str]
    """OCI names of those that are new."""
    host_link: NetlinkSocket | None
    """Of the host's network namespace."""
    furniture: rootfs.Furniture

    def fds(self) -> list[int]:
        links = [] if self.host_link is None else [self.host_link.fileno()]
        return links + self.furniture.fds()


NOTHING_PREPARED = Prepared(frozenset(), None, rootfs.NO_FURNITURE)


class Stage:
    """The turns of a start where a container of the command line's (`first.BundleStage`) differs from a monitor's."""

    die_with_parent: int = signal.SIGKILL
    """The signal that comes when the parent is gone; 0 for none."""
    keep_fds: int = 0
    """How many descriptors from 3 on the program inherits."""

    def read_filter(self, request: StartRequest) -> program.Filter | None:
        """The seccomp filter, while the host's files can be read."""
        return program.read_filter(request.seccomp_bpf)

    def confine(self, request: StartRequest, report: Report) -> None:
        """Set limits and join the cgroup, before anything else happens."""

    def prepared_sources(self, spec: dict[str, Any]) -> dict[int, int]:
        """Detached mounts for entries of the configuration's `mounts`: index -> descriptor."""
        return {}

    def rooted(self) -> None:
        """The namespaces are there, and the root, with nothing in it yet."""

    def joined(self) -> None:
        """An exec has all of the container but its pid namespace, and the program's identity."""

    def furnished(self) -> None:
        """Everything is mounted; the host's root is still there."""

    def ready(self) -> None:
        """Nothing but execve remains."""


class MonitoredStage(Stage):
    """A container whose monitor waits for it: the first process limits itself."""

    def __init__(self, cgroup: Cgroup) -> None:
        self._cgroup = cgroup

    def prepared_sources(self, spec: dict[str, Any]) -> dict[int, int]:
        return idmap.prepare_sources(spec, new_user_namespace=False)

    def confine(self, request: StartRequest, report: Report) -> None:
        set_oom_score(request.spec["process"].get("oomScoreAdj"), set(request.requested), report)
        limit(self._cgroup, request.spec.get("linux", {}).get("resources") or {}, report)
        join_cgroup(self._cgroup)
        process.join_session_keyring(keyring_name(self._cgroup.path))


class RemappedStage(Stage):
    """The same in a user namespace of the container's own: what takes the host's root was done before."""

    def __init__(self, cgroup: Cgroup, crossed: remap.Crossed) -> None:
        self._cgroup = cgroup
        self._crossed = crossed

    def prepared_sources(self, spec: dict[str, Any]) -> dict[int, int]:
        return self._crossed.sources

    def rooted(self) -> None:
        become_root()
        process.prctl(process.PR_SET_PDEATHSIG, self.die_with_parent)  # the change of identity has cleared it
        process.join_session_keyring(keyring_name(self._cgroup.path))


def run(
    request_fd: int, report: Report, stdio: Stdio, cgroup: Cgroup, prepared: Prepared = NOTHING_PREPARED
) -> NoReturn:
    """Be the first process of the container that the StartRequest behind `request_fd` asks for.

    Never returns; every failure is reported.
    """
    try:
        process.close_all_but([report.fileno(), request_fd, *stdio, *prepared.fds()])
        process.prctl(process.PR_SET_PDEATHSIG, signal.SIGKILL)
        process.prctl(process.PR_SET_DUMPABLE, 0)
        cgroup.create()
        request = StartRequest.from_json(wire.read_sealed(request_fd).decode())
        if request.init:
            show_as_reaper(request.spec["process"]["args"])
        stage: Stage = MonitoredStage(cgroup)
        if remap.wanted(request.spec):
            early, late = remap.split_limits(request)
            confine = partial(stage.confine, early, report)

            def hand_over(pid: int) -> None:
                limit(cgroup, late, report)
                report.pass_on(pid)

            networked = partial(offer_resolver, request, report)
            crossed = remap.cross(request, stdio, confine=confine, networked=networked, hand_over=hand_over)
            request, stage = crossed.request, RemappedStage(cgroup, crossed)
        become_container(request, report, stdio, stage, prepared)
    except BaseException as error:
        report.fail(error)
    os._exit(1)


def become_container(
    request: StartRequest, report: Report, stdio: Stdio, stage: Stage, prepared: Prepared = NOTHING_PREPARED
) -> None:
    """Make the container around this process and become its program. Returns only by an exception."""
    spec = request.spec
    linux: dict[str, Any] = spec.get("linux", {})
    own = {item["type"] for item in linux.get("namespaces", [])}
    bpf = stage.read_filter(request)
    program.check_labels(spec["process"])
    program.check_mount_label(linux)
    labels = program.open_labels(spec["process"])
    steps = rootfs.plan(spec, _v1_hierarchies(detect()), own, stage.prepared_sources(spec))
    stage.confine(request, report)
    host_link = NetlinkSocket() if request.interfaces and prepared.host_link is None else prepared.host_link
    enter_namespaces(linux.get("namespaces", []), prepared.namespaces)
    if is_new(linux, "network"):
        network.configure(host_link, request.interfaces, loopback="network" not in prepared.namespaces)
        offer_resolver(request, report)
    if host_link is not None:
        host_link.close()
    if is_new(linux, "uts"):
        if spec.get("hostname"):
            process.sethostname(spec["hostname"])
        if spec.get("domainname"):
            process.setdomainname(spec["domainname"])
    os.umask(0)
    with contextlib.ExitStack() as stack:
        leave_host_mounts(linux)
        steps = [step._replace(operation=rootfs.with_host_root(step.operation)) for step in steps]
        with asked_by("root.path"):
            root_fd = stack.enter_context(closing(_mount_root(request)))
        stage.rooted()
        null_fd = stack.enter_context(closing(rootfs.open_null()))
        tree = rootfs.Tree(root_fd, null_fd, prepared.furniture)
        for step in steps:
            step.execute(tree)
        ready = program.prepare(
            spec["process"], request.user, request.group_add, filter=bpf, root_fd=root_fd, labels=labels
        )
        if spec["process"].get("terminal"):
            stdio = _open_terminal(spec["process"], tree, report)
        stage.furnished()
        pivot = not isinstance(request.root, BindRoot) or request.root.pivot
        _enter_root(root_fd, read_only=spec.get("root", {}).get("readonly", False), pivot=pivot)
        for fd in (tree.dev_fd, tree.pts_fd):
            if fd is not None:
                os.close(fd)
    use_stdio(stdio)
    if not spec["process"].get("terminal"):
        os.setsid()
    if linux.get("personality"):
        set_personality(linux["personality"]["domain"])
    start_program(ready, report, set(request.requested), stage, make_cwd=True, with_reaper=request.init)


def offer_resolver(request: StartRequest, report: Report) -> None:
    """Make the container's name server, if it is to have one, in this process's network namespace. Raises OSError."""
    if request.resolver:
        sockets = resolver.open_sockets()
        if sockets.warning:
            report.warn(sockets.warning)
        report.name_server(sockets)
        sockets.close()


def _v1_hierarchies(layout: Layout) -> list[tuple[str, str]]:
    return [(os.path.basename(mount), words) for mount, words in layout.v1_options]


def limit(cgroup: Cgroup, resources: dict[str, Any], report: Report) -> None:
    """Set limits (`linux.resources`), with a warning for each that this kernel does not have. Raises OSError."""
    for warning in cgroup.apply(resources):
        report.warn(warning)


def join_cgroup(cgroup: CgroupTree) -> None:
    """Move this process into a cgroup in every v1 hierarchy (cgroups(7): 0 is the writer)."""
    for fd in cgroup.open_entrances():
        os.write(fd, b"0")
        os.close(fd)


def keyring_name(cgroup_path: str) -> str:
    """A container's session keyring: the daemon's own, with the host's keys, must not be inherited."""
    return f"_ses.{os.path.basename(cgroup_path)}"


def become_root() -> None:
    """Take on root of the user namespace this process is in; as the host's root it is nobody there."""
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    process.prctl(process.PR_SET_DUMPABLE, 0)


def enter_namespaces(wanted: list[dict[str, str]], there: frozenset[str]) -> None:
    """Join the namespaces given by path, then make the new ones, but for the types that are `there`.

    pid and user are the monitor's business. Raises FieldError.
    """
    new = 0
    for index, item in enumerate(wanted):
        kind = item["type"]
        if kind in ("pid", "user") or kind in there:
            continue
        if item.get("path"):
            try:
                with closing(os.open(item["path"], os.O_RDONLY | os.O_CLOEXEC)) as fd:
                    namespaces.setns(fd, namespaces.OCI_TYPES[kind])
            except OSError as error:
                text = f"{kind} namespace {item['path']}: {error.strerror}"
                raise FieldError(error.errno, text, f"linux.namespaces[{index}].path") from error
        else:
            new |= namespaces.OCI_TYPES[kind]
    namespaces.unshare(new)


def is_new(linux: dict[str, Any], kind: str) -> bool:
    """Whether the container gets a namespace of `kind` of its own, rather than the host's or another's."""
    return any(item["type"] == kind and not item.get("path") for item in linux.get("namespaces", []))


def leave_host_mounts(linux: dict[str, Any]) -> None:
    """Nothing that is mounted from here on may travel back to the host's mounts.

    With `shared` they have to stay our peers until the bind mounts are made; `/` itself, which the container's root is
    attached to, is private even then.
    """
    propagation = mounts.PROPAGATION[linux.get("rootfsPropagation") or "rslave"]
    if propagation & mounts.MS_SHARED:
        mounts.mount(None, "/", None, mounts.MS_PRIVATE)
    else:
        mounts.mount(None, "/", None, propagation | mounts.MS_REC)


def _mount_root(request: StartRequest) -> int:
    """Mount the root file system in this mount namespace only; returns a descriptor of its root."""
    root = request.root
    place = "/"
    if isinstance(root, BindRoot):
        fd = mounts.open_tree(mounts.AT_FDCWD, root.path, clone=True, recursive=True)
        mounts.mount_setattr(fd, propagation=mounts.MS_SLAVE, recursive=True)
        if root.at_home:
            make_mount_private(root.path)
            place = root.path
    elif isinstance(root, DetachedRoot):
        fd = root.fd
    else:
        fd = mounts.mount_overlay(root.lower, root.upper, root.work, volatile=root.volatile)
    # pivot_root wants a mount point. What is mounted over `/` hides nothing from a process whose root is below it.
    with closing(os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as place_fd:
        mounts.move_mount(fd, place_fd, place)
    return fd


def make_mount_private(path: str) -> None:
    """Make the mount that holds `path` private: what is mounted below it must not show in the host's peers."""
    while True:
        with closing(os.open(path, os.O_PATH | os.O_CLOEXEC)) as fd:
            try:
                mounts.mount_setattr(fd, propagation=mounts.MS_PRIVATE)
            except OSError as error:
                if error.errno != errno.EINVAL or path == "/":
                    raise
            else:
                return
        path = os.path.dirname(path)


def _open_terminal(process_spec: dict[str, Any], tree: rootfs.Tree, report: Report) -> Stdio:
    """Open a terminal of the container's own devpts, show it as /dev/console, hand its master to the monitor."""
    if tree.pts_fd is None or tree.dev_fd is None:
        raise OSError("a terminal needs devpts on /dev/pts and tmpfs on /dev among the mounts")
    master, slave, _ = process.open_pty(tree.pts_fd)
    size = process_spec.get("consoleSize") or {}
    if size.get("height") and size.get("width"):
        process.set_window_size(master, size["height"], size["width"])
    console = os.open(
        "console", os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=tree.dev_fd
    )
    with closing(console), closing(mounts.open_tree(slave, "", clone=True)) as copy:
        mounts.move_mount(copy, console, "/dev/console")
    report.terminal(master)
    os.close(master)
    process.make_controlling_terminal(slave)
    return Stdio(slave, slave, slave)


def _enter_root(root_fd: int, *, read_only: bool, pivot: bool = True) -> None:
    """Make the container's root the only one, and leave no way back (pivot_root(2), the `.`, `.` form)."""
    if read_only:
        mounts.mount_setattr(root_fd, set=mounts.MOUNT_ATTR_RDONLY)
    if not pivot:
        _move_root(root_fd)
        return
    with closing(os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as old_root:
        os.fchdir(root_fd)
        mounts.pivot_root(".", ".")
        # Mounts that are still the host's peers would be unmounted there too.
        mounts.mount_setattr(old_root, propagation=mounts.MS_SLAVE, recursive=True)
    mounts.umount(".", mounts.MNT_DETACH)
    os.chdir("/")


def _move_root(root_fd: int) -> None:
    """Move the container's root over `/`: where that is a ramdisk, nothing can be pivoted away from it."""
    with closing(os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as place:
        mounts.move_mount(root_fd, place, "/")
    os.fchdir(root_fd)
    os.chroot(".")
    os.chdir("/")


def use_stdio(stdio: Stdio) -> None:
    """Put the program's streams where it looks for them, 0 to 2."""
    for number, fd in enumerate(stdio):
        os.dup2(fd, number, inheritable=True)
    for fd in set(stdio):
        if fd > 2:
            os.close(fd)


def reset_signals() -> None:
    """Default dispositions and an empty mask: an ignored SIGPIPE or SIGCHLD would be inherited across execve."""
    for number in signal.valid_signals():
        if signal.getsignal(number) != signal.SIG_DFL:  # no system call: what a process inherits is read at its start
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def start_program(
    ready: program.Program,
    report: Report,
    requested: set[str],
    stage: Stage,
    *,
    make_cwd: bool = False,
    with_reaper: bool = False,
) -> NoReturn:
    """Become the program. Never returns; raises what `Report.fail` reports."""
    become_user(ready, make_cwd=make_cwd)
    if with_reaper:
        run_reaper(report.fileno(), die_with_parent=stage.die_with_parent)
    finish(ready, program.find(ready), report, requested, stage)


def become_user(ready: program.Program, *, make_cwd: bool = False) -> None:
    """All that takes privileges, and then their loss."""
    reset_signals()
    with asked_by("process.cwd"):
        program.enter_cwd(ready.process.get("cwd") or "/", make=make_cwd)
    program.own_stdio(ready.identity.uid)
    program.become(ready)


def finish(ready: program.Program, path: str, report: Report, requested: set[str], stage: Stage) -> NoReturn:
    """The last steps: limits, and execve of the file `path`. Never returns; raises what `Report.fail` reports."""
    program.set_limits(ready.process.get("rlimits", []), requested, report.warn)
    report.settle()
    program.execute(ready, path, stage.ready, die_with_parent=stage.die_with_parent, keep_fds=stage.keep_fds)


def set_oom_score(value: int | None, requested: set[str], report: Report) -> None:
    """Write oom_score_adj (proc(5)); lowering it takes CAP_SYS_RESOURCE, which not every host gives."""
    if value is None:
        return
    try:
        fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        with closing(fd):
            os.write(fd, str(value).encode())
    except OSError as error:
        text = f"cannot set oom_score_adj to {value}: {error.strerror}"
        if "process.oomScoreAdj" in requested:
            raise OSError(error.errno, text) from error
        report.warn(text)
