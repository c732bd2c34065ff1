"""This machine as `docker info` describes it: kernel, distribution, processors, memory, and what can be limited."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable
from dataclasses import dataclass

from pier.kernel.cgroups import Layout
from pier.kernel.mounts import filesystem_type

GO_ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "i686": "386",
    "ppc64le": "ppc64le",
    "riscv64": "riscv64",
    "s390x": "s390x",
    "loongarch64": "loong64",
}
CONTAINERIZED = ("/.dockerenv", "/run/.containerenv")


@dataclass(frozen=True, slots=True)
class Limits:
    """What the cgroups of this machine can limit; the names are those of `GET /info`."""

    memory_limit: bool
    swap_limit: bool
    kernel_memory_tcp: bool
    cpu_cfs_period: bool
    cpu_cfs_quota: bool
    cpu_shares: bool
    cpu_set: bool
    pids_limit: bool
    oom_kill_disable: bool
    blkio_weight: bool
    blkio_throttle: bool

    def warnings(self, mode: str) -> list[str]:
        """Docker's lines for what is missing; on cgroup v2 some of it does not exist and is not missed."""
        lines = (
            (self.memory_limit, "No memory limit support"),
            (self.swap_limit, "No swap limit support"),
            (self.cpu_cfs_quota, "No cpu cfs quota support"),
            (self.cpu_shares, "No cpu shares support"),
            (self.cpu_set, "No cpuset support"),
            (self.pids_limit, "No pids limit support"),
            (self.oom_kill_disable or mode == "v2", "No oom kill disable support"),
            (self.blkio_throttle or mode == "v2", "No blkio throttle.read_bps_device support"),
            (self.blkio_throttle or mode == "v2", "No blkio throttle.write_bps_device support"),
            (self.blkio_throttle or mode != "v2", "No io.max (rbps) support"),
            (self.blkio_throttle or mode != "v2", "No io.max (wbps) support"),
        )
        return [f"WARNING: {text}" for is_there, text in lines if not is_there]


def limits(layout: Layout, exists: Callable[[str], bool] = os.path.exists) -> Limits:
    """What can be limited, from the controllers and (v1) the files at their roots."""

    def has(controller: str, file: str) -> bool:
        name = "io" if controller == "blkio" and layout.version("blkio") == 2 else controller
        mount = layout.controllers.get(name)
        if mount is None:
            return False
        return layout.version(controller) == 2 or exists(f"{mount}/{file}")

    v1_memory = layout.version("memory") == 1
    return Limits(
        memory_limit=has("memory", "memory.limit_in_bytes"),
        swap_limit=has("memory", "memory.memsw.limit_in_bytes"),
        kernel_memory_tcp=v1_memory and has("memory", "memory.kmem.tcp.limit_in_bytes"),
        cpu_cfs_period=has("cpu", "cpu.cfs_period_us"),
        cpu_cfs_quota=has("cpu", "cpu.cfs_quota_us"),
        cpu_shares=has("cpu", "cpu.shares"),
        cpu_set=has("cpuset", "cpuset.cpus"),
        pids_limit=has("pids", ""),
        oom_kill_disable=v1_memory and has("memory", "memory.oom_control"),
        blkio_weight=has("blkio", "blkio.weight"),
        blkio_throttle=has("blkio", "blkio.throttle.read_bps_device"),
    )


@dataclass(frozen=True, slots=True)
class Host:
    """What does not change while the daemon runs."""

    name: str
    kernel_version: str
    """As `uname -r`."""
    operating_system: str
    """`PRETTY_NAME` of os-release(5)."""
    os_version: str
    """`VERSION_ID` of os-release(5)."""
    machine: str
    """As `uname -m`."""
    cpus: int
    memory_bytes: int

    @property
    def architecture(self) -> str:
        """As Go names it: amd64, arm64, …"""
        return GO_ARCHITECTURES.get(self.machine, self.machine)

    @property
    def kernel(self) -> tuple[int, int]:
        """(major, minor)."""
        return parse_kernel(self.kernel_version)


def parse_kernel(release: str) -> tuple[int, int]:
    """`6.1.0-18-amd64` -> (6, 1); (0, 0) for what is no kernel release."""
    found = re.match(r"(\d+)\.(\d+)", release, re.ASCII)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def parse_memory(meminfo: str) -> int:
    """MemTotal of /proc/meminfo, in bytes; 0 when it is not there."""
    found = re.search(r"^MemTotal:\s+(\d+) kB$", meminfo, re.MULTILINE | re.ASCII)
    return int(found[1]) * 1024 if found else 0


def look() -> Host:
    """Read this machine."""
    uname = os.uname()
    with open("/proc/meminfo", encoding="ascii") as file:
        memory_bytes = parse_memory(file.read())
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        release = {}
    system = release.get("PRETTY_NAME", uname.sysname)
    if any(map(os.path.exists, CONTAINERIZED)):
        system += " (containerized)"
    return Host(
        name=uname.nodename,
        kernel_version=uname.release,
        operating_system=system,
        os_version=release.get("VERSION_ID", ""),
        machine=uname.machine,
        cpus=len(os.sched_getaffinity(0)),
        memory_bytes=memory_bytes,
    )


def filesystem_name(path: str) -> str:
    """What `docker info` calls the file system that `path` is on."""
    kind = filesystem_type(path)
    return "extfs" if kind in ("ext2", "ext3", "ext4") else kind or "<unknown>"
