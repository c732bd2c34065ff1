"""What the deeds of the container service work with: the rooms below, handed in, and the containers in memory."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from pier.containers import log_config, names
from pier.containers.oci_runtimes import OciRuntimes
from pier.containers.record import Record
from pier.events import EventBus
from pier.images.commit import Commit
from pier.kernel.cgroups import Layout
from pier.model.host_config import Ulimit
from pier.model.network import PortMap
from pier.networks import Ask, Endpoint, NetworkRecord, Publishing, Sandbox
from pier.networks.dns import DnsServer
from pier.networks.firewall import Forward
from pier.oci.descriptor import Descriptor
from pier.oci.digest import Digest
from pier.oci.image_config import ImageConfig
from pier.oci.reference import Reference
from pier.runtime.client import Monitor
from pier.runtime.request import AttachEnd, BindRoot, ExitRecord, LogFile, OverlayRoot, StartRequest
from pier.state import Put, Store
from pier.storage.changes import Change
from pier.storage.ids import IdMap
from pier.volumes import VolumeService

log = logging.getLogger("pier.containers")

T = TypeVar("T")

COPIES = 32
"""Archives on their way into or out of containers at the same time."""


class Image(Protocol):
    """What a container needs to know of its image."""

    @property
    def id(self) -> Digest: ...
    @property
    def config(self) -> ImageConfig: ...
    @property
    def layers(self) -> list[Digest]: ...
    @property
    def manifest(self) -> Descriptor: ...
    @property
    def platforms(self) -> Sequence[Image]: ...


class Images(Protocol):
    async def commit(self, asked: Commit, name: Reference | None) -> Digest: ...
    async def get(self, ref: str, platform: str = "") -> Image: ...


class Snapshots(Protocol):
    """Writable layers; blocking, so called in threads where they touch much."""

    @property
    def name(self) -> str: ...
    def prepare(
        self, container_id: str, layers: list[Digest], size_bytes: int = 0, id_map: IdMap | None = None
    ) -> OverlayRoot | BindRoot: ...
    def root(self, container_id: str, layers: list[Digest]) -> OverlayRoot | BindRoot: ...
    def idmap_fault(self) -> str: ...
    def remove(self, container_id: str) -> None: ...
    def usage(self, container_id: str, layers: list[Digest]) -> int: ...
    def changes(self, container_id: str, layers: list[Digest]) -> list[Change]: ...
    def layer_size(self, chain_id: Digest) -> int: ...
    def view(self, container_id: str, layers: list[Digest]) -> AbstractContextManager[int]: ...
    def layer_view(self, layers: list[Digest]) -> AbstractContextManager[int]: ...
    def layer_mount(self, layers: list[Digest], subpath: str = "") -> int: ...
    def container_data(self, container_id: str, layers: list[Digest]) -> dict[str, str]: ...


class Networks(Protocol):
    dns: DnsServer

    def find(self, ref: str) -> NetworkRecord: ...
    def sandbox(self, container_id: str) -> Sandbox | None: ...
    def host_gateway(self) -> list[str]: ...
    async def connect(
        self, container_id: str, asks: Sequence[Ask], *, name: str, publishing: Publishing
    ) -> Sandbox: ...
    async def release(self, container_id: str) -> None: ...
    async def join(
        self, container_id: str, ask: Ask, *, name: str, publishing: Publishing, netns_fd: int, more: Sequence[Put]
    ) -> Endpoint: ...
    async def leave(
        self, container_id: str, network_id: str, *, publishing: Publishing, netns_fd: int | None, more: Sequence[Put]
    ) -> None: ...
    async def verify(self, container_id: str, netns_fd: int) -> Sequence[Endpoint]: ...
    async def change_ports(self, container_id: str, add: PortMap, remove: Sequence[Forward], *, name: str) -> bool: ...
    async def rename(self, container_id: str, name: str, names: Mapping[str, Sequence[str]]) -> None: ...


class Runtime(Protocol):
    async def launch(self, request: StartRequest, ends: Sequence[AttachEnd] = ()) -> Monitor: ...
    async def reconnect(self, exec_dir: str) -> Monitor | None: ...


class Health(Protocol):
    def sync(self, container: Container) -> None:
        """Ask a container that runs and has a check, and no other. Called after each change of its state."""
        ...


class NoHealth:
    """Until there is someone who asks."""

    def sync(self, container: Container) -> None:
        pass


class Filters(Protocol):
    async def path_for(self, record: Record, capabilities: Sequence[str]) -> str | None:
        """Path of the compiled seccomp filter of a container; None: unconfined."""
        ...

    async def profile_for(self, record: Record, capabilities: Sequence[str]) -> dict[str, Any] | None:
        """The same as OCI's `linux.seccomp`, for another runtime."""
        ...


@dataclass(frozen=True, slots=True)
class ContainersConfig:
    """The daemon's configuration as far as containers go; the keys are daemon.json's."""

    data_root: str
    exec_root: str
    cgroups: Layout
    cgroup_parent: str = "/pier"
    """Above every container that names none: a path, or a slice of systemd's."""
    systemd_cgroups: bool = False
    """A container's cgroup is a scope of systemd's."""
    default_ipc_mode: str = "private"
    default_cgroupns_mode: str = ""
    """Empty: `private`, for a privileged container `host`."""
    default_shm_size: int = 64 << 20
    default_ulimits: Sequence[Ulimit] = ()
    init: bool = False
    no_new_privileges: bool = False
    id_map: IdMap | None = None
    """Of `userns-remap`."""
    seccomp_profile: str = "builtin"
    log_driver: str = "json-file"
    log_opts: Mapping[str, str] = field(default_factory=dict)
    dns: Sequence[str] = ()
    dns_opts: Sequence[str] = ()
    dns_search: Sequence[str] = ()
    host_gateway_ips: Sequence[str] = ()
    cdi_spec_dirs: Sequence[str] = ()
    oci_runtimes: OciRuntimes = field(default_factory=OciRuntimes)

    def container_dir(self, id: str) -> str:
        return f"{self.data_root}/containers/{id}"

    def exec_dir(self, id: str) -> str:
        return f"{self.exec_root}/containers/{id}"

    def exit_file(self, id: str) -> str:
        return f"{self.container_dir(id)}/exit.json"

    def log_file(self, record: Record) -> LogFile | None:
        """Where a container's output can be read; None: nowhere (`--log-driver none`)."""
        return log_config.log_file(record, self.container_dir(record.id))

    def etc_file(self, id: str, name: str) -> str:
        """`hosts`, `hostname` or `resolv.conf` of a container."""
        return f"{self.container_dir(id)}/{name}"


@dataclass(eq=False, slots=True)
class Container:
    """A container in memory: its record and what only lives as long as the daemon."""

    record: Record
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by whoever changes the state: start, stop, remove, rename, pause."""
    monitor: Monitor | None = None
    pending: list[AttachEnd] = field(default_factory=list)
    """Clients that attached before the start, waiting to be handed to the runtime."""
    exited: asyncio.Future[ExitRecord] | None = None
    """Of the present run; resolved when the record says so."""
    waiters: list[tuple[str, asyncio.Future[int]]] = field(default_factory=list)
    """(condition `next-exit` or `removed`, the exit code to come)."""
    wake_restart: asyncio.Event = field(default_factory=asyncio.Event)
    """Ends the wait before a restart by policy: stop, kill or remove was called."""
    restart_by_policy: bool = True
    """False while a restart asked for by the user goes on: its end is neither restarted by policy nor removed."""
    called_off: bool = False
    """The user has ended the present run: no policy starts it again."""
    failures: int = 0
    """Runs since the last that was long enough to reset the back-off."""
    execs: set[str] = field(default_factory=set)
    volumes_mounted: bool = False
    """It has been told that the volumes of the present run are mounted."""

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def running(self) -> bool:
        return self.record.state.running


class Tasks:
    """The tasks that belong to the service: `close` cancels what still runs and waits for it."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s failed", task.get_name(), exc_info=error)

    async def close(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def finish(work: Coroutine[Any, Any, T]) -> T:
    """Do a change to its end, and its result; a client that goes away meanwhile is heeded after it."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


@dataclass(eq=False, slots=True)
class World:
    """Everything the deeds share. One per daemon; touched on the event loop's thread only."""

    runtime: Runtime
    images: Images
    snapshots: Snapshots
    networks: Networks
    volumes: VolumeService
    store: Store
    events: EventBus
    config: ContainersConfig
    seccomp: Filters
    closing: bool = False
    """The daemon stops its containers: no policy starts one again."""
    containers: dict[str, Container] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    """Name -> id; a name is in here from before its container is written until after it is deleted."""
    id_maps: dict[str, IdMap] = field(default_factory=dict)
    """Id -> ids of the container's user namespace; as long as its name is in `names`."""
    tasks: Tasks = field(default_factory=Tasks)
    health: Health = field(default_factory=NoHealth)
    host_texts: Callable[[], tuple[str, str]] = lambda: ("", "")
    """(resolv.conf, hosts) of the host."""
    copies: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(COPIES, thread_name_prefix="copy"))
    """For files on their way in and out, whose clients may be slow."""
    cgroup_files: frozenset[str] = frozenset()
    """The files of a cgroup on this machine: what can be limited. Empty: not known yet."""

    def find(self, ref: str) -> Container:
        """By id, name or beginning of an id. Raises NoSuchContainer, AmbiguousPrefix."""
        return self.containers[names.find(ref, self.containers, self.names)]

    def take_name(self, name: str, id: str) -> None:
        """Reserve a name. Raises NameInUse."""
        holder = self.names.get(name)
        if holder is not None:
            raise names.NameInUse(name=name, holder=holder)
        self.names[name] = id

    def publish(self, container: Container, action: str, **more: str) -> None:
        """A container's event with Docker's attributes: its labels, its image, its name, and what the action adds."""
        record = container.record
        # Labels first: one called `name` or `image` must not hide the engine's own.
        attributes = {**(record.config.labels or {}), "image": record.config.image, "name": record.name, **more}
        self.events.publish("container", action, record.id, attributes)

    def publish_network(self, container: Container, action: str, endpoint: Endpoint) -> None:
        """`connect` and `disconnect` of a network, with Docker's attributes."""
        attributes = {"container": container.id, "name": endpoint.network, "type": endpoint.driver}
        self.events.publish("network", action, endpoint.network_id, attributes)

    async def save(self, container: Container) -> None:
        await self.store.write(container.record.put())
