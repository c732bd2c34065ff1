"""What a container uses, as Docker's stats show it: its cgroup's counters, its network devices, the host's clock."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

import msgspec

from pier.kernel.cgroup_files import read_again
from pier.kernel.cgroup_stats import NS_PER_TICK, CgroupStats, IOEntry, OpenCounters
from pier.kernel.cgroups import Cgroup
from pier.model.container import (
    BlkioStatEntry,
    BlkioStats,
    ContainerStatsResponse,
    CPUStats,
    CPUUsage,
    MemoryStats,
    NetworkStats,
    PidsStats,
    ThrottlingData,
)
from pier.model.time import rfc3339_nano

HOST_CPU_FIELDS = 8
"""user nice system idle iowait irq softirq steal: guest time is in user already (proc_stat(5))."""
_UINT64_MAX = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Host:
    """The machine's figures at the time of a reading."""

    time: str
    cpu_ns: int
    cpus: int
    memory: int

    @classmethod
    def now(cls) -> Host:
        return cls(
            rfc3339_nano(time.time_ns()),
            host_cpu_ns(_file("/proc/stat")),
            os.cpu_count() or 1,
            total_memory(_file("/proc/meminfo")),
        )


class Reader:
    """Reads one run of a container, again and again from files held open. Blocking; for one thread at a time."""

    def __init__(self, id: str, cgroup: Cgroup, pid: int) -> None:
        self.pid = pid
        self._id = id
        self._counters = OpenCounters(cgroup.layout, cgroup.path)
        self._devices: int | None = None
        self._devices_opened = False
        self._latest: tuple[CgroupStats, str, ContainerStatsResponse] | None = None
        """What was read and what became of it."""

    def read(self, name: str, host: Host) -> ContainerStatsResponse:
        """A reading without its predecessor; zeros once the run has ended. Raises OSError (EMFILE)."""
        if not self._devices_opened:
            self._devices_opened = True
            self._devices = _open_devices(self.pid)
        counters = self._counters.collect()
        devices = read_again(self._devices) if self._devices is not None else ""
        if self._latest is None or self._latest[0] is not counters or self._latest[1] != devices:
            found = response(counters, id=self._id, host=host, networks=parse_net_dev(devices))
            self._latest = counters, devices, found
        return at(host, self._latest[2], name=f"/{name}")

    def close(self) -> None:
        self._counters.close()
        if self._devices is not None:
            os.close(self._devices)
            self._devices = None


def _open_devices(pid: int) -> int | None:
    """The counters of a process's network devices; None where they are the host's, or it has just ended."""
    try:
        if not _has_own_network(pid):
            return None
        return os.open(f"/proc/{pid}/net/dev", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None


def _has_own_network(pid: int) -> bool:
    """Not the host's, be it by `--network host` or by joining a container that has it."""
    try:
        return os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/self/ns/net")
    except OSError:
        return False


def _file(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError:  # the process has just ended
        return ""


def response(
    counters: CgroupStats, *, id: str, host: Host, networks: dict[str, NetworkStats]
) -> ContainerStatsResponse:
    """Docker's JSON from the counters; its shape differs between cgroup v1 and v2 as Docker's does. Pure."""
    v1 = counters.version == 1
    return ContainerStatsResponse(
        id=id,
        pids_stats=PidsStats(current=counters.pids_current, limit=counters.pids_limit or (0 if v1 else _UINT64_MAX)),
        blkio_stats=blkio(counters),
        cpu_stats=CPUStats(
            cpu_usage=CPUUsage(
                total_usage=counters.cpu_total_ns,
                percpu_usage=counters.cpu_percpu_ns or None,
                usage_in_kernelmode=counters.cpu_system_ns,
                usage_in_usermode=counters.cpu_user_ns,
            ),
            throttling_data=ThrottlingData(
                periods=counters.cpu_periods,
                throttled_periods=counters.cpu_throttled_periods,
                throttled_time=counters.cpu_throttled_ns,
            ),
        ),
        memory_stats=MemoryStats(
            usage=counters.memory_usage,
            max_usage=counters.memory_max_usage if v1 else 0,
            stats=counters.memory_stat,
            failcnt=counters.memory_failcnt,
            limit=min(counters.memory_limit or host.memory, host.memory),
        ),
        networks=networks or None,
    )


def at(host: Host, found: ContainerStatsResponse, *, name: str) -> ContainerStatsResponse:
    """A reading of its own, made at that time, of counters that say what they said before. Pure; shares its parts."""
    cpu = msgspec.structs.replace(found.cpu_stats, system_cpu_usage=host.cpu_ns, online_cpus=host.cpus)
    return msgspec.structs.replace(found, name=name, read=host.time, cpu_stats=cpu)


def blkio(counters: CgroupStats) -> BlkioStats:
    """v1 has a list for each figure, empty ones included; v2 counts bytes and operations only."""
    if counters.version == 2:
        return BlkioStats(
            io_service_bytes_recursive=_entries(counters.io_service_bytes),
            io_serviced_recursive=_entries(counters.io_serviced),
        )
    return BlkioStats(
        io_service_bytes_recursive=_entries(counters.io_service_bytes),
        io_serviced_recursive=_entries(counters.io_serviced),
        io_queue_recursive=[],
        io_service_time_recursive=[],
        io_wait_time_recursive=[],
        io_merged_recursive=[],
        io_time_recursive=[],
        sectors_recursive=[],
    )


def _entries(counts: list[IOEntry]) -> list[BlkioStatEntry]:
    return [BlkioStatEntry(major=c.major, minor=c.minor, op=c.op.lower(), value=c.value) for c in counts]


def host_cpu_ns(proc_stat: str) -> int:
    """All time of all CPUs, idle time included, from /proc/stat's first line."""
    words = proc_stat.partition("\n")[0].split()
    return sum(int(word) for word in words[1 : 1 + HOST_CPU_FIELDS]) * NS_PER_TICK


def total_memory(meminfo: str) -> int:
    """Bytes of the machine's memory."""
    for line in meminfo.splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return 0


def parse_net_dev(text: str) -> dict[str, NetworkStats]:
    """Interface -> counters, loopback left out (proc_net(5))."""
    found = {}
    for line in text.splitlines():
        name, colon, rest = line.partition(":")
        words = rest.split()
        if not colon or len(words) < 16 or name.strip() == "lo":
            continue
        numbers = [int(word) for word in words]
        found[name.strip()] = NetworkStats(
            rx_bytes=numbers[0],
            rx_packets=numbers[1],
            rx_errors=numbers[2],
            rx_dropped=numbers[3],
            tx_bytes=numbers[8],
            tx_packets=numbers[9],
            tx_errors=numbers[10],
            tx_dropped=numbers[11],
        )
    return found
