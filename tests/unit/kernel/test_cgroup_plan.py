"""The plan of writes for OCI resources: tables for v1 and v2, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from pier.kernel.cgroup_layout import Layout
from pier.kernel.cgroup_plan import BadResources, io_weight_of, plan, weight_of_shares

V1 = Layout(
    "v1",
    {name: f"/c/{name}" for name in ("memory", "cpu", "cpuset", "pids", "blkio", "hugetlb")},
    ("/c/memory", "/c/cpu", "/c/cpuset", "/c/pids", "/c/blkio", "/c/hugetlb"),
)
V2 = Layout("v2", dict.fromkeys(("memory", "cpu", "cpuset", "pids", "io", "hugetlb"), "/c"), ("/c",), "/c")
HYBRID = Layout("hybrid", V1.controllers | {"hugetlb": "/c/unified"}, (*V1.hierarchies, "/c/unified"), "/c/unified")
MIB = 1 << 20


def writes(resources: dict[str, Any], layout: Layout) -> list[tuple[str, str]]:
    return [(write.file, write.value) for write in plan(resources, layout)]


CASES: list[tuple[str, dict[str, Any], list[tuple[str, str]], list[tuple[str, str]]]] = [
    ("nothing", {}, [], []),
    ("Docker's nothing", {"memory": {"disableOOMKiller": False}, "blockIO": {}, "pids": {"limit": 0}}, [], []),
    (
        "memory, Docker's twice as much with swap",
        {"memory": {"limit": 64 * MIB, "swap": 128 * MIB}},
        [("memory.limit_in_bytes", "67108864"), ("memory.memsw.limit_in_bytes", "134217728")],
        [("memory.max", "67108864"), ("memory.swap.max", "67108864")],
    ),
    (
        "no swap at all",
        {"memory": {"limit": MIB, "swap": MIB}},
        [("memory.limit_in_bytes", "1048576"), ("memory.memsw.limit_in_bytes", "1048576")],
        [("memory.max", "1048576"), ("memory.swap.max", "0")],
    ),
    (
        "swap without limit",
        {"memory": {"limit": MIB, "swap": -1}},
        [("memory.limit_in_bytes", "1048576"), ("memory.memsw.limit_in_bytes", "-1")],
        [("memory.max", "1048576"), ("memory.swap.max", "max")],
    ),
    (
        "memory's limit lifted",
        {"memory": {"limit": -1}},
        [("memory.limit_in_bytes", "-1"), ("memory.memsw.limit_in_bytes", "-1")],
        [("memory.max", "max"), ("memory.swap.max", "max")],
    ),
    (
        "the rest of memory",
        {"memory": {"reservation": MIB, "swappiness": 0, "disableOOMKiller": True, "kernelTCP": MIB}},
        [
            ("memory.soft_limit_in_bytes", "1048576"),
            ("memory.kmem.tcp.limit_in_bytes", "1048576"),
            ("memory.oom_control", "1"),
            ("memory.swappiness", "0"),
        ],
        [
            ("memory.low", "1048576"),
            ("memory.kmem.tcp.limit_in_bytes", ""),
            ("memory.oom_control", ""),
            ("memory.swappiness", ""),
        ],
    ),
    (
        "--cpus 0.5",
        {"cpu": {"quota": 50_000, "period": 100_000}},
        [("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", "50000")],
        [("cpu.max", "50000 100000")],
    ),
    ("quota alone", {"cpu": {"quota": 50_000}}, [("cpu.cfs_quota_us", "50000")], [("cpu.max", "50000 100000")]),
    ("quota lifted", {"cpu": {"quota": -1}}, [("cpu.cfs_quota_us", "-1")], [("cpu.max", "max 100000")]),
    ("shares", {"cpu": {"shares": 1024}}, [("cpu.shares", "1024")], [("cpu.weight", "100")]),
    (
        "idle and burst",
        {"cpu": {"shares": 2, "idle": 1, "burst": 1000}},
        [("cpu.shares", "2"), ("cpu.cfs_burst_us", "1000"), ("cpu.idle", "1")],
        [("cpu.max.burst", "1000"), ("cpu.idle", "1")],
    ),
    (
        "realtime",
        {"cpu": {"realtimePeriod": 1_000_000, "realtimeRuntime": 950_000}},
        [("cpu.rt_period_us", "1000000"), ("cpu.rt_runtime_us", "950000")],
        [("cpu.rt_runtime_us", "")],
    ),
    (
        "cpuset",
        {"cpu": {"cpus": "0-1", "mems": "0"}},
        [("cpuset.cpus", "0-1"), ("cpuset.mems", "0")],
        [("cpuset.cpus", "0-1"), ("cpuset.mems", "0")],
    ),
    ("pids", {"pids": {"limit": 100}}, [("pids.max", "100")], [("pids.max", "100")]),
    ("pids unlimited", {"pids": {"limit": -1}}, [("pids.max", "max")], [("pids.max", "max")]),
    (
        "block I/O",
        {
            "blockIO": {
                "weight": 500,
                "weightDevice": [{"major": 8, "minor": 0, "weight": 10}],
                "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1000}],
                "throttleWriteIOPSDevice": [{"major": 8, "minor": 16, "rate": 0}],
            }
        },
        [
            ("blkio.bfq.weight", "500"),
            ("blkio.bfq.weight_device", "8:0 10"),
            ("blkio.throttle.read_bps_device", "8:0 1000"),
            ("blkio.throttle.write_iops_device", "8:16 0"),
        ],
        [
            ("io.bfq.weight", "500"),
            ("io.bfq.weight", "8:0 10"),
            ("io.max", "8:0 rbps=1000"),
            ("io.max", "8:16 wiops=max"),
        ],
    ),
    (
        "huge pages",
        {"hugepageLimits": [{"pageSize": "2MB", "limit": 2 * MIB}]},
        [("hugetlb.2MB.limit_in_bytes", "2097152"), ("hugetlb.2MB.rsvd.limit_in_bytes", "2097152")],
        [("hugetlb.2MB.max", "2097152"), ("hugetlb.2MB.rsvd.max", "2097152")],
    ),
]


@pytest.mark.parametrize(("resources", "v1", "v2"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_plan(resources: dict[str, Any], v1: list[tuple[str, str]], v2: list[tuple[str, str]]) -> None:
    assert writes(resources, V1) == v1
    assert writes(resources, V2) == v2


def test_hybrid_takes_each_controller_as_it_is() -> None:
    resources = {"pids": {"limit": 5}, "hugepageLimits": [{"pageSize": "2MB", "limit": 0}], "memory": {"limit": MIB}}
    assert writes(resources, HYBRID) == [
        ("memory.limit_in_bytes", "1048576"),
        ("pids.max", "5"),
        ("hugetlb.2MB.max", "0"),
        ("hugetlb.2MB.rsvd.max", "0"),
    ]


def test_unified() -> None:
    resources = {"unified": {"memory.high": "1000", "io.max": "8:0 rbps=1\n8:16 rbps=2"}}
    assert [tuple(write[:3]) for write in plan(resources, V2)] == [
        ("memory", "memory.high", "1000"),
        ("io", "io.max", "8:0 rbps=1"),
        ("io", "io.max", "8:16 rbps=2"),
    ]
    with pytest.raises(BadResources, match="cgroup v2"):
        plan(resources, HYBRID)


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        ({"memory": {"swap": MIB}}, "needs a limit of memory"),
        ({"memory": {"limit": 2 * MIB, "swap": MIB}}, "Minimum memoryswap limit should be larger than memory limit"),
        ({"memory": {"swappiness": 101}}, "valid memory swappiness range is 0-100"),
        ({"blockIO": {"weight": 5}}, "range of blkio weight is from 10 to 1000"),
        ({"hugepageLimits": [{"pageSize": "../2MB", "limit": 1}]}, "is no page size"),
        ({"unified": {"../memory.max": "1"}}, "no file of a controller"),
        ({"unified": {"cgroup.procs": "1"}}, "no file of a controller"),
        ({"unified": {"memory": "1"}}, "no file of a controller"),
    ],
)
def test_refused(resources: dict[str, Any], words: str) -> None:
    with pytest.raises(BadResources, match=words):
        plan(resources, V2 if "unified" in resources else V1)


@pytest.mark.parametrize(
    ("shares", "weight"),
    [(0, 0), (1, 1), (2, 1), (3, 2), (512, 59), (1024, 100), (2048, 174), (262_144, 10_000), (1 << 20, 10_000)],
)
def test_weight_of_shares(shares: int, weight: int) -> None:
    assert weight_of_shares(shares) == weight


def test_io_weight_spans_both_ranges() -> None:
    assert [io_weight_of(weight) for weight in (10, 100, 1000)] == [1, 910, 10_000]
