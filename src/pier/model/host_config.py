"""What a container takes from its host (Engine API: HostConfig, Resources, Mount, …). Zero values are Docker's.

A list or map that is None was not given; Docker tells that from an empty one when it shows it.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, field

from .network import PortBinding, PortMap
from .wire import OMIT, Struct

__all__ = [
    "BindOptions",
    "DeviceMapping",
    "DeviceRequest",
    "Driver",
    "HostConfig",
    "ImageOptions",
    "LogConfig",
    "Mount",
    "PortBinding",
    "PortMap",
    "Resources",
    "RestartPolicy",
    "ThrottleDevice",
    "TmpfsOptions",
    "Ulimit",
    "VolumeOptions",
    "WeightDevice",
]

Uint16 = Annotated[int, Meta(ge=0, le=65535)]
Uint = Annotated[int, Meta(ge=0)]


class LogConfig(Struct):
    """The log driver and its options; an empty type is the daemon's default."""

    type: str = ""
    config: dict[str, str] | None = None


class RestartPolicy(Struct):
    """`name`: empty, no, always, unless-stopped or on-failure (with a bound on tries, 0: none)."""

    name: str = ""
    maximum_retry_count: int = 0


class ThrottleDevice(Struct):
    """A limit in bytes or operations per second on one block device."""

    path: str = ""
    rate: Uint = 0


class WeightDevice(Struct):
    """A block I/O weight, 10 to 1000, on one device."""

    path: str = ""
    weight: Uint16 = 0


class DeviceMapping(Struct):
    """A device node of the host put into the container; `cgroup_permissions` are letters of `rwm`."""

    path_on_host: str = ""
    path_in_container: str = ""
    cgroup_permissions: str = ""


class DeviceRequest(Struct):
    """Devices asked of a device driver (GPUs, CDI). `count` -1 is all."""

    driver: str = ""
    count: int = 0
    device_ids: list[str] | None = field(name="DeviceIDs", default=None)
    capabilities: list[list[str]] | None = None
    options: dict[str, str] | None = None


class Ulimit(Struct):
    """A resource limit by its short name (`nofile`); -1 is unlimited."""

    name: str = ""
    hard: int = 0
    soft: int = 0


class BindOptions(Struct):
    propagation: Annotated[str, OMIT] = ""
    non_recursive: Annotated[bool, OMIT] = False
    create_mountpoint: Annotated[bool, OMIT] = False
    read_only_non_recursive: Annotated[bool, OMIT] = False
    read_only_force_recursive: Annotated[bool, OMIT] = False
    id_map: Annotated[str, OMIT] = ""
    """Beyond Docker: `true`, or a map as behind `idmap=` of `-v`."""


class Driver(Struct):
    """A driver by name with its options."""

    name: Annotated[str, OMIT] = ""
    options: Annotated[dict[str, str] | None, OMIT] = None


class VolumeOptions(Struct):
    no_copy: Annotated[bool, OMIT] = False
    labels: Annotated[dict[str, str] | None, OMIT] = None
    subpath: Annotated[str, OMIT] = ""
    driver_config: Annotated[Driver | None, OMIT] = None


class ImageOptions(Struct):
    subpath: Annotated[str, OMIT] = ""


class TmpfsOptions(Struct):
    """`mode` is the number, not its octal digits; `options` are one- or two-element lists."""

    size_bytes: Annotated[int, OMIT] = 0
    mode: Annotated[Uint, OMIT] = 0
    options: Annotated[list[list[str]] | None, OMIT] = None


class Mount(Struct):
    """One `--mount`. `type` is bind, volume, tmpfs, image, cluster or npipe."""

    type: Annotated[str, OMIT] = ""
    source: Annotated[str, OMIT] = ""
    target: Annotated[str, OMIT] = ""
    read_only: Annotated[bool, OMIT] = False
    consistency: Annotated[str, OMIT] = ""
    bind_options: Annotated[BindOptions | None, OMIT] = None
    volume_options: Annotated[VolumeOptions | None, OMIT] = None
    image_options: Annotated[ImageOptions | None, OMIT] = None
    tmpfs_options: Annotated[TmpfsOptions | None, OMIT] = None


class Resources(Struct):
    """Limits and devices: what `docker update` may change too. Memory in bytes, cpu times in µs, 0: no limit."""

    cpu_shares: int = 0
    memory: int = 0
    nano_cpus: int = 0
    """1e-9 CPUs."""
    cgroup_parent: str = ""
    blkio_weight: Uint16 = 0
    blkio_weight_device: list[WeightDevice] | None = None
    blkio_device_read_bps: list[ThrottleDevice] | None = None
    blkio_device_write_bps: list[ThrottleDevice] | None = None
    blkio_device_read_iops: list[ThrottleDevice] | None = field(name="BlkioDeviceReadIOps", default=None)
    blkio_device_write_iops: list[ThrottleDevice] | None = field(name="BlkioDeviceWriteIOps", default=None)
    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_realtime_period: int = 0
    cpu_realtime_runtime: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    devices: list[DeviceMapping] | None = None
    device_cgroup_rules: list[str] | None = None
    device_requests: list[DeviceRequest] | None = None
    kernel_memory: Annotated[int, OMIT] = 0
    """Of API 1.41 and before."""
    kernel_memory_tcp: Annotated[int, OMIT] = field(name="KernelMemoryTCP", default=0)
    memory_reservation: int = 0
    memory_swap: int = 0
    """Memory and swap together; -1: unlimited swap."""
    memory_swappiness: int | None = None
    """0 to 100; None or -1: the kernel's default."""
    oom_kill_disable: bool | None = None
    pids_limit: int | None = None
    """None, 0 or -1: unlimited."""
    ulimits: list[Ulimit] | None = None
    cpu_count: int = 0
    """Windows only, as the three that follow."""
    cpu_percent: int = 0
    io_maximum_iops: int = field(name="IOMaximumIOps", default=0)
    io_maximum_bandwidth: int = field(name="IOMaximumBandwidth", default=0)


class HostConfig(Resources):
    """Everything of `docker run` that is not part of the image's own configuration."""

    binds: list[str] | None = None
    container_id_file: str = field(name="ContainerIDFile", default="")
    log_config: LogConfig = field(default_factory=LogConfig)
    network_mode: str = ""
    port_bindings: PortMap | None = None
    restart_policy: RestartPolicy = field(default_factory=RestartPolicy)
    auto_remove: bool = False
    volume_driver: str = ""
    volumes_from: list[str] | None = None
    console_size: list[int] = field(default_factory=lambda: [0, 0])
    """Height, width."""
    annotations: Annotated[dict[str, str] | None, OMIT] = None
    cap_add: list[str] | None = None
    cap_drop: list[str] | None = None
    cgroupns_mode: str = ""
    dns: list[str] | None = None
    dns_options: list[str] | None = None
    dns_search: list[str] | None = None
    extra_hosts: list[str] | None = None
    group_add: list[str] | None = None
    ipc_mode: str = ""
    cgroup: str = ""
    links: list[str] | None = None
    oom_score_adj: int = 0
    pid_mode: str = ""
    privileged: bool = False
    publish_all_ports: bool = False
    readonly_rootfs: bool = False
    security_opt: list[str] | None = None
    storage_opt: Annotated[dict[str, str] | None, OMIT] = None
    tmpfs: Annotated[dict[str, str] | None, OMIT] = None
    """Path in the container -> mount options."""
    uts_mode: str = field(name="UTSMode", default="")
    userns_mode: str = ""
    shm_size: int = 0
    """Bytes of /dev/shm; 0: the daemon's default."""
    sysctls: Annotated[dict[str, str] | None, OMIT] = None
    runtime: str = ""
    isolation: str = ""
    mounts: Annotated[list[Mount] | None, OMIT] = None
    masked_paths: list[str] | None = None
    """None: the default set; empty: nothing is masked."""
    readonly_paths: list[str] | None = None
    init: Annotated[bool | None, OMIT] = None
