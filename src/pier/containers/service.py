"""The container service: what the API and the other faces call. Each deed lives in the module named after it."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from pier.containers import (
    archive,
    attach,
    commit,
    etc_files,
    freezer,
    lifecycle,
    listing,
    membership,
    name_server,
    prune,
    recovery,
    removal,
    shutdown,
    top,
    update,
    volume_mounts,
    waiters,
)
from pier.containers.archive import Archive
from pier.containers.attach import Attachment
from pier.containers.create import create
from pier.containers.exec import Execs
from pier.containers.export import export
from pier.containers.inherited import images_of
from pier.containers.inspect import inspect
from pier.containers.probing import Probing
from pier.containers.sampler import Sampler
from pier.containers.seccomp_cache import SeccompCache
from pier.containers.start import close_pending
from pier.containers.world import Container, ContainersConfig, Images, Networks, Runtime, Snapshots, World
from pier.errors import PierError
from pier.events import EventBus
from pier.kernel.cgroups import Cgroup
from pier.logs import Follower, Query, Watcher, read, truncate, usage
from pier.model.container import (
    ContainerConfig,
    ContainerCreateRequest,
    ContainerCreateResponse,
    ContainerInspectResponse,
    ContainersPruneResponse,
    ContainerSummary,
    ContainerTopResponse,
    ContainerUpdateRequest,
    ContainerUpdateResponse,
    ContainerWaitResponse,
    FilesystemChange,
)
from pier.model.disk_usage import LogFileUsage
from pier.model.exec import ExecConfig, ExecInspectResponse
from pier.model.filters import Filters
from pier.model.networks import NetworkConnectRequest, NetworkDisconnectRequest
from pier.oci import Digest, Reference
from pier.runtime.request import LogFile
from pier.runtime.systemd.units import expand_slice
from pier.state import Store
from pier.storage.archive_paths import PathStat
from pier.volumes import VolumeService


class LogsUnreadable(PierError):
    """configured logging driver does not support reading"""

    status = 501


class ContainerService:
    """One per daemon. Errors are those of the deeds; a `ref` is a name, an id, or the beginning of an id."""

    def __init__(
        self,
        *,
        runtime: Runtime,
        images: Images,
        snapshots: Snapshots,
        networks: Networks,
        volumes: VolumeService,
        store: Store,
        events: EventBus,
        config: ContainersConfig,
    ) -> None:
        self._seccomp = SeccompCache(f"{config.exec_root}/seccomp", config.seccomp_profile)
        self._world = World(
            runtime=runtime,
            images=images,
            snapshots=snapshots,
            networks=networks,
            volumes=volumes,
            store=store,
            events=events,
            config=config,
            seccomp=self._seccomp,
            host_texts=etc_files.host_texts,
        )
        self._execs = Execs(self._world)
        self._world.health = Probing(self._world, self._execs, lifecycle.HEALTH_ACTIONS)
        networks.dns.refresh = name_server.HostServers(self._world).look
        self._watcher = Watcher()
        self._sampler = Sampler(self._world)
        self._loaded: list[str] | None = None

    # the daemon's side

    @property
    def seccomp(self) -> SeccompCache:
        """The compiled filters, for whoever else runs containers."""
        return self._seccomp

    async def load(self) -> set[str]:
        """Read the records; returns the ids that were running, whose network `NetworkService.start` must keep."""
        if self._loaded is None:
            self._loaded = await recovery.load(self._world)
        return self.live()

    async def start(self) -> list[str]:
        """Load, find running containers again, repair, start what should run; returns what was repaired.

        The network service must have been started before (see `load`).
        """
        world = self._world
        warming = asyncio.create_task(self._seccomp.warm())
        try:
            world.cgroup_files = await asyncio.to_thread(_cgroup_files, world.config)
            was_running = await self.load()
            repaired = [*(self._loaded or ()), *await recovery.recover(world, was_running)]
        finally:
            await warming
        for container in world.containers.values():
            self._execs.find_again(container)
        world.tasks.start(recovery.start_those_that_should(world), "restart policies")
        return repaired

    async def stop_all(self) -> None:
        """Stop every container, for a daemon that does not leave them running (`live-restore` is false)."""
        await shutdown.stop_all(self._world)

    async def close(self) -> None:
        """Let go of everything; containers go on."""
        await self._world.tasks.close()
        for container in self._world.containers.values():
            close_pending(container)
            if container.monitor is not None:
                container.monitor.close()
        await asyncio.to_thread(self._world.copies.shutdown, wait=True, cancel_futures=True)

    def live(self) -> set[str]:
        """Ids of the containers that have, or are about to have, a network: what `NetworkService.start` keeps."""
        return {id for id, container in self._world.containers.items() if container.running}

    def by_image(self) -> dict[str, builtins.list[tuple[str, bool]]]:
        """Image id -> (id, running?) of the containers made from it or showing it, for the image service."""
        found: dict[str, builtins.list[tuple[str, bool]]] = {}
        for item in self._world.containers.values():
            for image_id in images_of(item.record):
                found.setdefault(image_id, []).append((item.id, item.running))
        return found

    def by_volume(self) -> dict[str, builtins.list[str]]:
        """Volume -> ids of the containers that have it, for the volume service."""
        return volume_mounts.users(self._world.containers.values())

    def counts(self) -> dict[str, int]:
        """Status -> number of containers, for `info`."""
        found: dict[str, int] = {}
        for container in self._world.containers.values():
            status = container.record.state.status
            found[status] = found.get(status, 0) + 1
        return found

    # the faces' side

    async def create(self, body: ContainerCreateRequest, *, name: str, platform: str) -> ContainerCreateResponse:
        return await create(self._world, body, name=name, platform=platform)

    async def list(self, *, all: bool, limit: int, size: bool, filters: Filters) -> list[ContainerSummary]:
        return await listing.list_containers(self._world, all=all, limit=limit, size=size, filters=filters)

    async def inspect(self, ref: str, *, size: bool) -> ContainerInspectResponse:
        return await inspect(self._world, self._find(ref), size=size)

    async def start_container(self, ref: str, *, detach_keys: str = "") -> bool:
        return await lifecycle.start(self._world, self._find(ref))

    async def stop(self, ref: str, *, signal: str = "", timeout_s: int | None = None) -> bool:
        return await lifecycle.stop(self._world, self._find(ref), signal_text=signal, timeout_s=timeout_s)

    async def restart(self, ref: str, *, signal: str = "", timeout_s: int | None = None) -> None:
        await lifecycle.restart_container(self._world, self._find(ref), signal_text=signal, timeout_s=timeout_s)

    async def kill(self, ref: str, signal: str) -> None:
        await lifecycle.kill(self._world, ref, signal)

    async def pause(self, ref: str) -> None:
        await freezer.pause(self._world, self._find(ref))

    async def unpause(self, ref: str) -> None:
        await freezer.unpause(self._world, self._find(ref))

    async def update(self, ref: str, asked: ContainerUpdateRequest) -> ContainerUpdateResponse:
        return await update.update(self._world, ref, asked)

    async def top(self, ref: str, ps_args: str) -> ContainerTopResponse:
        return await top.top(self._world, self._find(ref), ps_args)

    def wait(self, ref: str, condition: str) -> Awaitable[ContainerWaitResponse]:
        return waiters.wait(self._world, ref, condition)

    async def rename(self, ref: str, name: str) -> None:
        await lifecycle.rename(self._world, self._find(ref), name)

    async def remove(self, ref: str, *, force: bool, volumes: bool, link: bool, keep_data: bool = False) -> None:
        await removal.remove(self._world, ref, force=force, volumes=volumes, link=link, keep_data=keep_data)

    async def join_network(self, network: str, asked: NetworkConnectRequest) -> None:
        await membership.join(self._world, network, asked)

    async def leave_network(self, network: str, asked: NetworkDisconnectRequest) -> None:
        await membership.leave(self._world, network, asked)

    async def prune(self, filters: Filters) -> ContainersPruneResponse:
        return await prune.prune(self._world, filters)

    async def changes(self, ref: str) -> builtins.list[FilesystemChange] | None:
        """What the container changed in its file system, sorted by path; None: nothing."""
        record = self._find(ref).record
        layers = [Digest(layer) for layer in record.layers]
        found = await asyncio.to_thread(self._world.snapshots.changes, record.id, layers)
        return [FilesystemChange(path=one.path.decode("utf-8", "replace"), kind=one.kind) for one in found] or None

    async def commit(
        self,
        ref: str,
        *,
        name: Reference | None,
        author: str = "",
        comment: str = "",
        changes: Sequence[str] = (),
        pause: bool = True,
        config: ContainerConfig | None = None,
    ) -> Digest:
        return await commit.commit(
            self._world,
            self._find(ref),
            name=name,
            author=author,
            comment=comment,
            changes=changes,
            pause=pause,
            config=config,
        )

    async def attach(
        self, ref: str, *, stdin: bool, stdout: bool, stderr: bool, stream: bool, logs: bool
    ) -> Attachment:
        container = self._find(ref)
        sock, at_ns = await attach.attach(
            self._world, container, stdin=stdin, stdout=stdout, stderr=stderr, stream=stream
        )
        query = Query(stdout=stdout, stderr=stderr, until_ns=at_ns, raw=container.record.config.tty)
        prefix = self._read_log(container, query, follow=False) if logs else None
        return Attachment(sock, container.record.config.tty, prefix)

    def logs(
        self,
        ref: str,
        *,
        stdout: bool,
        stderr: bool,
        follow: bool,
        since_ns: int,
        until_ns: int,
        timestamps: bool,
        tail: int | None,
        details: bool,
    ) -> AsyncIterator[bytes]:
        """The log in batches of whole entries, framed, raw for a terminal. Raises at the call."""
        container = self._find(ref)
        query = Query(
            stdout=stdout,
            stderr=stderr,
            since_ns=since_ns,
            until_ns=until_ns,
            timestamps=timestamps,
            tail=tail,
            details=details,
            raw=container.record.config.tty,
        )
        return self._read_log(container, query, follow=follow)

    def _read_log(self, container: Container, query: Query, *, follow: bool) -> AsyncIterator[bytes]:
        kept = self._log_file(container)
        if kept is None:
            raise LogsUnreadable
        follower = Follower(self._watcher, lambda: container.running, lambda: _end_of_run(container))
        return read(kept.path, query, driver=kept.driver, follower=follower if follow else None)

    async def log_usage(self) -> builtins.list[LogFileUsage]:
        """What each container's log takes on the disk, where it has one."""
        kept = [(one.record, self._log_file(one)) for one in self._world.containers.values()]
        files = [(record, log) for record, log in kept if log is not None]
        sizes = await asyncio.to_thread(lambda: [usage(log.path) for _, log in files])
        return [
            LogFileUsage(id=record.id, name=record.name, driver=log.driver, files=count, size=size_bytes)
            for (record, log), (count, size_bytes) in zip(files, sizes, strict=True)
        ]

    async def truncate_logs(self, ref: str) -> int:
        """Empty a container's log; returns the bytes that this frees. Raises LogsUnreadable, OSError."""
        kept = self._log_file(self._find(ref))
        if kept is None:
            raise LogsUnreadable
        return await asyncio.to_thread(truncate, kept.path)

    def _log_file(self, container: Container) -> LogFile | None:
        return self._world.config.log_file(container.record)

    async def resize(self, ref: str, height: int, width: int) -> None:
        container = self._find(ref)
        await attach.resize(container, height, width)
        self._world.publish(container, "resize", height=str(height), width=str(width))

    def export(self, ref: str) -> AsyncIterator[bytes]:
        return export(self._world, self._find(ref))

    def stats(self, ref: str, *, stream: bool, one_shot: bool) -> AsyncIterator[dict[str, Any]]:
        return self._sampler.stream(self._find(ref), stream=stream, one_shot=one_shot)

    async def path_stat(self, ref: str, path: str) -> PathStat:
        return await archive.path_stat(self._world, self._find(ref), ref, path)

    def archive(self, ref: str, path: str) -> AbstractAsyncContextManager[Archive]:
        """The archive of a file or a tree, to be read inside the block."""
        return archive.archive(self._world, self._find(ref), ref, path)

    async def extract(
        self, ref: str, path: str, source: AsyncIterator[bytes], *, keep_kinds: bool, copy_owner: bool
    ) -> None:
        await archive.extract(
            self._world, self._find(ref), ref, path, source, keep_kinds=keep_kinds, copy_owner=copy_owner
        )

    async def exec_create(self, ref: str, config: ExecConfig) -> str:
        return await self._execs.create(self._find(ref), config)

    def exec_prepare(self, id: str) -> None:
        """The client is about to start it."""
        self._execs.prepare(id)

    async def exec_start(
        self, id: str, *, detach: bool, tty: bool, console_size: tuple[int, int] | None
    ) -> Attachment | None:
        return await self._execs.start(id, detach=detach, tty=tty, console_size=console_size)

    async def exec_inspect(self, id: str) -> ExecInspectResponse:
        return self._execs.inspect(id)

    def exec_detached(self, id: str) -> None:
        """A client left an exec by its detach keys."""
        self._execs.detached(id)

    async def exec_resize(self, id: str, height: int, width: int) -> None:
        await self._execs.resize(id, height, width)

    def detached(self, ref: str) -> None:
        """A client left by its detach keys: the API found them, the event is told here."""
        container = self._find(ref)
        self._world.publish(container, "detach")

    def _find(self, ref: str) -> Container:
        return self._world.find(ref)


def _end_of_run(container: Container) -> asyncio.Future[Any] | None:
    """To be waited for; None where there is no run, or none that goes on."""
    return None if container.exited is None or container.exited.done() else container.exited


def _cgroup_files(config: ContainersConfig) -> frozenset[str]:
    """The files of the daemon's own cgroup, made for the purpose: what this kernel can limit. Blocking."""
    if config.systemd_cgroups:
        return _slice_files(config)
    parent = f"/{config.cgroup_parent.strip('/')}"
    cgroup = Cgroup(config.cgroups, f"{parent}/{os.getpid()}")
    try:
        cgroup.create()
        return cgroup.files()
    except (PierError, OSError):
        return frozenset()
    finally:
        with contextlib.suppress(PierError, OSError):
            cgroup.remove()


def _slice_files(config: ContainersConfig) -> frozenset[str]:
    """The same of a slice of systemd's, where it has every controller; empty where that cannot be known from it."""
    slice = Cgroup(config.cgroups, expand_slice(config.cgroup_parent) or "/system.slice")
    try:
        files = slice.files()
    except OSError:
        return frozenset()
    everything = {"cpu.max", "cpuset.cpus", "io.max", "memory.max", "pids.max"} <= files
    return files if everything or config.cgroups.mode != "v2" else frozenset()
