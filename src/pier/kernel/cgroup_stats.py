"""What a cgroup has used, as Docker's stats need it: one struct, and a reader each for v1's and v2's files.

A file that is missing (a controller that is off, an old kernel) leaves its fields at zero.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from pier.kernel.cgroup_files import flat, read_again
from pier.kernel.cgroup_layout import Layout

_UNLIMITED_V1 = 1 << 62
"""v1 shows "no limit" as the largest multiple of the page size below 2**63; any value this large means that."""
NS_PER_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


class IOEntry(NamedTuple):
    """One count of one device."""

    major: int
    minor: int
    op: str
    """`Read`, `Write`, `Sync`, `Async`, `Discard`, `Total` on v1; `read`, `write`, `discard` on v2."""
    value: int


@dataclass(slots=True)
class CgroupStats:
    """Counters since the cgroup was made; times in nanoseconds, memory in bytes."""

    version: int
    """1 or 2: whose names the keys of `memory_stat` and the `op`s of I/O entries are."""
    cpu_total_ns: int = 0
    cpu_user_ns: int = 0
    cpu_system_ns: int = 0
    cpu_percpu_ns: list[int] = field(default_factory=list)
    """v1 only."""
    cpu_periods: int = 0
    cpu_throttled_periods: int = 0
    cpu_throttled_ns: int = 0
    memory_usage: int = 0
    memory_max_usage: int = 0
    """v1; `memory.peak` on v2 since Linux 5.19."""
    memory_limit: int | None = None
    """None: no limit but the machine's."""
    memory_failcnt: int = 0
    memory_stat: dict[str, int] = field(default_factory=dict)
    """`memory.stat` as it is."""
    swap_usage: int = 0
    pids_current: int = 0
    pids_limit: int | None = None
    io_service_bytes: list[IOEntry] = field(default_factory=list)
    io_serviced: list[IOEntry] = field(default_factory=list)


Read = Callable[[str, str], str]
"""(controller, file) -> text; empty where there is none."""


def mount_of(layout: Layout, controller: str) -> str | None:
    """Where a controller's files are (`cgroup`: v2's own); None where there are none."""
    mount = layout.controllers.get(controller)
    if mount is None and (controller == "cgroup" or (controller == "cpu" and layout.mode == "v2")):
        return layout.unified  # cpu.stat is there without the controller
    return mount


def collect(layout: Layout, read: Read) -> CgroupStats:
    """What a cgroup has used. Zeros when it is gone."""
    version = layout.version
    stats = CgroupStats(2 if layout.mode == "v2" else 1)
    (read_v2_cpu if version("cpu") == 2 else read_v1_cpu)(stats, read)
    (read_v2_memory if version("memory") == 2 else read_v1_memory)(stats, read)
    (read_v2_io if version("blkio") == 2 else read_v1_io)(stats, read)
    read_pids(stats, read)
    return stats


CLOCKS = {1: "cpuacct.usage_percpu", 2: "cpu.stat"}
"""By version: what stands still while none of a cgroup's processes runs."""
ASLEEP = {
    1: frozenset(
        {"cpuacct.usage_percpu", "cpuacct.stat", "cpu.stat", "memory.max_usage_in_bytes", "memory.failcnt"}
        | {"pids.current", "blkio.throttle.io_service_bytes_recursive", "blkio.throttle.io_serviced_recursive"}
    ),
    2: frozenset({"cpu.stat", "memory.peak", "memory.events", "pids.current"}),
}
"""What stands still with it. Limits are others' to change and memory others' to reclaim; what was written goes out
later, which on v1 is not counted as the cgroup's."""


class OpenCounters:
    """The counters of one cgroup, for who reads them again and again.

    Its files stay open (some thirteen on v1). What cannot have changed is not read again, and what has not changed not
    taken apart again.
    """

    def __init__(self, layout: Layout, path: str) -> None:
        self._layout, self._path = layout, path
        version = layout.version("cpu")
        self._clock, self._asleep = CLOCKS[version], ASLEEP[version]
        self._fds: dict[str, int] = {}
        self._missing: set[str] = set()
        self._texts: dict[str, str] = {}
        """What is behind `_fds`."""
        self._latest: CgroupStats | None = None

    def collect(self) -> CgroupStats:
        """As `Cgroup.stats`; the same object as the last time where nothing has changed. Raises OSError (EMFILE)."""
        as_before = self._asleep if self._has_slept() else frozenset()
        texts = {file: self._texts[file] if file in as_before else read_again(fd) for file, fd in self._fds.items()}
        if self._latest is None or texts != self._texts:
            self._texts = texts
            self._latest = collect(self._layout, self._text)
        return self._latest

    def _has_slept(self) -> bool:
        """Whether no process of the cgroup has run since the last time."""
        if self._clock not in self._fds:
            return False
        text = read_again(self._fds[self._clock])
        return text != "" and text == self._texts[self._clock]

    def _text(self, controller: str, file: str) -> str:
        """Of a file of this round, opened and read where it is the first one."""
        if file not in self._fds and file not in self._missing:
            fd = self._open(controller, file)
            if fd is None:
                self._missing.add(file)
            else:
                self._fds[file], self._texts[file] = fd, read_again(fd)
        return self._texts.get(file, "")

    def _open(self, controller: str, file: str) -> int | None:
        mount = mount_of(self._layout, controller)
        if mount is None:
            return None
        try:
            return os.open(f"{mount}{self._path}/{file}", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None

    def close(self) -> None:
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()


def read_v1_cpu(stats: CgroupStats, read: Read) -> None:
    stats.cpu_percpu_ns = [int(word) for word in read("cpuacct", "cpuacct.usage_percpu").split()]
    stats.cpu_total_ns = sum(stats.cpu_percpu_ns)  # which is what cpuacct.usage says
    ticks = flat(read("cpuacct", "cpuacct.stat"))
    stats.cpu_user_ns = ticks.get("user", 0) * NS_PER_TICK
    stats.cpu_system_ns = ticks.get("system", 0) * NS_PER_TICK
    throttling = flat(read("cpu", "cpu.stat"))
    stats.cpu_periods = throttling.get("nr_periods", 0)
    stats.cpu_throttled_periods = throttling.get("nr_throttled", 0)
    stats.cpu_throttled_ns = throttling.get("throttled_time", 0)


def read_v2_cpu(stats: CgroupStats, read: Read) -> None:
    usage = flat(read("cpu", "cpu.stat"))
    stats.cpu_total_ns = usage.get("usage_usec", 0) * 1000
    stats.cpu_user_ns = usage.get("user_usec", 0) * 1000
    stats.cpu_system_ns = usage.get("system_usec", 0) * 1000
    stats.cpu_periods = usage.get("nr_periods", 0)
    stats.cpu_throttled_periods = usage.get("nr_throttled", 0)
    stats.cpu_throttled_ns = usage.get("throttled_usec", 0) * 1000


def read_v1_memory(stats: CgroupStats, read: Read) -> None:
    stats.memory_usage = number(read("memory", "memory.usage_in_bytes"))
    stats.memory_max_usage = number(read("memory", "memory.max_usage_in_bytes"))
    limit = number(read("memory", "memory.limit_in_bytes"))
    stats.memory_limit = limit if 0 < limit < _UNLIMITED_V1 else None
    stats.memory_failcnt = number(read("memory", "memory.failcnt"))
    stats.memory_stat = flat(read("memory", "memory.stat"))
    stats.swap_usage = stats.memory_stat.get("total_swap", 0)


def read_v2_memory(stats: CgroupStats, read: Read) -> None:
    stats.memory_usage = number(read("memory", "memory.current"))
    stats.memory_max_usage = number(read("memory", "memory.peak"))
    stats.memory_limit = limit(read("memory", "memory.max"))
    stats.memory_failcnt = flat(read("memory", "memory.events")).get("oom", 0)
    stats.memory_stat = flat(read("memory", "memory.stat"))
    stats.swap_usage = number(read("memory", "memory.swap.current"))


def read_pids(stats: CgroupStats, read: Read) -> None:
    stats.pids_current = number(read("pids", "pids.current"))
    stats.pids_limit = limit(read("pids", "pids.max"))


def read_v1_io(stats: CgroupStats, read: Read) -> None:
    # The throttling layer counts whichever scheduler the device has.
    stats.io_service_bytes = v1_entries(read("blkio", "blkio.throttle.io_service_bytes_recursive"))
    stats.io_serviced = v1_entries(read("blkio", "blkio.throttle.io_serviced_recursive"))


def read_v2_io(stats: CgroupStats, read: Read) -> None:
    text = read("io", "io.stat")
    stats.io_service_bytes = v2_entries(text, {"rbytes": "read", "wbytes": "write", "dbytes": "discard"})
    stats.io_serviced = v2_entries(text, {"rios": "read", "wios": "write", "dios": "discard"})


def number(text: str) -> int:
    """A file of one number; 0 for an empty one."""
    return int(text) if text else 0


def limit(text: str) -> int | None:
    """A file of one limit; None for `max` and for an empty one."""
    stripped = text.strip()
    return None if stripped in {"", "max"} else int(stripped)


def v1_entries(text: str) -> list[IOEntry]:
    """v1's `8:0 Read 4096` lines; the last, `Total 4096`, is the sum of all and is left out."""
    entries = []
    for line in text.splitlines():
        device, _, rest = line.partition(" ")
        op, _, value = rest.partition(" ")
        major, colon, minor = device.partition(":")
        if colon and value:
            entries.append(IOEntry(int(major), int(minor), op, int(value)))
    return entries


def v2_entries(text: str, ops: dict[str, str]) -> list[IOEntry]:
    """v2's `8:0 rbytes=4096 wbytes=0 …` lines, only the keys of `ops`, under the names that it gives them."""
    entries = []
    for line in text.splitlines():
        device, _, rest = line.partition(" ")
        major, _, minor = device.partition(":")
        values = dict(pair.partition("=")[::2] for pair in rest.split())
        entries += [IOEntry(int(major), int(minor), op, int(values[key])) for key, op in ops.items() if key in values]
    return entries
