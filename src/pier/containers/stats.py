"""What a container uses, as Docker's stats show it: its cgroup's counters, its network devices, the host's clock."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from typing import Any

from pier.containers.start import cgroup_of
from pier.containers.world import Container, World
from pier.kernel.cgroup_stats import CgroupStats, IOEntry
from pier.kernel.cgroups import Cgroup
from pier.model import wire
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

PERIOD_S = 1.0
NS_PER_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
HOST_CPU_FIELDS = 8
"""user nice system idle iowait irq softirq steal: guest time is in user already (proc_stat(5))."""
_UINT64_MAX = 2**64 - 1


async def stream(world: World, container: Container, *, stream: bool, one_shot: bool) -> AsyncIterator[dict[str, Any]]:
    """Readings as JSON objects: one a second, or one alone (after a second, for the rate, unless `one_shot`)."""
    before = ContainerStatsResponse()
    if not stream and not one_shot and container.record.state.pid:
        before = await reading(world, container)
        await asyncio.sleep(PERIOD_S)
    while True:
        now = await reading(world, container)
        now.preread, now.precpu_stats = before.read, before.cpu_stats
        yield wire.to_builtins(now)
        if not stream or container.id not in world.containers:
            return
        before = now
        await asyncio.sleep(PERIOD_S)


async def reading(world: World, container: Container) -> ContainerStatsResponse:
    """One reading without its predecessor; of a container that does not run only its name."""
    record = container.record
    if not record.state.pid:
        return ContainerStatsResponse(name=f"/{record.name}", id=record.id)
    cgroup = cgroup_of(world, container)
    return await asyncio.to_thread(_read, f"/{record.name}", record.id, cgroup, record.state.pid)


def _read(name: str, id: str, cgroup: Cgroup, pid: int) -> ContainerStatsResponse:
    counters = cgroup.stats()
    devices = _file(f"/proc/{pid}/net/dev") if _has_own_network(pid) else ""
    return response(
        counters,
        name=name,
        id=id,
        read_ns=time.time_ns(),
        host_cpu_ns=host_cpu_ns(_file("/proc/stat")),
        online_cpus=os.cpu_count() or 1,
        memory_total=total_memory(_file("/proc/meminfo")),
        networks=parse_net_dev(devices),
    )


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
    counters: CgroupStats,
    *,
    name: str,
    id: str,
    read_ns: int,
    host_cpu_ns: int,
    online_cpus: int,
    memory_total: int,
    networks: dict[str, NetworkStats],
) -> ContainerStatsResponse:
    """Docker's JSON from the counters; its shape differs between cgroup v1 and v2 as Docker's does. Pure."""
    v1 = counters.version == 1
    return ContainerStatsResponse(
        name=name,
        id=id,
        read=rfc3339_nano(read_ns),
        pids_stats=PidsStats(current=counters.pids_current, limit=counters.pids_limit or (0 if v1 else _UINT64_MAX)),
        blkio_stats=blkio(counters),
        cpu_stats=CPUStats(
            cpu_usage=CPUUsage(
                total_usage=counters.cpu_total_ns,
                percpu_usage=counters.cpu_percpu_ns or None,
                usage_in_kernelmode=counters.cpu_system_ns,
                usage_in_usermode=counters.cpu_user_ns,
            ),
            system_cpu_usage=host_cpu_ns,
            online_cpus=online_cpus,
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
            limit=min(counters.memory_limit or memory_total, memory_total),
        ),
        networks=networks or None,
    )


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
