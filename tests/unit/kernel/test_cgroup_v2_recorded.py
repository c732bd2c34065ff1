"""Layout, plan and stats on a container's cgroup as Linux 6.1 showed it (tests/vm/guest/test_recording.py)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pier.kernel.cgroup_layout import Layout, parse
from pier.kernel.cgroup_plan import plan
from pier.kernel.cgroup_stats import IOEntry
from pier.kernel.cgroups import Cgroup, lost

MIB = 1 << 20
RECORDING = json.loads((Path(__file__).parents[2] / "fixtures/cgroup_v2_linux_6_1.json").read_text())
LEAF: dict[str, str | None] = RECORDING["leaf"]
LAYOUT = parse(RECORDING["mountinfo"], "/sys/fs/cgroup", RECORDING["controllers"])

EVERYTHING: dict[str, Any] = {
    "memory": {"limit": 64 * MIB, "swap": 96 * MIB, "reservation": 32 * MIB},
    "cpu": {"shares": 512, "quota": 50_000, "period": 100_000, "burst": 1, "idle": 0, "cpus": "0", "mems": "0"},
    "pids": {"limit": 20},
    "blockIO": {
        "weight": 500,
        "weightDevice": [{"major": 254, "minor": 0, "weight": 100}],
        "throttleReadBpsDevice": [{"major": 254, "minor": 0, "rate": MIB}],
        "throttleWriteIOPSDevice": [{"major": 254, "minor": 0, "rate": 10}],
    },
    "hugepageLimits": [{"pageSize": "2MB", "limit": 0}, {"pageSize": "1GB", "limit": 0}],
    "rdma": {"mlx5_1": {"hcaHandles": 3}},
    "unified": {"memory.high": "max", "memory.oom.group": "1", "misc.max": "sev 1"},
}


@pytest.fixture
def group(tmp_path: Path) -> Cgroup:
    """The recorded cgroup's files in a folder."""
    leaf = tmp_path / "pier/one"
    leaf.mkdir(parents=True)
    for name, text in LEAF.items():
        (leaf / name).write_text(text or "")
    root = str(tmp_path)
    return Cgroup(Layout("v2", dict.fromkeys(LAYOUT.controllers, root), (root,), root), "/pier/one")


def test_layout() -> None:
    assert (LAYOUT.mode, LAYOUT.number, LAYOUT.hierarchies) == ("v2", "2", ("/sys/fs/cgroup",))
    assert set(LAYOUT.controllers) == {"cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma", "misc"}
    assert LAYOUT.version("blkio") == 2
    assert LAYOUT.v1_options == ()


def test_every_planned_file_is_there() -> None:
    missing = {write.file for write in plan(EVERYTHING, LAYOUT)} - LEAF.keys()
    assert missing == {"io.bfq.weight"}, "and for that there is io.weight"


def test_only_what_v2_dropped_is_lost() -> None:
    assert lost(EVERYTHING, LAYOUT, LEAF.keys()) == []
    v1_only = {"memory": {"limit": MIB, "swappiness": 60, "disableOOMKiller": True}, "cpu": {"realtimeRuntime": 1}}
    assert [warning.rpartition(". ")[2] for warning in lost(v1_only, LAYOUT, LEAF.keys())] == [
        "OomKillDisable discarded.",
        "Memory swappiness discarded.",
        "CPU realtime period/runtime discarded.",
    ]


def test_apply_writes_and_warns_of_nothing(group: Cgroup, tmp_path: Path) -> None:
    assert group.apply(EVERYTHING) == []
    leaf = tmp_path / "pier/one"
    assert (leaf / "memory.swap.max").read_text().startswith(str(32 * MIB))
    assert (leaf / "rdma.max").read_text() == "mlx5_1 hca_handle=3"
    assert (leaf / "memory.oom.group").read_text().startswith("1")


def test_stats(group: Cgroup) -> None:
    def number(name: str) -> int:
        return int(LEAF[name] or 0)

    stats = group.stats()
    assert stats.version == 2
    assert (stats.memory_usage, stats.memory_max_usage) == (number("memory.current"), number("memory.peak"))
    assert (stats.memory_limit, stats.swap_usage) == (64 * MIB, 0)
    assert (stats.pids_current, stats.pids_limit) == (number("pids.current"), 20)
    assert stats.cpu_total_ns == stats.cpu_user_ns + stats.cpu_system_ns > 0
    assert stats.memory_stat["shmem"] == MIB
    assert stats.io_service_bytes == [
        IOEntry(254, 0, "read", MIB),
        IOEntry(254, 0, "write", 0),
        IOEntry(254, 0, "discard", 0),
    ]
    assert group.oom_kills() == 0
