"""The daemon about itself: GET /version and GET /info."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import field

from .wire import OMIT, Struct


class SystemVersionPlatform(Struct):
    name: str = ""


class ComponentVersion(Struct):
    """One part of the engine; values of `details` are text."""

    name: str
    version: str
    details: Annotated[dict[str, str] | None, OMIT] = None


class SystemVersion(Struct):
    platform: SystemVersionPlatform = field(default_factory=SystemVersionPlatform)
    components: list[ComponentVersion] = field(default_factory=list)
    version: str = ""
    api_version: str = ""
    min_api_version: str = field(name="MinAPIVersion", default="")
    git_commit: str = ""
    go_version: str = ""
    """`docker version` prints it; Pier gives its Python's version here."""
    os: str = "linux"
    arch: str = ""
    """As Go names it: amd64, arm64, …"""
    kernel_version: Annotated[str, OMIT] = ""
    experimental: Annotated[bool, OMIT] = False
    build_time: Annotated[str, OMIT] = ""


class PluginsInfo(Struct):
    """Names of what is built in or installed, by kind."""

    volume: list[str] = field(default_factory=list)
    network: list[str] = field(default_factory=list)
    authorization: list[str] | None = None
    log: list[str] = field(default_factory=list)


class IndexInfo(Struct):
    name: str
    mirrors: list[str] = field(default_factory=list)
    secure: bool = True
    official: bool = False


class RegistryServiceConfig(Struct):
    insecure_registry_cidrs: list[str] = field(name="InsecureRegistryCIDRs", default_factory=list)
    index_configs: dict[str, IndexInfo] = field(default_factory=dict)
    mirrors: list[str] | None = None


class Runtime(msgspec.Struct, kw_only=True, rename="camel"):
    path: Annotated[str, OMIT] = ""
    runtime_args: Annotated[list[str] | None, OMIT] = None
    status: Annotated[dict[str, str] | None, OMIT] = None


class Commit(Struct):
    id: str = field(name="ID", default="")


class PeerNode(Struct):
    node_id: str = field(name="NodeID")
    addr: str


class SwarmInfo(Struct):
    """Always that of a node outside any swarm."""

    node_id: str = field(name="NodeID", default="")
    node_addr: str = ""
    local_node_state: str = "inactive"
    control_available: bool = False
    error: str = ""
    remote_managers: list[PeerNode] | None = None


class NetworkAddressPool(Struct):
    base: str
    size: int


class FirewallInfo(Struct):
    driver: str = ""
    info: Annotated[list[list[str]] | None, OMIT] = None


class ContainerdNamespaces(Struct):
    containers: str = ""
    plugins: str = ""


class ContainerdInfo(Struct):
    address: Annotated[str, OMIT] = ""
    namespaces: ContainerdNamespaces = field(default_factory=ContainerdNamespaces)


class DeviceInfo(Struct):
    source: str
    id: str = field(name="ID")


class NRIInfo(Struct):
    info: Annotated[list[list[str]] | None, OMIT] = None


class SystemInfo(Struct):
    """What `docker info` prints. Booleans say what the kernel can do; `warnings` what it cannot."""

    id: str = field(name="ID", default="")
    containers: int = 0
    containers_running: int = 0
    containers_paused: int = 0
    containers_stopped: int = 0
    images: int = 0
    driver: str = ""
    driver_status: list[list[str]] = field(default_factory=list)
    """Pairs."""
    plugins: PluginsInfo = field(default_factory=PluginsInfo)
    memory_limit: bool = False
    swap_limit: bool = False
    kernel_memory_tcp: Annotated[bool, OMIT] = field(name="KernelMemoryTCP", default=False)
    cpu_cfs_period: bool = False
    cpu_cfs_quota: bool = False
    cpu_shares: bool = field(name="CPUShares", default=False)
    cpu_set: bool = field(name="CPUSet", default=False)
    pids_limit: bool = False
    ipv4_forwarding: bool = field(name="IPv4Forwarding", default=False)
    debug: bool = False
    n_fd: int = 0
    oom_kill_disable: bool = False
    n_goroutines: int = 0
    """Pier counts its asyncio tasks."""
    system_time: str = ""
    logging_driver: str = ""
    cgroup_driver: str = ""
    cgroup_version: Annotated[str, OMIT] = ""
    n_events_listener: int = 0
    kernel_version: str = ""
    operating_system: str = ""
    os_version: str = field(name="OSVersion", default="")
    os_type: str = field(name="OSType", default="linux")
    architecture: str = ""
    """As uname says it: x86_64, aarch64, …"""
    index_server_address: str = "https://index.docker.io/v1/"
    registry_config: RegistryServiceConfig | None = field(default_factory=RegistryServiceConfig)
    ncpu: int = field(name="NCPU", default=0)
    mem_total: int = 0
    """Bytes."""
    generic_resources: list[dict[str, Any]] | None = None
    docker_root_dir: str = ""
    http_proxy: str = ""
    https_proxy: str = ""
    no_proxy: str = ""
    name: str = ""
    labels: list[str] = field(default_factory=list)
    experimental_build: bool = False
    server_version: str = ""
    runtimes: dict[str, Runtime] = field(default_factory=dict)
    default_runtime: str = ""
    swarm: SwarmInfo = field(default_factory=SwarmInfo)
    live_restore_enabled: bool = False
    isolation: str = ""
    init_binary: str = ""
    containerd_commit: Commit = field(default_factory=Commit)
    runc_commit: Commit = field(default_factory=Commit)
    init_commit: Commit = field(default_factory=Commit)
    security_options: list[str] = field(default_factory=list)
    product_license: Annotated[str, OMIT] = ""
    default_address_pools: Annotated[list[NetworkAddressPool] | None, OMIT] = None
    firewall_backend: Annotated[FirewallInfo | None, OMIT] = None
    cdi_spec_dirs: list[str] = field(name="CDISpecDirs", default_factory=list)
    discovered_devices: Annotated[list[DeviceInfo] | None, OMIT] = None
    containerd: Annotated[ContainerdInfo | None, OMIT] = None
    nri: Annotated[NRIInfo | None, OMIT] = field(name="NRI", default=None)
    warnings: list[str] | None = None
