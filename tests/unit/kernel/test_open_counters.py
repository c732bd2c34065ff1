"""The counters of a cgroup that is read again and again, on files of the test's own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pier.kernel.cgroup_layout import Layout
from pier.kernel.cgroup_stats import CgroupStats, IOEntry, OpenCounters

V1 = {
    "cpuacct.usage_percpu": "5 6\n",
    "cpuacct.stat": "user 1\nsystem 2\n",
    "cpu.stat": "nr_periods 0\nnr_throttled 0\nthrottled_time 0\n",
    "memory.usage_in_bytes": "4096\n",
    "memory.max_usage_in_bytes": "8192\n",
    "memory.limit_in_bytes": "9223372036854771712\n",
    "memory.failcnt": "0\n",
    "memory.stat": "cache 1\nrss 2\n",
    "pids.current": "1\n",
    "pids.max": "max\n",
    "blkio.throttle.io_service_bytes_recursive": "8:0 Read 4096\nTotal 4096\n",
    "blkio.throttle.io_serviced_recursive": "Total 0\n",
}
V2 = {
    "cpu.stat": "usage_usec 11\nuser_usec 1\nsystem_usec 2\n",
    "memory.current": "4096\n",
    "memory.peak": "8192\n",
    "memory.max": "max\n",
    "memory.events": "low 0\noom 0\n",
    "memory.stat": "anon 1\nfile 2\n",
    "memory.swap.current": "0\n",
    "pids.current": "1\n",
    "pids.max": "max\n",
    "io.stat": "8:0 rbytes=4096 wbytes=0 rios=1 wios=0\n",
}
CONTROLLERS = ("cpu", "cpuacct", "memory", "pids", "blkio", "io")


class Group:
    def __init__(self, folder: Path, mode: str, files: dict[str, str]) -> None:
        self.folder = folder
        mount = str(folder.parent)
        layout = Layout(mode, dict.fromkeys(CONTROLLERS, mount), (mount,), mount if mode == "v2" else None)
        folder.mkdir()
        for name, text in files.items():
            self.write(name, text)
        self.counters = OpenCounters(layout, f"/{folder.name}")

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def collect(self) -> CgroupStats:
        return self.counters.collect()


@pytest.fixture(params=[("v1", V1), ("hybrid", V1), ("v2", V2)], ids=["v1", "hybrid", "v2"])
def group(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Group]:
    made = Group(tmp_path / "one", *request.param)
    before = set(os.listdir("/proc/self/fd"))
    yield made
    made.counters.close()
    assert set(os.listdir("/proc/self/fd")) <= before


def run(group: Group) -> None:
    """Have a process of the group use some time."""
    group.write("cpuacct.usage_percpu", "7 8\n")
    group.write("cpu.stat", "usage_usec 15\nnr_periods 1\n")


def test_all_is_counted(group: Group) -> None:
    found = group.collect()
    assert found.cpu_total_ns in (11, 11_000)
    assert (found.memory_usage, found.memory_max_usage, found.memory_limit) == (4096, 8192, None)
    assert (found.pids_current, found.pids_limit) == (1, None)
    assert [(one.op.lower(), one.value) for one in found.io_service_bytes if one.value] == [("read", 4096)]
    assert isinstance(found.io_service_bytes[0], IOEntry)


def test_what_has_not_changed_is_the_same_object(group: Group) -> None:
    found = group.collect()
    assert group.collect() is found
    run(group)
    again = group.collect()
    assert again is not found
    assert again.cpu_total_ns in (15, 15_000)


def test_what_only_its_processes_change_is_not_read_while_they_sleep(group: Group) -> None:
    group.collect()
    group.write("pids.current", "2\n")
    assert group.collect().pids_current == 1
    run(group)
    assert group.collect().pids_current == 2


def test_what_others_change_is_read(group: Group) -> None:
    group.collect()
    group.write("memory.usage_in_bytes", "77\n")
    group.write("memory.current", "77\n")
    group.write("pids.max", "78\n")
    found = group.collect()
    assert (found.memory_usage, found.pids_limit) == (77, 78)


def test_without_its_clock_everything_is_read(group: Group) -> None:
    for name in ("cpuacct.usage_percpu", "cpu.stat"):
        (group.folder / name).unlink(missing_ok=True)
    group.collect()
    group.write("pids.current", "2\n")
    assert group.collect().pids_current == 2
