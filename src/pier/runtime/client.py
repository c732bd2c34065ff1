"""The daemon's side of the runtime: start containers through the zygote, talk to their monitors (asyncio)."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import pier
from pier.errors import PierError
from pier.kernel import mounts
from pier.kernel.cgroup_layout import detect
from pier.kernel.paths import closing
from pier.runtime import stand_ins, wire, zygote
from pier.runtime.group import group_at
from pier.runtime.monitor import oci_call
from pier.runtime.monitor.monitor import SOCKET_NAME
from pier.runtime.monitor.oci_call import OciRuntime, remove_tree
from pier.runtime.process.users import UserError
from pier.runtime.request import AttachEnd, ExecRequest, ExitRecord, StartRequest, Supervision

KILLED = 137
"""128 + SIGKILL: how a container is said to have ended when its monitor was killed."""
REPLY_TIMEOUT_S = 150.0
"""A little more than the monitor gives a starting process."""


class StartFailed(PierError):
    """failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: error during container init: {reason}"""  # noqa: E501 - Docker's words

    status = 400

    def __init__(self, reason: str, exit_code: int = 128) -> None:
        if reason.startswith(UserError.BEGINNINGS):  # Docker's daemon looks the user up itself
            super().__init__(reason)
            self.status = 500
        elif reason.startswith(oci_call.BEGINNINGS):  # another runtime's words are whole
            super().__init__(f"failed to create task for container: failed to create shim task: {reason}")
            self.status = 400 if exit_code in (126, 127) else 500
        else:
            super().__init__(reason=reason)
        self.exit_code = exit_code


class ExecFailed(PierError):
    """OCI runtime exec failed: exec failed: unable to start container process: {reason}"""

    status = 400

    def __init__(self, reason: str, exit_code: int = 126) -> None:
        if reason.startswith(oci_call.BEGINNINGS):
            super().__init__(reason)
        else:
            super().__init__(reason=reason)
        self.exit_code = exit_code


class MonitorError(PierError):
    """the container's monitor refused: {reason}"""


class MonitorLost(PierError):
    """the connection to the container's monitor is lost"""

    status = 409


class ZygoteLost(PierError):
    """the runtime's zygote process cannot be started: {reason}"""

    remedy = "see the daemon's log; a restart of the daemon makes a new one, running containers are not affected"


class FoundExec(NamedTuple):
    """An exec that an earlier daemon started."""

    id: str
    pid: int
    note: str
    """`ExecRequest.note`."""
    ended: ExitRecord | None
    told: bool
    """Whether some daemon knew of its end."""

    @classmethod
    def decode(cls, exec_id: str, fields: dict[str, Any]) -> FoundExec:
        ended = ExitRecord(**fields["ended"]) if fields["ended"] else None
        return cls(exec_id, fields["pid"], fields["note"], ended, fields["told"])


def _packet_socket(sock: socket.socket) -> socket.socket:
    sock.setblocking(False)
    return sock


class Monitor:
    """One running container, as the daemon sees it."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = _packet_socket(sock)
        self._loop = asyncio.get_running_loop()
        self._ids = itertools.count(1)
        self._replies: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._execs: dict[str, asyncio.Future[ExitRecord]] = {}
        self._started: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self._ended: asyncio.Future[ExitRecord] = self._loop.create_future()
        self._lost = False
        self.cgroup = ""
        """Where the container runs, for `group_at`."""
        self._oci_runtime: OciRuntime | None = None
        self.id = ""
        self.pid = 0
        self.own_pid = 0
        """The monitor's, whose child `pid` is; 0: not known, for one that this daemon has started."""
        self.started_at_ns = 0
        self.warnings: list[str] = []
        self.ooms = 0
        """How often the kernel has killed in the container for want of memory."""
        self.on_oom: Callable[[], None] = lambda: None
        """Called when `ooms` grows."""
        self.resolver: list[int] = []
        """The sockets of the container's name server, UDP and TCP, where it has one and nobody has taken them yet."""
        self.execs_found: list[FoundExec] = []
        """What the monitor knew of when this connection was made."""
        self._loop.add_reader(self._sock.fileno(), self._readable)

    async def started(self) -> None:
        """Wait for the monitor's first message. Raises StartFailed."""
        try:
            async with asyncio.timeout(REPLY_TIMEOUT_S):
                hello = await self._started
        except TimeoutError:
            self.close()
            raise StartFailed(f"its monitor did not answer in {REPLY_TIMEOUT_S:.0f} s") from None
        self.id, self.pid, self.started_at_ns = hello["id"], hello["pid"], hello["started_at_ns"]
        self.cgroup = hello["cgroup"]
        self.warnings = hello["warnings"]
        if hello["oci_runtime"] is not None:
            self._oci_runtime = OciRuntime(*hello["oci_runtime"])
        self.execs_found = [FoundExec.decode(exec_id, fields) for exec_id, fields in hello["execs"].items()]
        for found in self.execs_found:
            if found.ended is None:
                self._execs.setdefault(found.id, self._loop.create_future())
        self._take_oom(hello["oom"])

    def _readable(self) -> None:
        try:
            received = wire.receive(self._sock)
        except BlockingIOError:
            return
        except (OSError, ValueError):
            received = None
        if received is None:
            self._lose()
            return
        message, fds = received
        if fds:
            self._take_resolver(fds)
        self._take(message)

    def _take_resolver(self, fds: list[int]) -> None:
        for fd in self.resolver:
            os.close(fd)
        self.resolver = fds

    def _take(self, message: dict[str, Any]) -> None:
        if "started" in message:
            _resolve(self._started, message["started"])
        elif "ended" in message:
            self._close_execs()
            _resolve(self._ended, ExitRecord(**message["ended"]))
        elif "oom" in message:
            self._take_oom(message["oom"])
        elif "exec_ended" in message:
            future = self._execs.setdefault(message["exec_ended"], self._loop.create_future())
            _resolve(future, ExitRecord(**message["record"]))
        elif "id" in message:
            future_reply = self._replies.pop(message["id"], None)
            if future_reply is not None:
                _resolve(future_reply, message)
        elif "error" in message and not self._started.done():
            self._started.set_exception(StartFailed(message["error"], message.get("exit_code", 128)))

    def _take_oom(self, times: int) -> None:
        more, self.ooms = times > self.ooms, times
        if more:
            self.on_oom()

    def _lose(self) -> None:
        """End of file: the monitor has finished, or was killed."""
        if self._lost:
            return
        self._lost = True
        self._take_resolver([])
        self._loop.remove_reader(self._sock.fileno())
        self._sock.close()
        if not self._started.done():
            self._started.set_exception(StartFailed("its monitor ended before it answered"))
        for reply in self._replies.values():
            if not reply.done():
                reply.set_exception(MonitorLost())
        self._replies.clear()
        self._close_execs()
        if not self._ended.done():
            self._ended.set_exception(MonitorLost())
        self._ended.exception()  # nobody need be waiting

    def _close_execs(self) -> None:
        """The container has ended, and every exec with it."""
        for future in self._execs.values():
            _resolve(future, ExitRecord(KILLED, 0))

    async def _ask(self, operation: str, *, fds: Sequence[int] = (), **fields: Any) -> dict[str, Any]:
        if self._lost:
            raise MonitorLost()
        number = next(self._ids)
        future = self._loop.create_future()
        self._replies[number] = future
        try:
            await _send(self._sock, {"op": operation, "id": number, **fields}, fds)
            async with asyncio.timeout(REPLY_TIMEOUT_S):
                reply: dict[str, Any] = await future
        except OSError as error:
            raise MonitorLost() from error
        finally:
            self._replies.pop(number, None)
        return reply

    async def _order(self, operation: str, *, fds: Sequence[int] = (), **fields: Any) -> dict[str, Any]:
        reply = await self._ask(operation, fds=fds, **fields)
        if "error" in reply:
            raise MonitorError(reason=reply["error"])
        return reply

    async def attach(self, end: AttachEnd) -> int:
        """Join a client to the container's streams; `end.fd` is duplicated, the caller closes its own.

        Returns when that was, in nanoseconds: what the log says was printed until then, the client does not get.
        Raises MonitorError, MonitorLost.
        """
        wants = {"stdin": end.stdin, "stdout": end.stdout, "stderr": end.stderr}
        reply = await self._order("attach", fds=[end.fd], **wants)
        at_ns: int = reply.get("at_ns") or time.time_ns()  # a monitor of an earlier version does not say
        return at_ns

    async def resize(self, *, height: int, width: int, exec_id: str | None = None) -> None:
        """Set the size of the container's, or an exec's, terminal in characters. Raises MonitorError, MonitorLost."""
        await self._order("resize", height=height, width=width, exec_id=exec_id)

    async def signal(self, signum: int, *, exec_id: str | None = None) -> None:
        """Send a signal to the container's first process, or an exec's. Raises MonitorError, MonitorLost."""
        await self._order("signal", signum=signum, exec_id=exec_id)

    @property
    def foreign(self) -> bool:
        """Whether another OCI runtime made the container: it pauses and updates it, rather than the cgroup's owner."""
        return self._oci_runtime is not None

    async def pause(self) -> None:
        """Have the container's runtime stop all its processes. Raises MonitorError, MonitorLost."""
        await self._order("pause")

    async def resume(self) -> None:
        """Have them go on. Raises MonitorError, MonitorLost."""
        await self._order("resume")

    async def update(self, resources: Mapping[str, Any]) -> None:
        """Have the container's runtime change limits (OCI `linux.resources`). Raises MonitorError, MonitorLost."""
        await self._order("update", resources=resources)

    async def keep_resolver(self, fds: Sequence[int]) -> None:
        """Have the monitor keep the sockets of a name server that the container has got, for the daemons to come.

        They are duplicated. Raises MonitorError, MonitorLost.
        """
        await self._order("resolver", fds=fds)

    def prepare(self, request: ExecRequest) -> None:
        """Have the monitor begin with an exec that will be asked for in a moment; no error if it cannot."""
        if not self._lost:
            with contextlib.suppress(OSError):
                wire.send(self._sock, {"op": "prepare", "request": request.to_dict()})

    async def exec(self, request: ExecRequest, end: AttachEnd | None) -> int:
        """Run one more process; returns its pid on the host once the program itself runs.

        `end.fd` is duplicated as in `attach`. Raises ExecFailed, MonitorLost.
        """
        wants = {} if end is None else {"stdin": end.stdin, "stdout": end.stdout, "stderr": end.stderr}
        fds = [] if end is None else [end.fd]
        self._execs.setdefault(request.exec_id, self._loop.create_future())
        reply = await self._ask("exec", fds=fds, request=request.to_dict(), **wants)
        if "error" in reply:
            self._execs.pop(request.exec_id, None)
            raise ExecFailed(reply["error"], reply.get("exit_code", 126))
        return int(reply["pid"])

    async def wait_exec(self, exec_id: str) -> ExitRecord:
        """Wait for the end of a process that `exec` started. Raises KeyError for one that it did not."""
        record = await asyncio.shield(self._execs[exec_id])
        self._execs.pop(exec_id, None)
        return record

    async def wait(self) -> ExitRecord:
        """Wait until the container has ended, its log is complete and its cgroup is gone.

        If the monitor itself was killed, what is left of the container is killed and the record says 137.
        """
        try:
            return await asyncio.shield(self._ended)
        except MonitorLost:
            await asyncio.to_thread(_remove_cgroup, self.cgroup)
            if self._oci_runtime is not None:
                await clear_lost(self._oci_runtime)
            return ExitRecord(KILLED, 0)

    def close(self) -> None:
        """Drop the connection; the container goes on."""
        self._lose()


def _listener_of(sock: socket.socket) -> int:
    """The pid of the process that listens where a socket has connected to (unix(7), SO_PEERCRED)."""
    pid, _, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return int(pid)


def _resolve(future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)


async def _send(sock: socket.socket, message: dict[str, Any], fds: Sequence[int]) -> None:
    """Send when the peer has room; the peer's queue is short, its loop quick, so a wait is rare."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            wire.send(sock, message, fds)
            return
        except BlockingIOError:
            writable = loop.create_future()
            loop.add_writer(sock.fileno(), _resolve, writable, None)
            try:
                await writable
            finally:
                loop.remove_writer(sock.fileno())


def _remove_cgroup(path: str) -> None:
    if path:
        with contextlib.suppress(OSError, PierError):
            cgroup = group_at(detect(), path)
            cgroup.kill()
            cgroup.remove()


async def clear_lost(runtime: OciRuntime) -> None:
    """Have another runtime forget a container whose monitor was killed; what it cannot remove is left to it."""
    if not await asyncio.to_thread(os.path.isdir, runtime.folder):
        return
    with contextlib.suppress(OSError, TimeoutError):
        program, *rest = runtime.arguments("delete", "--force", runtime.id)
        null = asyncio.subprocess.DEVNULL
        process = await asyncio.create_subprocess_exec(
            program, *rest, stdin=null, stdout=null, stderr=null, env=oci_call.ENVIRONMENT
        )
        try:
            async with asyncio.timeout(oci_call.FAREWELL_S):
                await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    with contextlib.suppress(OSError):
        await asyncio.to_thread(remove_tree, runtime.folder)


class Runtime:
    """Starts containers. One per daemon."""

    def __init__(
        self,
        *,
        python: str = sys.executable,
        standard_mounts: Sequence[Mapping[str, Any]] = (),
        systemd: bool = False,
        open_files: tuple[int, int] | None = None,
    ) -> None:
        """`standard_mounts` is what most containers mount (runtime-spec's `mounts`): it is made ahead for them.

        With `systemd` containers will be scopes of systemd's, so the zygote loads what makes them. `open_files` are the
        limits on descriptors, soft and hard, that containers inherit; None: this process's.
        """
        self._python = python
        self._standard_mounts = standard_mounts
        self._systemd = systemd
        self._open_files = open_files
        self._zygote: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._sending = asyncio.Lock()

    async def start(self) -> None:
        """Start the zygote. Raises ZygoteLost."""
        try:
            self._process, sock = await asyncio.to_thread(
                spawn_zygote, self._python, self._standard_mounts, systemd=self._systemd, open_files=self._open_files
            )
        except OSError as error:
            raise ZygoteLost(reason=str(error)) from error
        self._zygote = _packet_socket(sock)

    async def launch(
        self,
        request: StartRequest,
        ends: Sequence[AttachEnd] = (),
        *,
        on_monitor: Callable[[Monitor], None] | None = None,
    ) -> Monitor:
        """Start a container with clients attached from its first byte; `ends[].fd` are duplicated.

        Raises StartFailed (nothing is left), ZygoteLost.
        """
        ours, theirs = wire.pair()
        message = {"order": [Supervision.of(request), [[end.stdin, end.stdout, end.stderr] for end in ends]]}
        try:
            with closing(wire.sealed(request.to_json().encode())) as order:
                await self._send(message, [theirs.fileno(), order, *[end.fd for end in ends]])
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        monitor = Monitor(ours)
        if on_monitor is not None:
            on_monitor(monitor)
        await monitor.started()
        return monitor

    async def _send(self, message: dict[str, Any], fds: Sequence[int]) -> None:
        async with self._sending:
            if self._zygote is None or (self._process is not None and self._process.poll() is not None):
                await self.start()
            assert self._zygote is not None
            try:
                await _send(self._zygote, message, fds)
            except OSError:  # it died since; one new one is worth trying
                await self.start()
                await _send(self._zygote, message, fds)

    async def reconnect(self, exec_dir: str) -> Monitor | None:
        """Find the monitor of a container that an earlier daemon started; None when it is gone."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with closing(os.open(exec_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as folder:
                sock.connect(f"/proc/self/fd/{folder}/{SOCKET_NAME}")
        except OSError:
            sock.close()
            return None
        monitor = Monitor(sock)
        monitor.own_pid = _listener_of(sock)
        try:
            await monitor.started()
        except StartFailed:
            return None
        return monitor

    async def close(self) -> None:
        """Stop the zygote; containers go on."""
        if self._zygote is not None:
            self._zygote.close()
            self._zygote = None
        if self._process is not None:
            await asyncio.to_thread(self._process.wait, 10)
            self._process = None


def _import_systemd() -> str:
    from pier.runtime.systemd import scopes  # noqa: PLC0415 - the driver of some machines

    return scopes.__name__


def spawn_zygote(
    python: str,
    standard_mounts: Sequence[Mapping[str, Any]] = (),
    *,
    systemd: bool = False,
    open_files: tuple[int, int] | None = None,
) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start the zygote from a read-only mount of the interpreter; returns the process and the daemon's end.

    The mount is detached: no path leads to it, none can remount it, and it ends with the last process that runs from
    it. Through /proc/PID/exe the host's binary can then be read, never written (CVE-2019-5736).
    """
    ours, theirs = wire.pair()
    source = os.path.dirname(os.path.dirname(os.path.realpath(pier.__file__)))
    # This process has imported what the zygote will, so it is compiled: a compiler's memory would stay with the zygote.
    driver = f"import {_import_systemd()}; " if systemd else ""
    boot = (
        f"import sys; sys.path.insert(0, {source!r}); from {stand_ins.__name__} import install; install(); {driver}"
        f"from {zygote.__name__} import main; main()"
    )
    binary = mounts.open_tree(mounts.AT_FDCWD, os.path.realpath(python), clone=True)
    try:
        mounts.mount_setattr(binary, set=mounts.MOUNT_ATTR_RDONLY | mounts.MOUNT_ATTR_NOSUID | mounts.MOUNT_ATTR_NODEV)
        process = subprocess.Popen(
            [python, "-I", "-S", "-c", boot, str(theirs.fileno()), *map(json.dumps, ([*standard_mounts], open_files))],
            executable=f"/proc/self/fd/{binary}",
            pass_fds=(theirs.fileno(), binary),
            stdin=subprocess.DEVNULL,
            env={"LANG": "C.UTF-8", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            close_fds=True,
        )
    finally:
        os.close(binary)
        theirs.close()
    return process, ours
