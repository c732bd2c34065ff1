"""The first process of a container of the command line's, and how it keeps step with the process that made it.

Both hold an end of one packet socket. The first process waits for `go` twice: before it does anything (its id maps and
oom_score_adj are the host's to write), and when it is furnished, before it leaves the host's root (hooks of the host).
Errors and end of file mean what they mean to a monitor (`init.Report`). After `create` it is on its own: it waits at
the fifo, inherits the streams, and outlives its maker.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
from array import array
from typing import Any, NamedTuple, NoReturn

from pier.kernel import process, seccomp
from pier.kernel.paths import PROC_SUPER_MAGIC, closing, require_fs
from pier.runtime import wire
from pier.runtime.command import hooks
from pier.runtime.process.failure import OTHER, ProgramError
from pier.runtime.process.init import Report, Stage, Stdio, become_container, become_root
from pier.runtime.process.program import Filter
from pier.runtime.request import StartRequest


class Inheritance(NamedTuple):
    """What the first process gets from its maker, beside the request: descriptors, all its own to close."""

    entrances: list[int]
    """`Cgroup.open_entrances`"""
    sources: dict[int, int]
    """`idmap.prepare_sources`"""
    fifo: int
    """Where to wait before the program, -1 for nowhere."""
    listener: int
    """A connected socket for the seccomp notify descriptor, -1 for none."""
    preserved: int
    """How many descriptors from 3 on are for the program."""

    def fds(self) -> list[int]:
        own = [*self.entrances, *self.sources.values(), self.fifo, self.listener]
        return [*(fd for fd in own if fd >= 0), *range(3, 3 + self.preserved)]


class Circumstances(NamedTuple):
    """What the configuration does not say."""

    bundle: str
    keyring: str
    """Name of the session keyring to join, empty for none."""
    new_user_namespace: bool


class BundleStage(Stage):
    die_with_parent = 0

    def __init__(
        self, request: StartRequest, sock: socket.socket, inherited: Inheritance, circumstances: Circumstances
    ) -> None:
        self._request = request
        self._sock = sock
        self._inherited = inherited
        self._circumstances = circumstances
        self._pid = 0
        self.keep_fds = inherited.preserved
        self.alone = False
        """The maker is gone: errors go to standard error."""

    def read_filter(self, request: StartRequest) -> Filter | None:
        profile = request.spec.get("linux", {}).get("seccomp")
        found = super().read_filter(request)
        if found is None or profile is None:
            return found
        flags = seccomp.flags_of(profile)
        if self._inherited.listener < 0:
            return Filter(found.bpf, flags)
        return _NotifyFilter(found.bpf, flags, self._inherited.listener, self._process_state)

    def _process_state(self) -> dict[str, Any]:
        """config-linux.md, "The container process state"."""
        profile = self._request.spec["linux"]["seccomp"]
        return {
            "ociVersion": self._request.spec["ociVersion"],
            "fds": ["seccompFd"],
            "pid": self._pid,
            "metadata": profile.get("listenerMetadata", ""),
            "state": self._state("creating", self._pid),
        }

    def _state(self, status: str, pid: int) -> dict[str, Any]:
        request = self._request
        return hooks.state(
            request.spec, container_id=request.id, pid=pid, status=status, bundle=self._circumstances.bundle
        )

    def confine(self, request: StartRequest, report: Report) -> None:
        self._pid = int(self._await_go()["pid"])
        for fd in self._inherited.entrances:
            os.write(fd, b"0")
            os.close(fd)
        if self._circumstances.keyring:
            process.join_session_keyring(self._circumstances.keyring)

    def prepared_sources(self, spec: dict[str, Any]) -> dict[int, int]:
        return self._inherited.sources

    def rooted(self) -> None:
        set_time_offsets(self._request.spec.get("linux", {}).get("timeOffsets", {}))
        if self._circumstances.new_user_namespace:
            become_root()

    def furnished(self) -> None:
        wire.send(self._sock, {"furnished": True})
        self._await_go()
        hooks.run_all(self._request.spec, "createContainer", self._state("creating", os.getpid()))

    def ready(self) -> None:
        if self._inherited.fifo >= 0:
            wire.send(self._sock, {"ready": True})
            self.alone = True
            self._sock.close()
            await_start(self._inherited.fifo)
        hooks.run_all(self._request.spec, "startContainer", self._state("created", os.getpid()))

    def _await_go(self) -> dict[str, Any]:
        received = wire.receive(self._sock)
        if received is None:
            os._exit(1)  # the maker is gone, so nobody wants this container
        return received[0]


class _NotifyFilter(Filter):
    """A filter with a user-space listener: its descriptor goes to who asked for it (SCMP_ACT_NOTIFY)."""

    def __init__(self, bpf: bytes, flags: int, listener: int, state: Any) -> None:
        super().__init__(bpf, flags)
        self._listener = listener
        self._state = state

    def install(self) -> None:
        # Everything is made before: the filter may ask the listener about any call that follows, save sendmsg.
        sock = socket.socket(fileno=self._listener)
        text = json.dumps(self._state(), separators=(",", ":")).encode()
        fd = seccomp.install(self.bpf, self.flags | seccomp.SECCOMP_FILTER_FLAG_NEW_LISTENER)
        sock.sendmsg([text], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [fd]))])
        sock.close()
        os.close(fd)


def run(
    request: StartRequest, sock: socket.socket, stdio: Stdio, inherited: Inheritance, circumstances: Circumstances
) -> NoReturn:
    """Be the first process of a bundle's container. Never returns; every failure is reported."""
    report = Report(sock, names_fields=True)
    stage = BundleStage(request, sock, inherited, circumstances)
    try:
        signal.set_wakeup_fd(-1)  # the maker's
        process.close_all_but([report.fileno(), *stdio, *inherited.fds()])
        process.prctl(process.PR_SET_DUMPABLE, 0)
        become_container(request, report, stdio, stage)
    except BaseException as error:
        if not stage.alone:
            report.fail(error)
        with contextlib.suppress(OSError):
            os.write(2, f"{error}\n".encode())
        os._exit(error.exit_code if isinstance(error, ProgramError) else OTHER)
    os._exit(1)


def await_start(fifo: int) -> None:
    """Wait until `start` writes into the fifo: a descriptor that was opened before the root was left."""
    poller = select.poll()
    poller.register(fifo, select.POLLIN)
    while True:
        poller.poll()
        if os.read(fifo, 1):
            break
    os.close(fifo)


def set_time_offsets(offsets: dict[str, dict[str, int]]) -> None:
    """Move the clocks of the new time namespace, which execve enters (time_namespaces(7)). Needs Linux 6.1. OSError."""
    lines = [f"{clock} {offset.get('secs', 0)} {offset.get('nanosecs', 0)}\n" for clock, offset in offsets.items()]
    if not lines:
        return
    try:
        with closing(os.open("/proc/self/timens_offsets", os.O_WRONLY | os.O_CLOEXEC)) as fd:
            require_fs(fd, PROC_SUPER_MAGIC, "/proc/self/timens_offsets")
            os.write(fd, "".join(lines).encode())
    except OSError as error:
        raise OSError(error.errno, f"linux.timeOffsets: {error.strerror or error}") from error
