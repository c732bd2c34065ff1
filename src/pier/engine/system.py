"""The daemon about itself: `GET /info` and `GET /version`, as Docker 28 answers them."""

from __future__ import annotations

import asyncio
import os
import platform
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime

import pier
from pier.containers.cdi import SPEC_DIRS
from pier.engine.config import DaemonConfig
from pier.engine.disk_usage import Builder, Containers, Images, Volumes, disk_usage
from pier.engine.host import Host, Limits
from pier.engine.runtimes import About
from pier.kernel.cgroups import Layout
from pier.model.disk_usage import DiskUsage
from pier.model.filters import Filters
from pier.model.system import (
    ComponentVersion,
    FirewallInfo,
    IndexInfo,
    NetworkAddressPool,
    PluginsInfo,
    RegistryServiceConfig,
    SystemInfo,
    SystemVersion,
    SystemVersionPlatform,
)

API_VERSION = "1.55"
MIN_API_VERSION = "1.24"
PLATFORM = "Pier"
DOCKER_HUB = "docker.io"
LOOPBACK = ("::1/128", "127.0.0.0/8")
"""Registries there may always speak plain HTTP."""
LOG_DRIVERS = ("journald", "json-file", "local", "none", "syslog")
NETWORK_DRIVERS = ("bridge", "host", "ipvlan", "macvlan", "null")


class System:
    """What the API's system group asks of the engine."""

    def __init__(
        self,
        *,
        config: DaemonConfig,
        id: str,
        host: Host,
        layout: Layout,
        cgroup_driver: str,
        limits: Limits,
        driver: str,
        driver_status: list[list[str]],
        containers: Containers,
        images: Images,
        volumes: Volumes,
        builder: Builder,
        listeners: Callable[[], int],
        lacking: Sequence[str],
        runtimes: About,
        remapped: bool = False,
    ) -> None:
        self._config = config
        self.id = id
        self._host = host
        self._layout = layout
        self._cgroup_driver = cgroup_driver
        self._limits = limits
        self._driver = driver
        self._driver_status = driver_status
        self._containers = containers
        self._images = images
        self._volumes = volumes
        self._builder = builder
        self._listeners = listeners
        self._lacking = lacking
        self._runtimes = runtimes
        self._remapped = remapped

    async def disk_usage(self, kinds: Collection[str]) -> DiskUsage:
        """What the kinds of objects take on the disk; see `disk_usage.KINDS`."""
        return await disk_usage(self._containers, self._images, self._volumes, self._builder, kinds)

    def reconfigure(self, config: DaemonConfig) -> None:
        """Tell of another configuration from now on."""
        self._config = config

    async def version(self) -> SystemVersion:
        host = self._host
        python = f"python{platform.python_version()}"
        experimental = str(self._config.experimental).lower()
        details = {
            "ApiVersion": API_VERSION,
            "Arch": host.architecture,
            "BuildTime": "",
            "Experimental": experimental,
            "GitCommit": "",
            "GoVersion": python,
            "KernelVersion": host.kernel_version,
            "MinAPIVersion": MIN_API_VERSION,
            "Os": "linux",
        }
        return SystemVersion(
            platform=SystemVersionPlatform(name=PLATFORM),
            components=[ComponentVersion(name="Engine", version=pier.__version__, details=details)],
            version=pier.__version__,
            api_version=API_VERSION,
            min_api_version=MIN_API_VERSION,
            go_version=python,
            arch=host.architecture,
            kernel_version=host.kernel_version,
            experimental=self._config.experimental,
        )

    async def info(self) -> SystemInfo:
        config, host, limits = self._config, self._host, self._limits
        containers = await self._containers.list(all=True, limit=0, size=False, filters=Filters())
        images = await self._images.list(all=False, filters=Filters())
        states = Counter(container.state for container in containers)
        forwarding = _reads_one("/proc/sys/net/ipv4/ip_forward")
        return SystemInfo(
            id=self.id,
            containers=len(containers),
            containers_running=states["running"],
            containers_paused=states["paused"],
            containers_stopped=len(containers) - states["running"] - states["paused"],
            images=len(images),
            driver=self._driver,
            driver_status=self._driver_status,
            plugins=PluginsInfo(volume=["local"], network=list(NETWORK_DRIVERS), log=list(LOG_DRIVERS)),
            memory_limit=limits.memory_limit,
            swap_limit=limits.swap_limit,
            kernel_memory_tcp=limits.kernel_memory_tcp,
            cpu_cfs_period=limits.cpu_cfs_period,
            cpu_cfs_quota=limits.cpu_cfs_quota,
            cpu_shares=limits.cpu_shares,
            cpu_set=limits.cpu_set,
            pids_limit=limits.pids_limit,
            oom_kill_disable=limits.oom_kill_disable,
            ipv4_forwarding=forwarding,
            debug=config.debug,
            n_fd=len(os.listdir("/proc/self/fd")),
            n_goroutines=len(asyncio.all_tasks()),
            n_events_listener=self._listeners(),
            system_time=datetime.now(UTC).isoformat().replace("+00:00", "Z"),
            logging_driver=config.log_driver,
            cgroup_driver=self._cgroup_driver,
            cgroup_version=self._layout.number,
            kernel_version=host.kernel_version,
            operating_system=host.operating_system,
            os_version=host.os_version,
            architecture=host.machine,
            registry_config=registry_config(config),
            ncpu=host.cpus,
            mem_total=host.memory_bytes,
            docker_root_dir=config.data_root,
            http_proxy=without_secret(config.proxies.http_proxy),
            https_proxy=without_secret(config.proxies.https_proxy),
            no_proxy=config.proxies.no_proxy,
            name=host.name,
            labels=list(config.labels),
            experimental_build=config.experimental,
            server_version=pier.__version__,
            runtimes=await self._runtimes.all(),
            default_runtime=self._runtimes.default,
            live_restore_enabled=config.live_restore,
            cdi_spec_dirs=list(config.cdi_spec_dirs or SPEC_DIRS),
            init_binary="pier-init",
            security_options=security_options(config, self._layout, remapped=self._remapped),
            default_address_pools=[NetworkAddressPool(pool.base, pool.size) for pool in config.default_address_pools]
            or None,
            firewall_backend=FirewallInfo(driver="nftables"),
            warnings=self._warnings(forwarding) or None,
        )

    def _warnings(self, forwarding: bool) -> list[str]:
        lines = self._limits.warnings(self._layout.mode)
        if not forwarding:
            lines.append("WARNING: IPv4 forwarding is disabled")
        return lines + [f"WARNING: {text}" for text in self._lacking]


def registry_config(config: DaemonConfig) -> RegistryServiceConfig:
    """Where images come from, and which registries may go without TLS."""
    networks = [text for text in config.insecure_registries if "/" in text]
    insecure = {text: IndexInfo(name=text, secure=False) for text in config.insecure_registries if "/" not in text}
    mirrors = [mirror.rstrip("/") + "/" for mirror in config.registry_mirrors]
    hub = IndexInfo(name=DOCKER_HUB, mirrors=mirrors, secure=True, official=True)
    return RegistryServiceConfig(
        insecure_registry_cidrs=[*LOOPBACK, *networks],
        index_configs={DOCKER_HUB: hub, **insecure},
        mirrors=mirrors or None,
    )


def security_options(config: DaemonConfig, layout: Layout, *, remapped: bool = False) -> list[str]:
    """The guards that stand around every container unless it asks otherwise."""
    options = [f"name=seccomp,profile={config.seccomp_profile}"]
    if remapped:
        options.append("name=userns")
    if config.default_cgroupns_mode == "private" or (not config.default_cgroupns_mode and layout.mode == "v2"):
        options.append("name=cgroupns")
    if config.no_new_privileges:
        options.append("name=no-new-privileges")
    return options


def without_secret(url: str) -> str:
    """A proxy's address with its user and password masked, as Docker shows it."""
    scheme, separator, rest = url.partition("://")
    host = rest.rpartition("@")[2] if separator else rest
    return f"{scheme}://xxxxx:xxxxx@{host}" if separator and "@" in rest.partition("/")[0] else url


def _reads_one(path: str) -> bool:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip() == "1"
    except OSError:
        return False
