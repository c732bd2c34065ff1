"""Containers in the Engine API: what a client sends to make one, what it reads back, lists, statistics."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import field

from .health import HealthConfig
from .host_config import HostConfig, PortMap, Resources, RestartPolicy
from .image import DriverData, OCIDescriptor, Storage
from .network import NetworkingConfig, NetworkSettings, NetworkSettingsSummary
from .wire import OMIT, StrSlice, Struct

__all__ = [
    "BlkioStatEntry",
    "BlkioStats",
    "CPUStats",
    "CPUUsage",
    "CommitResponse",
    "ContainerConfig",
    "ContainerCreateRequest",
    "ContainerCreateResponse",
    "ContainerInspectResponse",
    "ContainerState",
    "ContainerStatsResponse",
    "ContainerSummary",
    "ContainerTopResponse",
    "ContainerUpdateRequest",
    "ContainerUpdateResponse",
    "ContainerWaitExitError",
    "ContainerWaitResponse",
    "ContainersPruneResponse",
    "EmptyObject",
    "FilesystemChange",
    "Health",
    "HealthConfig",
    "HealthSummary",
    "HealthcheckResult",
    "HostConfigSummary",
    "MemoryStats",
    "MountPoint",
    "NetworkStats",
    "PidsStats",
    "PortMap",
    "PortSummary",
    "StorageStats",
    "ThrottlingData",
]

EmptyObject = dict[str, Any]
"""Go's `struct{}`: the values of a set written as a map."""


class HealthcheckResult(Struct):
    """One probe; `start` and `end` are RFC 3339 with nanoseconds."""

    start: str = ""
    end: str = ""
    exit_code: int = 0
    output: str = ""


class Health(Struct):
    """`status`: none, starting, healthy or unhealthy; the last five probes."""

    status: str = "none"
    failing_streak: int = 0
    log: list[HealthcheckResult] | None = None


class HealthSummary(Struct):
    """As in the list of containers from API 1.52 on."""

    status: Annotated[str, OMIT] = ""
    failing_streak: int = 0


class ContainerConfig(Struct):
    """What a container has in common with the image it came from; nothing about the host."""

    hostname: str = ""
    domainname: str = ""
    user: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    exposed_ports: Annotated[dict[str, EmptyObject] | None, OMIT] = None
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    env: list[str] | None = None
    cmd: StrSlice | None = None
    healthcheck: Annotated[HealthConfig | None, OMIT] = None
    args_escaped: Annotated[bool, OMIT] = False
    """Windows only."""
    image: str = ""
    volumes: dict[str, EmptyObject] | None = None
    working_dir: str = ""
    entrypoint: StrSlice | None = None
    network_disabled: Annotated[bool, OMIT] = False
    on_build: list[str] | None = None
    labels: dict[str, str] | None = None
    stop_signal: Annotated[str, OMIT] = ""
    stop_timeout: Annotated[int | None, OMIT] = None
    """Seconds; None: the default of 10; -1: for ever."""
    shell: Annotated[StrSlice | None, OMIT] = None


class ContainerCreateRequest(ContainerConfig):
    """The body of POST /containers/create."""

    mac_address: Annotated[str, OMIT] = ""
    """Of API 1.43 and before: the address on the main network."""
    host_config: HostConfig = field(default_factory=HostConfig)
    networking_config: NetworkingConfig = field(default_factory=NetworkingConfig)

    def config(self) -> ContainerConfig:
        """The part that is the container's configuration."""
        names = ContainerConfig.__struct_fields__
        return ContainerConfig(**{name: getattr(self, name) for name in names})


class ContainerCreateResponse(Struct):
    id: str
    warnings: list[str] = field(default_factory=list)


class ContainerUpdateRequest(Resources):
    """The body of POST /containers/{id}/update: a zero leaves things as they are."""

    restart_policy: RestartPolicy = field(default_factory=RestartPolicy)
    publish_add: PortMap | None = None
    """Pier's own: ports to publish besides, as in HostConfig.PortBindings."""
    publish_rm: list[str] | None = None
    """Pier's own: ports to publish no more, `[address:]host port[:container port][/protocol]`."""


class ContainerUpdateResponse(Struct):
    warnings: list[str] | None = None


class FilesystemChange(Struct):
    """A path that a container changed; `kind`: 0 modified, 1 added, 2 deleted."""

    path: str
    kind: int


class ContainersPruneResponse(Struct):
    """What POST /containers/prune took away; bytes of writable layers."""

    containers_deleted: list[str] | None = None
    space_reclaimed: int = 0


class CommitResponse(Struct):
    """The new image."""

    id: str


class ContainerState(Struct):
    """`status`: created, running, paused, restarting, removing, exited or dead; times RFC 3339 with nanoseconds."""

    status: str = "created"
    running: bool = False
    paused: bool = False
    restarting: bool = False
    oom_killed: bool = field(name="OOMKilled", default=False)
    dead: bool = False
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    started_at: str = "0001-01-01T00:00:00Z"
    finished_at: str = "0001-01-01T00:00:00Z"
    health: Annotated[Health | None, OMIT] = None


class MountPoint(Struct):
    """A mount as the container sees it; `mode` is what the user wrote after the last colon."""

    type: Annotated[str, OMIT] = ""
    name: Annotated[str, OMIT] = ""
    source: str = ""
    destination: str = ""
    driver: Annotated[str, OMIT] = ""
    mode: str = ""
    rw: bool = field(name="RW", default=True)
    propagation: str = ""


class ContainerInspectResponse(Struct):
    """The answer of GET /containers/{id}/json."""

    id: str
    created: str
    path: str
    args: list[str]
    state: ContainerState
    image: str
    resolv_conf_path: str = ""
    hostname_path: str = ""
    hosts_path: str = ""
    log_path: str = ""
    name: str = ""
    """With a leading slash."""
    restart_count: int = 0
    driver: str = ""
    platform: str = "linux"
    mount_label: str = ""
    process_label: str = ""
    app_armor_profile: str = ""
    exec_ids: list[str] | None = field(name="ExecIDs", default=None)
    host_config: HostConfig = field(default_factory=HostConfig)
    graph_driver: Annotated[DriverData | None, OMIT] = None
    storage: Annotated[Storage | None, OMIT] = None
    size_rw: Annotated[int | None, OMIT] = None
    size_root_fs: Annotated[int | None, OMIT] = None
    mounts: list[MountPoint] = field(default_factory=list)
    config: ContainerConfig = field(default_factory=ContainerConfig)
    network_settings: NetworkSettings = field(default_factory=NetworkSettings)
    image_manifest_descriptor: Annotated[OCIDescriptor | None, OMIT] = None


class PortSummary(Struct):
    """A port as `docker ps` shows it; without `ip` and `public_port`: exposed and not published."""

    ip: Annotated[str, OMIT] = field(name="IP", default="")
    private_port: int = 0
    public_port: Annotated[int, OMIT] = 0
    type: str = "tcp"


class HostConfigSummary(Struct):
    network_mode: Annotated[str, OMIT] = ""
    annotations: Annotated[dict[str, str] | None, OMIT] = None


class ContainerSummary(Struct):
    """One line of GET /containers/json; `created` in seconds."""

    id: str
    names: list[str]
    image: str
    image_id: str = field(name="ImageID")
    command: str
    created: int
    ports: list[PortSummary] = field(default_factory=list)
    size_rw: Annotated[int, OMIT] = 0
    size_root_fs: Annotated[int, OMIT] = 0
    labels: dict[str, str] = field(default_factory=dict)
    state: str = "created"
    status: str = ""
    host_config: HostConfigSummary = field(default_factory=HostConfigSummary)
    network_settings: NetworkSettingsSummary = field(default_factory=NetworkSettingsSummary)
    mounts: list[MountPoint] = field(default_factory=list)
    health: Annotated[HealthSummary | None, OMIT] = None
    image_manifest_descriptor: Annotated[OCIDescriptor | None, OMIT] = None


class ContainerWaitExitError(Struct):
    message: Annotated[str, OMIT] = ""


class ContainerWaitResponse(Struct):
    """How the container ended; `error` says why waiting failed, not why the container did."""

    status_code: int
    error: Annotated[ContainerWaitExitError | None, OMIT] = None


class ContainerTopResponse(Struct):
    """`processes` is None where none was listed."""

    titles: list[str]
    processes: list[list[str]] | None


class _Stats(msgspec.Struct, kw_only=True):
    """Statistics keep their snake_case on the wire."""


class CPUUsage(_Stats):
    """Nanoseconds; `percpu_usage` is cgroup v1 only."""

    total_usage: int = 0
    percpu_usage: Annotated[list[int] | None, OMIT] = None
    usage_in_kernelmode: int = 0
    usage_in_usermode: int = 0


class ThrottlingData(_Stats):
    """`throttled_time` in nanoseconds."""

    periods: int = 0
    throttled_periods: int = 0
    throttled_time: int = 0


class CPUStats(_Stats):
    """`system_cpu_usage`: the host's busy and idle time of all CPUs, nanoseconds."""

    cpu_usage: CPUUsage = field(default_factory=CPUUsage)
    system_cpu_usage: Annotated[int, OMIT] = 0
    online_cpus: Annotated[int, OMIT] = 0
    throttling_data: ThrottlingData = field(default_factory=ThrottlingData)


class MemoryStats(_Stats):
    """Bytes; `stats` are the lines of the kernel's memory.stat."""

    usage: Annotated[int, OMIT] = 0
    max_usage: Annotated[int, OMIT] = 0
    stats: Annotated[dict[str, int] | None, OMIT] = None
    failcnt: Annotated[int, OMIT] = 0
    limit: Annotated[int, OMIT] = 0


class PidsStats(_Stats):
    """`limit` 0: none."""

    current: Annotated[int, OMIT] = 0
    limit: Annotated[int, OMIT] = 0


class BlkioStatEntry(_Stats):
    """One device and operation (`read`, `write`, …)."""

    major: int
    minor: int
    op: str
    value: int


class BlkioStats(_Stats):
    """An empty list: nothing counted yet. None: cgroup v2 does not count it."""

    io_service_bytes_recursive: list[BlkioStatEntry] | None = None
    io_serviced_recursive: list[BlkioStatEntry] | None = None
    io_queue_recursive: list[BlkioStatEntry] | None = None
    io_service_time_recursive: list[BlkioStatEntry] | None = None
    io_wait_time_recursive: list[BlkioStatEntry] | None = None
    io_merged_recursive: list[BlkioStatEntry] | None = None
    io_time_recursive: list[BlkioStatEntry] | None = None
    sectors_recursive: list[BlkioStatEntry] | None = None


class NetworkStats(_Stats):
    """One interface, from the container's point of view."""

    rx_bytes: int = 0
    rx_packets: int = 0
    rx_errors: int = 0
    rx_dropped: int = 0
    tx_bytes: int = 0
    tx_packets: int = 0
    tx_errors: int = 0
    tx_dropped: int = 0


class StorageStats(_Stats):
    """Windows only: always `{}` here."""


class ContainerStatsResponse(_Stats):
    """One reading of GET /containers/{id}/stats; `precpu_stats` is the reading before (zero with one-shot)."""

    name: Annotated[str, OMIT] = ""
    id: Annotated[str, OMIT] = ""
    read: str = "0001-01-01T00:00:00Z"
    preread: str = "0001-01-01T00:00:00Z"
    pids_stats: PidsStats = field(default_factory=PidsStats)
    blkio_stats: BlkioStats = field(default_factory=BlkioStats)
    num_procs: int = 0
    storage_stats: StorageStats = field(default_factory=StorageStats)
    cpu_stats: CPUStats = field(default_factory=CPUStats)
    precpu_stats: CPUStats = field(default_factory=CPUStats)
    memory_stats: MemoryStats = field(default_factory=MemoryStats)
    networks: Annotated[dict[str, NetworkStats] | None, OMIT] = None
