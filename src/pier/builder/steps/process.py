"""ExecOp: a process in a container of its own, in the runtime that runs all containers, with all its defences."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import socket
import time
from collections.abc import Coroutine, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from pier.builder import layers
from pier.builder.dockerfile.gotext import quote
from pier.builder.graph import EMPTY, Exec, Limits, NetMode, SecurityMode
from pier.builder.ground import Ground
from pier.builder.session import NoSuchSecret
from pier.builder.solver import Work
from pier.builder.steps.mounts import CacheMounts, Furnished, furnish, missing, remove_stubs
from pier.builder.steps.printing import Printing
from pier.builder.tree import SCRATCH, Result, Tree
from pier.containers import cdi, etc_files, name_server, spec, spec_resources, spec_security
from pier.containers.attach import make_ends
from pier.containers.record import Record
from pier.containers.start import cgroups_path
from pier.errors import InvalidParameter, PierError, first_of
from pier.model.container import ContainerConfig
from pier.model.host_config import HostConfig, Ulimit
from pier.networks.endpoint import Ask, Publishing, Sandbox
from pier.runtime.client import Monitor, MonitorError, MonitorLost, StartFailed
from pier.runtime.request import ExitRecord, StartRequest
from pier.storage.snapshots import Root

HOSTNAME: Final = "buildkitsandbox"
"""BuildKit's; build scripts have come to know it."""
_NETWORKS: Final = {NetMode.HOST: "host", NetMode.NONE: "none"}
FORMAT_WORDS: Final = "exec format error"
FORMAT_EXIT: Final = 255
NOT_STARTED_EXIT: Final = 1
RUN_WORDS: Final = "runc run failed: unable to start container process: error during container init"
"""BuildKit's, of a program that its runtime cannot start."""
STDERR: Final = 2
READ_BYTES: Final = 1 << 16
HEADER_BYTES: Final = 8
CLEAR_TRIES: Final = 100
CLEAR_PAUSE_S: Final = 0.02
T = TypeVar("T")
U = TypeVar("U")
SETTLE_S: Final = 30.0
"""How long output may keep coming after the process has ended."""


class ProcessFailed(InvalidParameter):
    """process {command} did not complete successfully: {how}"""

    def __init__(self, args: Sequence[str], exit_code: int, *, oom_killed: bool = False, why: str = "") -> None:
        self.exit_code_of_process = exit_code
        self.args_of_process = tuple(args)
        how = f"exit code: {exit_code}"
        if oom_killed:
            how = f"cannot allocate memory: {how}"
        super().__init__(command=quote(" ".join(args)), how=f"{how}: {why}" if why else how)


class ProcessNotStarted(ProcessFailed):
    """process {command} did not complete successfully: {how}"""

    def __init__(self, args: Sequence[str], start: StartFailed) -> None:
        """`start`: why the runtime has not started it."""
        self.start = start
        self.reason = str(start.fields.get("reason", start.message))
        wrong_format = FORMAT_WORDS in self.reason
        super().__init__(args, FORMAT_EXIT if wrong_format else NOT_STARTED_EXIT, why=self.reason)
        self.printed = f"{self.reason}\n" if wrong_format else f"{RUN_WORDS}: {self.reason}\n"
        """What BuildKit's runtime prints then."""


class NotEntitled(PierError):
    """{entitlement} is not allowed"""

    status = 403
    remedy = "build with `--allow {entitlement}`"


class ProcessSteps:
    """The executor of Exec operations."""

    def __init__(self, ground: Ground, caches: CacheMounts) -> None:
        self._ground = ground
        self._caches = caches

    async def __call__(self, work: Work) -> Sequence[Tree]:
        return await _Run(self._ground, self._caches, work).run()


class _Made(NamedTuple):
    """A step's files."""

    base: Tree
    name: str
    """Of the writable tree over the base."""
    root: Root
    furnished: Furnished
    stubs: list[str]
    """What is there only to be mounted on."""


class _Lodged(NamedTuple):
    """What a step's container has besides its files."""

    folder: str
    record: Record
    sandbox: Sandbox


class _Run:
    """One process."""

    def __init__(self, ground: Ground, caches: CacheMounts, work: Work) -> None:
        assert isinstance(work.vertex.op, Exec)
        self._ground = ground
        self._caches = caches
        self._work = work
        self._op = work.vertex.op
        self._id = secrets.token_hex(32)
        self._id_map = None if self._op.security is SecurityMode.INSECURE else ground.config.id_map
        self._root_mount = next(mount for mount in self._op.mounts if mount.dest == "/")

    async def run(self) -> list[Tree]:
        """Run the process; a tree for each output. Raises ProcessFailed, NotEntitled, PierError, OSError.

        Whatever ends it, nothing of it is left but the trees; its network and folder may go a moment later
        (`Build.leaving`).
        """
        self._check_entitlements()
        ground = self._ground
        async with contextlib.AsyncExitStack() as stack:
            lodging = await stack.enter_async_context(contextlib.AsyncExitStack())
            made, lodged = await _both(self._made(stack), self._lodged(lodging))
            ended = await self._ended(made, lodged, lodging)
            if ended.exit_code not in (self._op.meta.valid_exit_codes or (0,)):
                raise ProcessFailed(self._op.meta.args, ended.exit_code, oom_killed=ended.oom_killed)
            self._leave(lodging)
            if made.stubs:
                await ground.in_thread(self._clear, made.root, made.stubs)
            drafts = dict(made.furnished.drafts)
            if self._root_mount.output != EMPTY:
                drafts[self._root_mount.output] = made.name, made.base
            return [await ground.in_thread(layers.seal, ground, *drafts[index]) for index in range(len(drafts))]

    def _leave(self, lodging: contextlib.AsyncExitStack) -> None:
        """Put away what the container had, while what needs the step's trees goes on."""
        if not self._work.builds:
            return  # they have all just lost interest: it goes with the step
        leaving = asyncio.create_task(lodging.pop_all().aclose(), name="step leaving")
        for build in self._work.builds:
            build.leaving.add(leaving)

    async def _made(self, stack: contextlib.AsyncExitStack) -> _Made:
        """The step's tree and mounts, there as long as `stack` is open."""
        ground, base = self._ground, await self._base()
        name, root = await ground.in_thread(layers.begin, ground, base, self._id_map)
        stack.callback(layers.drop, ground, name)
        furnished = await furnish(ground, self._caches, self._work, stack)
        dests = [item["destination"] for item in furnished.oci]
        stubs = await ground.in_thread(self._missing, base, dests) if dests else []
        return _Made(base, name, root, furnished, stubs)

    async def _ended(self, made: _Made, lodged: _Lodged, stack: contextlib.AsyncExitStack) -> ExitRecord:
        """The process run to its end. Raises ProcessNotStarted."""
        try:
            return await self._contained(made, lodged, stack)
        except StartFailed as error:
            failure = ProcessNotStarted(self._op.meta.args, error)
            self._work.broadcast.printed(STDERR, failure.printed.encode())
            raise failure from None

    def _check_entitlements(self) -> None:
        asked = []
        if self._op.network is NetMode.HOST:
            asked.append("network.host")
        if self._op.security is SecurityMode.INSECURE:
            asked.append("security.insecure")
        for entitlement in asked:
            if any(entitlement not in build.entitlements for build in self._work.builds):
                raise NotEntitled(entitlement=entitlement)

    async def _base(self) -> Tree:
        result: Result = SCRATCH if self._root_mount.input == EMPTY else self._work.inputs[self._root_mount.input]
        return (
            result if isinstance(result, Tree) else await self._ground.in_thread(layers.as_tree, self._ground, result)
        )

    def _missing(self, base: Tree, dests: list[str]) -> list[str]:
        with layers.shown(self._ground, base) as fd:
            return missing(fd, dests)

    def _clear(self, root: Root, stubs: list[str]) -> None:
        with layers.opened(root) as fd:
            remove_stubs(fd, stubs)

    # --- the container

    async def _lodged(self, stack: contextlib.AsyncExitStack) -> _Lodged:
        """What the container has besides its root, there as long as `stack` is open."""
        ground = self._ground
        folder = os.path.join(ground.exec_dir, self._id)
        stack.push_async_callback(ground.in_thread, clear_folder, folder)
        record = await self._record()
        stack.push_async_callback(ground.networks.release, self._id)
        network = record.host_config.network_mode
        # On a user's network a step finds the containers there by name, as a container does.
        names = (record.id[:12],) if ground.networks.find(network).user_defined else ()
        asks = [Ask(network, names=names)]
        sandbox = await ground.networks.connect(self._id, asks, name=record.name, publishing=Publishing())
        resolv, hosts = ground.host_texts()
        texts = etc_files.contents(record, sandbox, ground.config, host_resolv=resolv, host_hosts=hosts)
        await ground.in_thread(_make_folder, folder, texts, self._id_map.root if self._id_map else None)
        return _Lodged(folder, record, sandbox)

    async def _contained(self, made: _Made, lodged: _Lodged, stack: contextlib.AsyncExitStack) -> ExitRecord:
        ground, record, sandbox = self._ground, lodged.record, lodged.sandbox
        request = await self._request(lodged, made.root, made.furnished.oci)
        ours, theirs = make_ends(stdin=False, stdout=True, stderr=True)
        stack.callback(ours.close)
        try:
            monitor = await _launched(ground, request, theirs)
        finally:
            os.close(theirs.fd)
        stack.callback(ground.networks.dns.stop, self._id)
        settings = name_server.settings(record, sandbox, ground.config, host_resolv=ground.host_texts()[0])
        name_server.hand_over(ground.networks.dns, record, monitor, settings)
        return await self._watched(monitor, ours)

    async def _watched(self, monitor: Monitor, sock: socket.socket) -> ExitRecord:
        """Pass on what the process prints until it has ended; killed when nobody wants it any more."""
        printing = asyncio.create_task(self._print(sock), name="step output")
        try:
            ended = await monitor.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SETTLE_S):
                    await asyncio.shield(printing)
            return ended
        except asyncio.CancelledError:
            await kill(monitor)
            raise
        finally:
            printing.cancel()
            await asyncio.gather(printing, return_exceptions=True)
            monitor.close()

    async def _print(self, sock: socket.socket) -> None:
        """Docker's frames off the socket, told as they come."""
        loop, buffer = asyncio.get_running_loop(), bytearray()
        printing = Printing(self._work.broadcast.printed)
        try:
            while data := await loop.sock_recv(sock, READ_BYTES):
                buffer += data
                while len(buffer) >= HEADER_BYTES:
                    end = HEADER_BYTES + int.from_bytes(buffer[4:8], "big")
                    if len(buffer) < end:
                        break
                    printing.take(buffer[0], bytes(buffer[HEADER_BYTES:end]))
                    del buffer[:end]
        finally:
            printing.flush()

    async def _record(self) -> Record:
        """The step as the record of a container."""
        meta, limits = self._op.meta, self._work.vertex.note.limits or Limits()
        config = self._ground.config
        insecure = self._op.security is SecurityMode.INSECURE
        host = HostConfig(
            network_mode=_NETWORKS.get(self._op.network, limits.network or "bridge"),
            extra_hosts=[f"{entry.host}:{entry.ip}" for entry in meta.extra_hosts] or None,
            ulimits=[Ulimit(name=each.name, soft=each.soft, hard=each.hard) for each in meta.ulimits] or None,
            cgroup_parent=meta.cgroup_parent,
            cgroupns_mode=config.default_cgroupns_mode,
            ipc_mode=config.default_ipc_mode,
            privileged=insecure,
            readonly_rootfs=self._root_mount.readonly,
            shm_size=limits.shm_size or config.default_shm_size,
            memory=limits.memory,
            memory_swap=limits.memory_swap,
            cpu_shares=limits.cpu_shares,
            cpu_period=limits.cpu_period,
            cpu_quota=limits.cpu_quota,
            cpuset_cpus=limits.cpuset_cpus,
            cpuset_mems=limits.cpuset_mems,
        )
        container = ContainerConfig(
            hostname=meta.hostname or HOSTNAME,
            user=meta.user,
            env=[*meta.env, *self._proxies(), *await self._secret_env()],
            working_dir=meta.cwd,
        )
        return Record(
            id=self._id,
            name=f"build-{self._id[:12]}",
            created_ns=self._ground.clock_ns(),
            image_id="",
            layers=[],
            path=meta.args[0],
            args=list(meta.args[1:]),
            driver=self._ground.snapshots.name,
            config=container,
            host_config=host,
            mounts=[],
            id_map=self._id_map,
        )

    def _proxies(self) -> list[str]:
        proxy = self._work.vertex.note.proxy_env
        if proxy is None:
            return []
        pairs = {
            "HTTP_PROXY": proxy.http_proxy,
            "HTTPS_PROXY": proxy.https_proxy,
            "FTP_PROXY": proxy.ftp_proxy,
            "NO_PROXY": proxy.no_proxy,
            "ALL_PROXY": proxy.all_proxy,
        }
        return [f"{spelt}={value}" for name, value in pairs.items() if value for spelt in (name, name.lower())]

    async def _secret_env(self) -> list[str]:
        found = []
        for wanted in self._op.secret_env:
            content = await self._work.session.secret(wanted.id)
            if content is not None:
                found.append(f"{wanted.name}={content.decode('utf-8', 'surrogateescape')}")
            elif not wanted.optional:
                raise NoSuchSecret(id=wanted.id)
        return found

    async def _devices(self) -> list[cdi.Edits]:
        """What the CDI devices of the step change; an optional one that is missing: nothing. Raises Unresolvable."""
        edits = []
        for device in self._op.devices:
            try:
                edits += await asyncio.to_thread(cdi.edits_for, [device.name], self._ground.config.cdi_spec_dirs)
            except cdi.Unresolvable:
                if not device.optional:
                    raise
        return edits

    async def _request(self, lodged: _Lodged, root: Root, extra: list[dict[str, Any]]) -> StartRequest:
        folder, record, sandbox = lodged
        ground, host = self._ground, record.host_config
        facts = spec.Facts(
            capabilities=spec_security.available_capabilities(),
            host_name=os.uname().nodename,
            cgroups_path=cgroups_path(ground.config, record),
            etc={name: os.path.join(folder, name) for name in etc_files.NAMES},
            devices=await asyncio.to_thread(spec_resources.host_devices) if host.privileged else (),
            default_ulimits=ground.config.default_ulimits,
            no_new_privileges=ground.config.no_new_privileges,
        )
        found = spec.runtime_spec(record, facts)
        if not any(entry.startswith("HOSTNAME=") for entry in record.config.env or ()):  # a container's own variable
            env = found["process"]["env"]
            found["process"]["env"] = [entry for entry in env if not entry.startswith("HOSTNAME=")]
        edits = await self._devices()
        found = cdi.inject(found, edits, foreign=False)
        covered = {item["destination"] for item in extra}
        found["mounts"] = [item for item in found["mounts"] if item["destination"] not in covered] + extra
        bounding = found["process"]["capabilities"]["bounding"]
        return StartRequest(
            id=self._id,
            spec=found,
            root=root,
            exec_dir=folder,
            exit_file=os.path.join(folder, "exit.json"),
            user=self._op.meta.user,
            group_add=cdi.groups(edits),
            interfaces=sandbox.interfaces,
            resolver=sandbox.finds_names,
            seccomp_bpf=await ground.seccomp.path_for(record, bounding),
            requested=spec.requested(host),
        )


def _make_folder(folder: str, texts: dict[str, str], owner: tuple[int, int] | None) -> None:
    os.makedirs(folder, mode=0o700, exist_ok=True)
    etc_files.write(folder, texts, owner)


async def _both(one: Coroutine[Any, Any, T], other: Coroutine[Any, Any, U]) -> tuple[T, U]:
    """Await two things side by side. Raises what the first to fail does, when both have ended."""
    try:
        async with asyncio.TaskGroup() as group:
            first, second = group.create_task(one), group.create_task(other)
    except BaseExceptionGroup as errors:
        raise first_of(errors) from None
    return first.result(), second.result()


def clear_folder(folder: str) -> None:
    """Remove a step's folder; its monitor may be taking its own files away at the moment."""
    for _ in range(CLEAR_TRIES):
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.exists(folder):
            return
        time.sleep(CLEAR_PAUSE_S)


async def _launched(ground: Ground, request: StartRequest, end: Any) -> Monitor:
    """Start the container; a start that nobody wants any more is ended once it can be. Raises StartFailed."""
    task = asyncio.ensure_future(ground.runtime.launch(request, [end]))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled() and task.exception() is None:
            await kill(task.result())
            task.result().close()
        raise


async def kill(monitor: Monitor) -> None:
    """Kill a container and wait until nothing is left of it."""
    with contextlib.suppress(MonitorLost, MonitorError):
        await asyncio.shield(monitor.signal(signal.SIGKILL))
    await asyncio.shield(monitor.wait())
