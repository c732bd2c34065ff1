"""A container made by another OCI runtime (runtime-spec runtime.md, "Operations"), watched by Pier's monitor.

Where a monitor would fork a process that becomes the program, it forks a caller here: that one mounts the root file
system in a mount namespace of its own, writes the bundle, calls the runtime, says which process is the container's, and
ends. The kernel has given that process to the monitor meanwhile (PR_SET_CHILD_SUBREAPER), which waits for it as for its
own. Callers are the only processes of Pier's that execute another program.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from pier.kernel import mounts, namespaces, process
from pier.kernel.netlink import NetlinkSocket
from pier.kernel.paths import closing
from pier.runtime import wire
from pier.runtime.monitor.oci_call import OciRuntime, RuntimeFailed
from pier.runtime.process import network, program
from pier.runtime.process.init import Report, Stdio, is_new, leave_host_mounts, make_mount_private, offer_resolver
from pier.runtime.request import BindRoot, ExecRequest, OverlayRoot, StartRequest, Supervision


class ForeignMaker:
    """How a monitor has its container made, and the processes of its execs, by another runtime."""

    def __init__(self, supervision: Supervision) -> None:
        # Where systemd keeps the cgroups, a path below them is none of a file system's: every runtime has this option.
        options = [] if supervision.cgroup_path.startswith("/") else ["--systemd-cgroup"]
        self._runtime = runtime_of([*supervision.oci_runtime, *options], supervision.exec_dir, supervision.id)

    @property
    def runtime(self) -> OciRuntime | None:
        """The other runtime."""
        return self._runtime

    def first(self, request_fd: int, report: Report, stdio: Stdio) -> tuple[int, bool]:
        """Fork the caller that makes the container. It reports as a first process does, and names it."""
        process.prctl(process.PR_SET_CHILD_SUBREAPER, 1)

        def work() -> None:
            request = StartRequest.from_json(wire.read_sealed(request_fd).decode())
            report.pass_on(create(self._runtime, request, report, stdio))

        return _fork_caller(report, [request_fd, *stdio], work), False

    def exec(self, request: ExecRequest, report: Report, stdio: Stdio, init_pid: int) -> int:
        """Fork the caller of one more process; returns its pid."""
        process.prctl(process.PR_SET_CHILD_SUBREAPER, 1)

        def work() -> None:
            report.pass_on(execute(self._runtime, request, report, stdio, init_pid))

        return _fork_caller(report, [*stdio], work)

    def exec_ahead(self, request: ExecRequest, report: Report, stdio: Stdio, init_pid: int) -> int:
        """There is no runtime that can be stopped halfway."""
        raise OSError(errno.EOPNOTSUPP, "another runtime makes its processes in one go")

    def errand(self, report: Report, verb: str, *rest: str, resources: dict[str, Any] | None = None) -> int:
        """Fork a caller of one verb; returns its pid. End of file says that it is done.

        `resources` is an OCI `linux.resources` for the verb's `--resources`.
        """

        def work() -> None:
            if resources is None:
                self._runtime.call(verb, *rest)
                return
            with _document(f"{self._runtime.folder}/resources-{os.getpid()}.json", resources) as path:
                self._runtime.call(verb, "--resources", path, *rest)

        return _fork_caller(report, [], work)

    def settled(self, known: set[int]) -> None:
        """No start is under way: orphans of the container are again the business of who had them before.

        Those that came meanwhile and have ended are buried; `known` are the children that are waited for elsewhere.
        """
        process.prctl(process.PR_SET_CHILD_SUBREAPER, 0)
        for pid in _children():
            if pid not in known:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)

    def clear(self) -> None:
        """Leave nothing of the container behind. Raises RuntimeFailed, OSError."""
        self._runtime.clear()


def runtime_of(command: list[str], exec_dir: str, id: str) -> OciRuntime:
    """A runtime for the container whose folder below the exec root is `exec_dir`."""
    return OciRuntime(command, f"{exec_dir}/oci", id)


def _fork_caller(report: Report, keep: list[int], work: Callable[[], None]) -> int:
    """Fork a process that does `work` and ends; what goes wrong it reports."""
    pid = os.fork()
    if pid == 0:
        _be_caller(report, keep, work)
    return pid


def _be_caller(report: Report, keep: list[int], work: Callable[[], None]) -> NoReturn:
    try:
        process.close_all_but([report.fileno(), *keep])
        process.prctl(process.PR_SET_PDEATHSIG, signal.SIGKILL)
        work()
    except BaseException as error:
        report.fail(error)
    os._exit(0)


def _children() -> list[int]:
    with open("/proc/thread-self/children", encoding="ascii") as file:
        return [int(word) for word in file.read().split()]


# --- create, start ---------------------------------------------------------------------------------------------------


def create(runtime: OciRuntime, request: StartRequest, report: Report, stdio: Stdio) -> int:
    """Have the runtime make the container and start its program; returns the pid of its first process.

    Leaves this process in a mount namespace of its own. Raises RuntimeFailed, UserError, OSError.
    """
    if any(item["type"] == "user" for item in request.spec["linux"]["namespaces"]):
        raise ValueError("a user namespace of the container's own takes Pier's own runtime: --runtime pier")
    runtime.clear()  # what a monitor that was killed has left
    spec, terminal = request.spec, bool(request.spec["process"].get("terminal"))
    rootfs = f"{runtime.folder}/rootfs"
    os.makedirs(rootfs, mode=0o700)
    with contextlib.ExitStack() as stack:
        root_fd = stack.enter_context(closing(_mount_root(request, rootfs)))
        netns = stack.enter_context(_network(request, report))
        ready = program.prepare(
            spec["process"], request.user, request.group_add, filter=None, root_fd=root_fd, labels=[]
        )
        _write_json(f"{runtime.folder}/config.json", bundle_config(spec, oci_process(ready), rootfs, netns))
        pid = _call_for_pid(
            runtime, "create", ["--bundle", runtime.folder], report=report, stdio=stdio, terminal=terminal
        )
        runtime.call("start", runtime.id)
    return pid


def bundle_config(spec: dict[str, Any], process_: dict[str, Any], rootfs: str, netns: str) -> dict[str, Any]:
    """The configuration for another runtime: `spec` with what Pier's own finds out for itself filled in. Pure.

    `process_` has its user as numbers; `netns` is the path of the network namespace made for it, empty for none.
    """
    linux = spec["linux"]
    joined = [{**item, "path": netns} if item["type"] == "network" and netns else item for item in linux["namespaces"]]
    return {
        **spec,
        "process": process_,
        "root": {**spec.get("root", {}), "path": rootfs},
        "linux": {**linux, "namespaces": joined},
    }


def oci_process(ready: program.Program) -> dict[str, Any]:
    """An OCI `process` whose user has been looked up."""
    identity = ready.identity
    user = {**ready.process.get("user", {}), "uid": identity.uid, "gid": identity.gid}
    if identity.additional_gids:
        user["additionalGids"] = identity.additional_gids
    env = [f"{os.fsdecode(name)}={os.fsdecode(value)}" for name, value in ready.env.items()]
    return {**ready.process, "user": user, "env": env}


def _mount_root(request: StartRequest, place: str) -> int:
    """Mount the root file system in a new mount namespace of this process's; returns a descriptor of the root."""
    root = request.root
    namespaces.unshare(namespaces.CLONE_NEWNS)
    leave_host_mounts(request.spec["linux"])
    make_mount_private(place)
    if isinstance(root, OverlayRoot):
        fd = mounts.mount_overlay(root.lower, root.upper, root.work, volatile=root.volatile)
    elif isinstance(root, BindRoot):
        fd = mounts.open_tree(mounts.AT_FDCWD, root.path, clone=True, recursive=True)
    else:
        raise ValueError("the container's root file system is mounted already")
    with closing(os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)) as place_fd:
        mounts.move_mount(fd, place_fd, place)
    return fd


@contextlib.contextmanager
def _network(request: StartRequest, report: Report) -> Iterator[str]:
    """The container's network namespace with its devices, by a path that this process holds; "" where it has none.

    A runtime that looks at the devices when it makes the container (a virtual machine's does) finds them all.
    """
    if not is_new(request.spec["linux"], "network"):
        yield ""
        return
    with contextlib.ExitStack() as stack:
        host = stack.enter_context(NetlinkSocket()) if request.interfaces else None
        own = stack.enter_context(closing(os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)))
        namespaces.unshare(namespaces.CLONE_NEWNET)
        try:
            network.configure(host, request.interfaces)
            offer_resolver(request, report)
            made = stack.enter_context(closing(os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)))
        finally:
            namespaces.setns(own, namespaces.CLONE_NEWNET)
        yield f"/proc/{os.getpid()}/fd/{made}"


# --- exec ------------------------------------------------------------------------------------------------------------


def execute(runtime: OciRuntime, request: ExecRequest, report: Report, stdio: Stdio, init_pid: int) -> int:
    """Have the runtime run one more process; returns its pid. Raises RuntimeFailed, UserError, OSError."""
    with closing(os.open(f"/proc/{init_pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as root_fd:
        ready = program.prepare(
            request.process, request.user, request.group_add, filter=None, root_fd=root_fd, labels=[]
        )
    with _document(f"{runtime.folder}/process-{os.getpid()}.json", oci_process(ready)) as path:
        options = ["--detach", "--process", path]
        terminal = bool(request.process.get("terminal"))
        return _call_for_pid(runtime, "exec", options, report=report, stdio=stdio, terminal=terminal)


# --- what both share -------------------------------------------------------------------------------------------------


def _call_for_pid(
    runtime: OciRuntime, verb: str, options: list[str], *, report: Report, stdio: Stdio, terminal: bool
) -> int:
    """Call a verb that makes a process; its terminal's master goes to the monitor, its pid is returned."""
    with contextlib.ExitStack() as stack:
        pid_file = stack.enter_context(_temporary(f"{runtime.folder}/pid-{os.getpid()}"))
        console = stack.enter_context(Console(runtime.folder)) if terminal else None
        if console is not None:
            options = [*options, "--console-socket", console.path]
        runtime.call(verb, *options, "--pid-file", pid_file, runtime.id, stdio=stdio)
        if console is not None:
            with closing(console.receive(runtime.command[0])) as master:
                report.terminal(master)
        try:
            with open(pid_file, encoding="ascii") as file:
                return int(file.read(32))
        except (OSError, ValueError) as error:
            reason = f"open {pid_file}: {error.strerror or ''}".lower() if isinstance(error, OSError) else str(error)
            raise RuntimeFailed(f"failed to retrieve OCI runtime container pid: {reason}") from error


class Console:
    """The socket that a runtime sends a terminal's master to (`--console-socket`)."""

    def __init__(self, folder: str) -> None:
        self._name = f"console-{os.getpid()}"
        self._folder_fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        # By descriptor: the folder's own path may be longer than sun_path holds.
        self.path = f"/proc/{os.getpid()}/fd/{self._folder_fd}/{self._name}"
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(self.path)
        self._listener.listen(1)

    def __enter__(self) -> Console:
        return self

    def __exit__(self, *error: object) -> None:
        self._listener.close()
        os.unlink(self._name, dir_fd=self._folder_fd)
        os.close(self._folder_fd)

    def receive(self, runtime: str) -> int:
        """The master that a runtime which has ended since has sent. Raises RuntimeFailed."""
        self._listener.setblocking(False)
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:
            raise RuntimeFailed(f"OCI runtime create failed: {runtime} sent no terminal") from None
        with connection:
            connection.setblocking(False)
            packet = connection.recvmsg(4096, wire.CONTROL_MAX, socket.MSG_CMSG_CLOEXEC)
        fds = wire.packet_fds((packet[0], packet[1]))
        if len(fds) != 1:
            raise RuntimeFailed(f"OCI runtime create failed: {runtime} sent {len(fds)} descriptors for one terminal")
        return fds[0]


@contextlib.contextmanager
def _temporary(path: str) -> Iterator[str]:
    """The path of a file that is gone when the block is left."""
    try:
        yield path
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


@contextlib.contextmanager
def _document(path: str, document: dict[str, Any]) -> Iterator[str]:
    """A JSON file that is there while the block runs."""
    with _temporary(path):
        _write_json(path, document)
        yield path


def _write_json(path: str, document: dict[str, Any]) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(json.dumps(document, separators=(",", ":")))
