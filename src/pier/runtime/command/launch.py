"""Make a container from a bundle: the command line's side of a start (runtime-spec runtime.md, "Lifecycle").

Everything that takes the host's root is done here: cgroup, limits, id maps, hooks of the host. What the container's own
process does is `first`'s.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from typing import Any, NamedTuple

from pier.errors import InvalidParameter, PierError
from pier.kernel import capabilities, namespaces
from pier.kernel.cgroup_layout import SYSTEMD_RUNS, detect
from pier.kernel.cgroups import Cgroup, CgroupError
from pier.kernel.paths import closing
from pier.runtime import wire
from pier.runtime.command import hooks
from pier.runtime.command.bundle import Bundle, namespace_types
from pier.runtime.command.first import Circumstances, Inheritance
from pier.runtime.command.first import run as run_first
from pier.runtime.command.state import Container, Record, StartError, StateError, Warn, start_time
from pier.runtime.group import OWN_SCOPE_PREFIX, group_at
from pier.runtime.monitor.starting import START_TIMEOUT_S, close_fds
from pier.runtime.process import idmap
from pier.runtime.process.blame import FieldError, asked_by
from pier.runtime.process.init import Stdio, is_new, keyring_name
from pier.runtime.request import BindRoot, StartRequest

INHERITED = Stdio(0, 1, 2)
NO_SYSTEMD = (
    "systemd not running on this host, cannot use systemd cgroups manager (use cgroupfs: leave out --systemd-cgroup)"
)


class Wishes(NamedTuple):
    """What the options of `create` and `run` ask for."""

    pivot: bool = True
    new_keyring: bool = True
    preserve_fds: int = 0
    wait_at_fifo: bool = True
    systemd: bool = False
    """The cgroup is a scope of systemd's."""


class Started(NamedTuple):
    pid: int
    terminal: int
    """The master of the program's terminal, -1 for none."""


def cgroups_path(spec: dict[str, Any], container_id: str, *, systemd: bool) -> str:
    """Where a configuration wants its cgroup, for `group_at`; a relative path is one below the root."""
    path: str = spec.get("linux", {}).get("cgroupsPath") or ""
    if not systemd:
        return "/" + (path.strip("/") or container_id)
    if path.startswith("/"):
        reason = f'expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups, got "{path}" instead'
        raise StateError(reason)
    return path or f":{OWN_SCOPE_PREFIX}:{container_id}"


def drop_unknown_capabilities(process: dict[str, Any], warn: Warn) -> None:
    """Take the capabilities that neither Pier nor the kernel knows out of a `process`, as runc does."""
    sets = process.get("capabilities", {})
    unknown = {item for names in sets.values() for item in names if item not in capabilities.NUMBERS}
    if unknown:
        warn(f"ignoring unknown or unavailable capabilities: [{' '.join(sorted(unknown))}]")
        process["capabilities"] = {
            kind: [item for item in names if item not in unknown] for kind, names in sets.items()
        }


def create(container: Container, bundle: Bundle, wishes: Wishes, warn: Warn) -> Started:
    """Make the container; its program waits at the fifo, or runs. Raises StartError, StateError, PierError, OSError.

    Nothing is left after a failure.
    """
    if wishes.systemd and not os.path.isdir(SYSTEMD_RUNS):
        raise StateError(NO_SYSTEMD)
    place = cgroups_path(bundle.spec, container.id, systemd=wishes.systemd)
    try:
        cgroup = group_at(detect(), place, bundle.spec.get("annotations"))
    except CgroupError as error:
        raise StateError(f"linux.cgroupsPath: {error.wire}") from None
    drop_unknown_capabilities(bundle.spec["process"], warn)
    container.reserve()
    try:
        if found := cgroup.pids():
            raise StateError(f"container's cgroup is not empty: {len(found)} process(es) found")
    except BaseException:
        container.remove()
        raise
    try:
        return _Birth(container, bundle, cgroup, wishes, warn).run()
    except BaseException:
        with contextlib.suppress(OSError, PierError):
            cgroup.kill()
            cgroup.remove()
        container.remove()
        raise


class _Birth:
    """One container on its way."""

    def __init__(self, container: Container, bundle: Bundle, cgroup: Cgroup, wishes: Wishes, warn: Warn) -> None:
        self._container = container
        self._bundle = bundle
        self._spec = bundle.spec
        self._linux: dict[str, Any] = bundle.spec.get("linux", {})
        self._cgroup = cgroup
        self._wishes = wishes
        self._warn = warn
        self._new_user = is_new(self._linux, "user")
        self._pid = 0
        self._terminal = -1

    def run(self) -> Started:
        self._save_filter()
        if self._wishes.wait_at_fifo:
            self._container.make_fifo()
        if not self._cgroup.made_around_a_process:
            self._cgroup.create()
        ours, theirs = wire.pair()
        inherited = self._open_inheritance()
        try:
            self._pid = self._fork(theirs, inherited)
        finally:
            theirs.close()
            close_fds(fd for fd in inherited.fds() if not 3 <= fd < 3 + self._wishes.preserve_fds)
        with contextlib.closing(ours):
            try:
                self._accompany(ours)
            except BaseException:
                self._end()
                raise
        return Started(self._pid, self._terminal)

    def _limit(self) -> None:
        try:
            warnings = self._cgroup.apply(self._linux.get("resources", {}))
        except PierError as error:
            if "field" not in error.fields and not isinstance(error, InvalidParameter):
                raise
            raise StateError(f"{_below('linux.resources', error)}: {error.wire}") from None
        for text in warnings:
            self._warn(text)

    def _save_filter(self) -> None:
        profile = self._linux.get("seccomp")
        if profile is not None:
            from pier.runtime.command.filter_cache import filter_of  # noqa: PLC0415 - not every container has one

            try:
                bpf = filter_of(os.path.dirname(self._container.path), profile)
            except InvalidParameter as error:
                raise StateError(f"{_below('linux.seccomp', error)}: {error.wire}") from None
            self._container.save_filter(bpf)

    def _request(self) -> StartRequest:
        root = self._bundle.rootfs
        rlimits = self._spec["process"].get("rlimits", [])
        return StartRequest(
            id=self._container.id,
            spec=self._spec,
            root=BindRoot(root, pivot=self._wishes.pivot, at_home=not namespace_types(self._spec) & {"user"}),
            exec_dir=self._container.path,
            exit_file="",
            seccomp_bpf=self._container.filter if "seccomp" in self._linux else None,
            requested=[f"process.rlimits.{limit['type']}" for limit in rlimits],
        )

    def _open_inheritance(self) -> Inheritance:
        fifo = listener = -1
        if self._wishes.wait_at_fifo:
            fifo = os.open(self._container.fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        path = self._linux.get("seccomp", {}).get("listenerPath")
        if path:
            with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as sock:
                try:
                    sock.connect(path)
                except OSError as error:
                    raise OSError(error.errno, f"linux.seccomp.listenerPath: {path}: {error.strerror}") from error
                listener = sock.detach()
        return Inheritance(
            entrances=[] if self._cgroup.made_around_a_process else self._cgroup.open_entrances(),
            sources=idmap.prepare_sources(self._spec, new_user_namespace="user" in namespace_types(self._spec)),
            fifo=fifo,
            listener=listener,
            preserved=self._wishes.preserve_fds,
        )

    # --- the fork ----------------------------------------------------------------------------------------------------

    def _fork(self, theirs: socket.socket, inherited: Inheritance) -> int:
        """Fork the first process into its pid and user namespaces; returns its pid here."""
        flags = namespaces.CLONE_NEWPID if is_new(self._linux, "pid") else 0
        flags |= namespaces.CLONE_NEWUSER if self._new_user else 0
        joined = self._joined_before()
        cgroup_fd = None if self._cgroup.made_around_a_process else self._cgroup.open_unified()
        try:
            if joined:
                with asked_by("linux.namespaces"):
                    pid = fork_joined([item["path"] for item in joined], flags, cgroup_fd)
            else:
                pid = namespaces.fork(flags, cgroup_fd=cgroup_fd)
        finally:
            close_fds([-1 if cgroup_fd is None else cgroup_fd])
        if pid == 0:
            self._become_first(theirs, inherited, joined)
        return pid

    def _joined_before(self) -> list[dict[str, str]]:
        """The namespaces to join by path before the fork: a pid namespace, and all where user namespaces are involved.

        The host's root may enter namespaces that root of the container's new user namespace may not.
        """
        listed: list[dict[str, str]] = self._linux.get("namespaces", [])
        users = any(item["type"] == "user" for item in listed)
        early = [item for item in listed if item.get("path") and (users or item["type"] == "pid")]
        return sorted(early, key=lambda item: item["type"] == "user")

    def _become_first(self, theirs: socket.socket, inherited: Inheritance, joined: list[dict[str, str]]) -> None:
        request = self._request()
        done = [item for item in joined if item["type"] not in ("pid", "user")]
        # What was joined already is as if it had been there from the start.
        listed = [
            {"type": item["type"], "path": f"/proc/self/ns/{_file_of(item['type'])}"} if item in done else item
            for item in self._linux.get("namespaces", [])
        ]
        own = {**self._spec, "linux": {**self._linux, "namespaces": listed}}
        keyring = keyring_name("/" + self._container.id) if self._wishes.new_keyring else ""
        user = "user" in namespace_types(self._spec)
        run_first(
            request.having(spec=own),
            theirs,
            INHERITED,
            inherited,
            Circumstances(self._bundle.path, keyring, user),
        )

    # --- in step with the first process ------------------------------------------------------------------------------

    def _accompany(self, sock: socket.socket) -> None:
        """Do the host's part of the start until the first process waits at the fifo, or is the program."""
        sock.settimeout(START_TIMEOUT_S)
        # Meanwhile the first process reads its orders; it waits for `go` before it does anything.
        if self._cgroup.made_around_a_process:
            self._cgroup.create_around(self._pid)
        self._limit()
        self._container.save_spec(self._spec)
        self._give_host_attributes()
        _say(sock, {"go": True, "pid": self._pid})
        furnished = False
        while True:
            try:
                received = wire.receive(sock)
            except TimeoutError:
                raise StartError(f"the process was not ready after {START_TIMEOUT_S:.0f} s") from None
            if received is None:
                break
            message, fds = received
            if "error" in message:
                close_fds(fds)
                raise StartError(str(message["error"]))
            if message.get("terminal") and fds:
                self._terminal = fds.pop(0)
            elif "warning" in message:
                self._warn(str(message["warning"]))
            elif "furnished" in message:
                furnished = True
                self._run_hooks_of_the_host()
                _say(sock, {"go": True})
            elif "ready" in message:
                return
            close_fds(fds)
        if furnished and not self._wishes.wait_at_fifo:
            return  # end of file: execve closed it
        raise StartError("the first process ended before it was ready")

    def _give_host_attributes(self) -> None:
        process = self._spec["process"]
        if self._new_user:
            idmap.write_maps(self._pid, self._linux["uidMappings"], self._linux["gidMappings"])
        score = process.get("oomScoreAdj")
        if score is not None:
            with closing(os.open(f"/proc/{self._pid}/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)) as fd:
                try:
                    os.write(fd, str(score).encode())
                except OSError as error:
                    raise OSError(error.errno, f"process.oomScoreAdj: {score}: {error.strerror}") from error
        if self._new_user:
            idmap.raise_hard_limits(self._pid, process.get("rlimits", []))

    def _run_hooks_of_the_host(self) -> None:
        self._container.save(self._record())
        if self._spec.get("hooks"):
            state = hooks.state(
                self._spec,
                container_id=self._container.id,
                pid=self._pid,
                status="creating",
                bundle=self._bundle.path,
            )
            for kind in ("prestart", "createRuntime"):
                hooks.run_all(self._spec, kind, state)

    def _record(self) -> Record:
        now = time.time_ns()
        whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9))
        return Record(
            id=self._container.id,
            oci_version=self._spec["ociVersion"],
            pid=self._pid,
            start_time=start_time(self._pid) or 0,
            bundle=self._bundle.path,
            rootfs=self._bundle.rootfs,
            cgroup=cgroups_path(self._spec, self._container.id, systemd=self._wishes.systemd),
            created=f"{whole}.{now % 10**9:09d}Z",
            own_pid_namespace=is_new(self._linux, "pid"),
            annotations=self._spec.get("annotations", {}),
        )

    def _end(self) -> None:
        """The start has failed: end the process, and let the hooks clean up what those before them did."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, 9)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)
        close_fds([self._terminal])
        hooks.run_poststop(self._spec, self._container.id, self._bundle.path, self._warn)


def _say(sock: socket.socket, message: dict[str, Any]) -> None:
    """Tell the first process; if it has ended, what it said before tells why."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        wire.send(sock, message)


def _below(path: str, error: PierError) -> str:
    """The path of the field below `path` that an error names, or `path` itself."""
    field = error.fields.get("field")
    return f"{path}.{field}" if field else path


def fork_joined(paths: list[str], flags: int, cgroup_fd: int | None) -> int:
    """Fork a child into the namespaces at `paths` and new ones of `flags`; this process stays where it is.

    A process between the two joins them and ends; its child is made this process's own (CLONE_PARENT). Raises OSError.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    between = os.fork()
    if between == 0:
        try:
            for path, fd in [(path, os.open(path, os.O_RDONLY | os.O_CLOEXEC)) for path in paths]:
                with asked_by(path):
                    namespaces.setns(fd)
            pid = namespaces.fork(flags | namespaces.CLONE_PARENT, cgroup_fd=cgroup_fd)
        except OSError as error:
            place = error.field if isinstance(error, FieldError) else error.filename
            text = f"{place}: {error.strerror}" if place else error.strerror
            os.write(writer, f"{error.errno} {text}".encode())
            os._exit(1)
        if pid == 0:
            os.close(writer)
            return 0
        os.write(writer, str(pid).encode())
        os._exit(0)
    os.close(writer)
    with closing(reader):
        answer = os.read(reader, 4096).decode()
    _, status = os.waitpid(between, 0)
    number, _, text = answer.partition(" ")
    if status:
        raise OSError(int(number or 0), text)
    return int(number)


def _file_of(kind: str) -> str:
    return {"network": "net", "mount": "mnt"}.get(kind, kind)
