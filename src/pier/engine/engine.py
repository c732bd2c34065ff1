"""The composition root: every room is made here, handed its neighbours, started in order and closed in reverse.

Order of opening: what must be there, folders and locks, state, content, snapshots, images, runtime, networks, volumes,
containers. A later step may use an earlier one and never the other way round; the one exception, images asking which
containers use them, is a function handed in. Whatever fails, what was opened before it is closed again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import uuid
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_network

from pier.builder.cache import Cache
from pier.builder.ground import Ground
from pier.builder.service import BuildService
from pier.containers import ContainersConfig, ContainerService
from pier.containers.cdi import SPEC_DIRS
from pier.containers.etc_files import host_texts
from pier.containers.oci_runtimes import OciRuntimes
from pier.containers.spec_mounts import default_mounts
from pier.distribution import Backoff, ProxyConfig, Registries, RegistryConfig
from pier.engine import cgroup_driver, host, prerequisites, remap, runtimes
from pier.engine.cgroup_driver import CgroupDriver
from pier.engine.config import DaemonConfig
from pier.engine.lock import FolderLock
from pier.engine.reload import attributes, merge
from pier.engine.roots import DATA_MODE, EXEC_MODE, make_root
from pier.engine.system import System
from pier.events import EventBus
from pier.images import ImageService
from pier.images.remote import Remote
from pier.kernel import process
from pier.kernel.cgroups import Layout, detect
from pier.networks import NetworkConfig, NetworkService
from pier.networks.bridge_options import DEFAULT_MTU
from pier.networks.ipam import DEFAULT_POOLS, SubnetPool
from pier.runtime.client import Runtime
from pier.runtime.systemd import scopes
from pier.state import Database
from pier.storage import ContentStore, Setup, Snapshotter, choose_driver
from pier.storage.ids import IdMap
from pier.storage.layer import LayerLimits
from pier.storage.tar import TarLimits
from pier.volumes import VolumeFiles, VolumeService

log = logging.getLogger("pier.engine")

DEFAULT_BRIDGE = "pier0"
CONTAINERD_STORE = "containerd-snapshotter"
"""Docker's feature of an image store that takes images of several platforms."""


@dataclass(slots=True)
class Engine:
    """Everything the API serves. Made by `open`."""

    config: DaemonConfig
    containers: ContainerService
    images: ImageService
    remote: Remote
    networks: NetworkService
    volumes: VolumeService
    volume_files: VolumeFiles
    builder: BuildService
    events: EventBus
    system: System
    _registries: Registries
    _oci_runtimes: OciRuntimes
    _stack: AsyncExitStack

    @classmethod
    async def open(cls, config: DaemonConfig) -> Engine:
        """Bring the daemon up; running containers of an earlier one are found again.

        Raises NotReady, UnsafeFolder, FolderInUse, DatabaseTooNew, DatabaseUnusable, and what the rooms raise.
        """
        async with AsyncExitStack() as stack:
            engine = await _compose(config, stack)
            engine._stack = stack.pop_all()
        return engine

    def reload(self, wanted: DaemonConfig) -> list[str]:
        """Take over what may change in a running daemon; returns the keys whose change waits for a restart."""
        self.config, waiting = merge(self.config, wanted)
        config = self.config
        self._registries.reconfigure(registries_config(config, os.environ), Backoff(config.max_download_attempts))
        self.images.limit_transfers(downloads=config.max_concurrent_downloads, uploads=config.max_concurrent_uploads)
        self._oci_runtimes.replace(config.default_runtime, runtimes.entries(config.runtimes))
        self.system.reconfigure(config)
        self.events.publish("daemon", "reload", self.system.id, attributes(config))
        return waiting

    async def close(self) -> None:
        """Let go of everything; containers go on, unless `live-restore` is false."""
        if not self.config.live_restore:
            await self.containers.stop_all()
        await self._stack.aclose()


async def _compose(config: DaemonConfig, stack: AsyncExitStack) -> Engine:
    machine, layout = host.look(), detect()
    prerequisites.check(machine, layout)
    _take_folders(config, stack)
    driver = cgroup_driver.choose(config.exec_opts, config.cgroup_parent, layout, booted=scopes.running())
    if not driver.is_systemd:
        stack.callback(_remove_cgroup_parent, layout, driver.parent)

    state = await Database.open(os.path.join(config.data_root, "pier.db"))
    stack.push_async_callback(state.close)
    if state.repaired:
        log.warning("%s", state.repaired.describe())
    events = EventBus()
    stack.callback(events.close)

    folder = os.path.join(config.data_root, "content")
    content = await asyncio.to_thread(partial(ContentStore, folder, max_blob_bytes=config.max_layer_size))
    limits = LayerLimits(config.max_layer_size, TarLimits(entries=config.max_layer_files))
    setup = Setup(limits=limits, leases=content.leases, options=tuple(config.storage_opts))
    choose = partial(choose_driver, config.data_root, config.storage_driver, setup=setup)
    snapshots = await asyncio.to_thread(choose)
    stack.callback(snapshots.close)
    id_map = await asyncio.to_thread(resolve_id_map, config, snapshots)
    backoff = Backoff(retries=config.max_download_attempts)
    registries = Registries(registries_config(config, os.environ), backoff=backoff)
    images = ImageService(
        content,
        snapshots,
        state,
        events,
        registries=registries,
        max_downloads=config.max_concurrent_downloads,
        max_uploads=config.max_concurrent_uploads,
        rebuilds_blobs=config.layer_blobs == "rebuild",
    )
    stack.push_async_callback(images.close)
    cache = Cache(state, snapshots, content)
    _report(await cache.load())
    images.kept = cache.kept
    await images.start()

    runtime = Runtime(
        open_files=process.raise_open_files(),
        standard_mounts=default_mounts(shm_size=config.default_shm_size, privileged=False, ipc_mode="private"),
        systemd=driver.is_systemd,
    )
    await runtime.start()
    stack.push_async_callback(runtime.close)

    networks = NetworkService(network_config(config), state, events)
    stack.push_async_callback(_close_networks, networks)
    _report(await networks.start(_perhaps_running(config)))

    volumes = VolumeService(
        top=os.path.join(config.data_root, "volumes"),
        notes=os.path.join(config.exec_root, "volumes"),
        store=state,
        events=events,
        id_map=id_map,
    )
    stack.push_async_callback(volumes.close)
    _report(await volumes.start())
    volume_files = VolumeFiles(volumes)
    stack.push_async_callback(volume_files.close)

    settings = containers_config(config, layout, driver, id_map)
    containers = ContainerService(
        runtime=runtime,
        images=images,
        snapshots=snapshots,
        networks=networks,
        volumes=volumes,
        store=state,
        events=events,
        config=settings,
    )
    stack.push_async_callback(containers.close)
    images.users = containers.by_image
    volumes.users = containers.by_volume
    _report(await containers.start())

    ground = Ground(
        snapshots=snapshots,
        content=content,
        images=images,
        runtime=runtime,
        networks=networks,
        seccomp=containers.seccomp,
        config=settings,
        host_texts=host_texts,
        registries=registries,
    )
    builder = await _builder(ground, cache, config, stack)

    system = System(
        config=config,
        id=engine_id(config.data_root),
        host=machine,
        layout=layout,
        cgroup_driver=driver.name,
        limits=host.limits(layout),
        driver=snapshots.name,
        driver_status=driver_status(config, host.filesystem_name(config.data_root), snapshots.status()),
        containers=containers,
        images=images,
        volumes=volumes,
        builder=builder,
        listeners=lambda: events.listeners,
        lacking=networks.features,
        remapped=id_map is not None,
        runtimes=runtimes.About(settings.oci_runtimes),
    )
    return Engine(
        config,
        containers,
        images,
        Remote(registries),
        networks,
        volumes,
        volume_files,
        builder,
        events,
        system,
        registries,
        settings.oci_runtimes,
        stack,
    )


def driver_status(config: DaemonConfig, filesystem: str, status: list[list[str]]) -> list[list[str]]:
    """What `info` says of the storage driver.

    Clients know by `driver-type` that an engine takes images of several platforms (buildx's `--load`), and take for
    granted that its images have their manifests' digests as ids, which is not so here: it is said if it is asked for.
    """
    asked = config.features.get(CONTAINERD_STORE, False)
    found = [["Backing Filesystem", filesystem], *status]
    return [*found, ["driver-type", "io.containerd.snapshotter.v1"]] if asked else found


async def _builder(ground: Ground, cache: Cache, config: DaemonConfig, stack: AsyncExitStack) -> BuildService:
    keep_bytes = config.builder.gc.limit_bytes(shutil.disk_usage(config.data_root).total)
    builder = BuildService(ground, cache, keep_bytes=keep_bytes, grants=config.builder.entitlements.names)
    stack.push_async_callback(builder.close)
    _report(await builder.start())
    return builder


def _take_folders(config: DaemonConfig, stack: AsyncExitStack) -> None:
    """Make the roots, hold them against a second daemon, and write the pid file."""
    roots = (
        (config.data_root, DATA_MODE, "data root", "--data-root"),
        (config.exec_root, EXEC_MODE, "exec root", "--exec-root"),
    )
    for path, mode, what, flag in roots:
        make_root(path, mode, what=what, flag=flag)
        stack.callback(FolderLock.take(path, what=f"the {what}", flag=flag).release)
    make_root(f"{config.exec_root}/containers", DATA_MODE, what="folder of monitors", flag="--exec-root")
    with open(config.pid_path, "w", encoding="ascii") as file:
        file.write(f"{os.getpid()}\n")
    stack.callback(_remove, config.pid_path)


def _remove_cgroup_parent(layout: Layout, parent: str) -> None:
    """Take the containers' parent group away where no container is in it."""
    for hierarchy in layout.hierarchies:
        with suppress(OSError):
            os.rmdir(os.path.join(hierarchy, parent.lstrip("/")))


def _remove(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)


def _perhaps_running(config: DaemonConfig) -> set[str]:
    """Containers that have a monitor's socket: those that run, and some that ended while no daemon looked.

    Their endpoints are kept until the container service has asked the monitors.
    """
    folder = os.path.join(config.exec_root, "containers")
    try:
        ids = os.listdir(folder)
    except FileNotFoundError:
        return set()
    return {id for id in ids if os.path.exists(os.path.join(folder, id, "monitor.sock"))}


async def _close_networks(networks: NetworkService) -> None:
    """Take the bridge and the firewall table away when no container needs them."""
    await networks.teardown()
    await networks.close()


def _report(repaired: list[str]) -> None:
    for line in repaired:
        log.warning("repaired: %s", line)


def network_config(config: DaemonConfig) -> NetworkConfig:
    """The default bridge as the daemon's configuration describes it."""
    pools = [SubnetPool(ip_network(pool.base), pool.size) for pool in config.default_address_pools]
    return NetworkConfig(
        bridge=config.bridge or DEFAULT_BRIDGE,
        bip=config.bip,
        bip6=config.bip6,
        fixed_cidr=config.fixed_cidr,
        fixed_cidr_v6=config.fixed_cidr_v6,
        ipv6=config.ipv6,
        default_gateway=config.default_gateway,
        default_gateway_v6=config.default_gateway_v6,
        pools=pools or DEFAULT_POOLS,
        seed=engine_id(config.data_root),
        mtu=config.mtu or DEFAULT_MTU,
        ip=config.ip,
        icc=config.icc,
        ip_forward=config.ip_forward,
        ip_masq=config.ip_masq,
        iptables=config.iptables,
        ip6tables=config.ip6tables,
        allow_direct_routing=config.allow_direct_routing,
        ip_forward_no_drop=config.ip_forward_no_drop,
        userland_proxy=config.userland_proxy,
        ports_firewall=config.published_ports_firewall,
        network_opts=config.default_network_opts,
    )


def registries_config(config: DaemonConfig, environment: Mapping[str, str]) -> RegistryConfig:
    """How registries are reached; a proxy that is not configured may come from the environment, as in Docker."""
    surroundings = ProxyConfig.from_environment(environment)
    return RegistryConfig(
        mirrors=tuple(config.registry_mirrors),
        insecure=tuple(config.insecure_registries),
        proxies=ProxyConfig(
            http=config.proxies.http_proxy or surroundings.http,
            https=config.proxies.https_proxy or surroundings.https,
            no_proxy=config.proxies.no_proxy or surroundings.no_proxy,
        ),
    )


def resolve_id_map(config: DaemonConfig, snapshots: Snapshotter) -> IdMap | None:
    """What `userns-remap` asks for; None: nothing. Blocking. Raises CannotRemap, BadRemap, BadSubids."""
    id_map = remap.resolve(config.userns_remap)
    if id_map is not None and (fault := snapshots.idmap_fault()):
        raise remap.CannotRemap(fault=fault, data_root=config.data_root)
    return id_map


def containers_config(
    config: DaemonConfig, layout: Layout, driver: CgroupDriver, id_map: IdMap | None = None
) -> ContainersConfig:
    """What the daemon's configuration says about every container."""
    return ContainersConfig(
        data_root=config.data_root,
        exec_root=config.exec_root,
        cgroups=layout,
        cgroup_parent=driver.parent,
        systemd_cgroups=driver.is_systemd,
        default_cgroupns_mode=config.default_cgroupns_mode,
        default_ipc_mode=config.default_ipc_mode,
        default_shm_size=config.default_shm_size,
        default_ulimits=list(config.default_ulimits.values()),
        init=config.init,
        no_new_privileges=config.no_new_privileges,
        id_map=id_map,
        seccomp_profile=config.seccomp_profile,
        log_driver=config.log_driver,
        log_opts=config.log_opts,
        dns=config.dns,
        dns_opts=config.dns_opts,
        dns_search=config.dns_search,
        host_gateway_ips=config.host_gateway_ips,
        cdi_spec_dirs=config.cdi_spec_dirs or SPEC_DIRS,
        oci_runtimes=runtimes.registered(config.default_runtime, config.runtimes),
    )


def engine_id(data_root: str) -> str:
    """The daemon's own UUID, made once for a data root."""
    path = os.path.join(data_root, "engine-id")
    try:
        with open(path, encoding="ascii") as file:
            return str(uuid.UUID(file.read().strip()))
    except (FileNotFoundError, ValueError):
        fresh = str(uuid.uuid4())
        with open(path, "w", encoding="ascii") as file:
            file.write(f"{fresh}\n")
        return fresh
