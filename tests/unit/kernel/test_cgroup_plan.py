"""The plan of writes for OCI resources: tables for v1 and v2, and what is refused."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pier.kernel.cgroup_layout import Layout
from pier.kernel.cgroup_plan import BadResources, Write, io_weight_of, plan, weight_of_shares

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
    assert [tuple(write[1:4]) for write in plan(resources, V2)] == [
        ("memory", "memory.high", "1000"),
        ("io", "io.max", "8:0 rbps=1"),
        ("io", "io.max", "8:16 rbps=2"),
    ]
    with pytest.raises(BadResources, match="cgroup v2"):
        plan(resources, HYBRID)


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        ({"memory": {"limit": 2 * MIB, "swap": MIB}}, "Minimum memoryswap limit should be larger than memory limit"),
        ({"memory": {"swappiness": 101}}, "valid memory swappiness range is 0-100"),
        ({"blockIO": {"weight": 5}}, "range of blkio weight is from 10 to 1000"),
        ({"hugepageLimits": [{"pageSize": "../2MB", "limit": 1}]}, "is no page size"),
        ({"unified": {"../memory.max": "1"}}, "no file of a controller"),
        ({"unified": {"cgroup.procs": "1"}}, "no file of a controller"),
        ({"unified": {"cgroup.kill": "1"}}, "no file of a controller"),
        ({"unified": {"memory.": "1"}}, "no file of a controller"),
        ({"unified": {"memory..": "1"}}, "no file of a controller"),
        ({"unified": {"memory.max\0": "1"}}, "no file of a controller"),
        ({"unified": {"memory.max\n": "1"}}, "no file of a controller"),
        ({"cpu": {"shares": 1}}, "the minimum allowed cpu-shares is 2"),
        ({"cpu": {"shares": 262_145}}, "the maximum allowed cpu-shares is 262144"),
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


def test_swap_without_a_limit_of_memory() -> None:
    """v1's kernel knows the limit there is; v2 needs it to tell swap from the sum, unless memory is unlimited."""
    assert writes({"memory": {"swap": MIB}}, V1) == [("memory.memsw.limit_in_bytes", "1048576")]
    with pytest.raises(BadResources, match="unable to set swap limit without memory limit"):
        plan({"memory": {"swap": MIB}}, V2)
    assert writes({"memory": {"limit": -1, "swap": MIB}}, V2) == [
        ("memory.max", "max"),
        ("memory.swap.max", "1048576"),
    ]


def test_what_is_rare() -> None:
    rdma = {"rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 0}, "mlx4_0": {}}}
    assert writes(rdma, V1) == writes(rdma, V2) == [("rdma.max", "mlx5_1 hca_handle=3 hca_object=0")]
    network = {"network": {"classID": 0x100001, "priorities": [{"name": "eth0", "priority": 5}]}}
    assert writes(network, V1) == [("net_cls.classid", "1048577"), ("net_prio.ifpriomap", "eth0 5")]
    leaf = {"blockIO": {"leafWeight": 10, "weightDevice": [{"major": 8, "minor": 0, "leafWeight": 20}]}}
    assert writes(leaf, V1) == [("blkio.leaf_weight", "10"), ("blkio.leaf_weight_device", "8:0 20")]
    assert [write.lost for write in plan(leaf, V2)] == [
        "Your kernel does not support Block I/O leaf weight or the cgroup is not mounted. Leaf weight discarded."
    ]


# --- what holds for all values ---------------------------------------------------------------------------------------

SIZES = st.integers(min_value=-1, max_value=2**63 - 1)
DEVICES = st.fixed_dictionaries({"major": st.integers(0, 4095), "minor": st.integers(0, 2**20 - 1)})


def devices_with(key: str, values: st.SearchStrategy[int]) -> st.SearchStrategy[list[dict[str, int]]]:
    return st.lists(st.builds(lambda device, value: {**device, key: value}, DEVICES, values), max_size=3)


RESOURCES = st.fixed_dictionaries(
    {},
    optional={
        "memory": st.fixed_dictionaries(
            {},
            optional={
                **dict.fromkeys(("limit", "swap", "reservation", "kernel", "kernelTCP"), SIZES),
                "swappiness": st.integers(0, 101),
                "disableOOMKiller": st.booleans(),
            },
        ),
        "cpu": st.fixed_dictionaries(
            {},
            optional={
                "shares": st.integers(0, 300_000),
                "quota": st.integers(-2, 10**7),
                "period": st.integers(0, 10**6),
                "burst": st.none() | st.integers(0, 10**6),
                "idle": st.none() | st.integers(0, 1),
                "realtimePeriod": st.integers(0, 10**6),
                "realtimeRuntime": st.integers(0, 10**6),
                "cpus": st.sampled_from(["", "0", "0-3,7"]),
                "mems": st.sampled_from(["", "0"]),
            },
        ),
        "pids": st.fixed_dictionaries({"limit": st.integers(-1, 2**22)}),
        "blockIO": st.fixed_dictionaries(
            {},
            optional={
                "weight": st.integers(0, 1001),
                "weightDevice": devices_with("weight", st.integers(10, 1000)),
                "throttleReadBpsDevice": devices_with("rate", st.integers(0, 2**63 - 1)),
                "throttleWriteIOPSDevice": devices_with("rate", st.integers(0, 2**32 - 1)),
            },
        ),
        "hugepageLimits": st.lists(
            st.fixed_dictionaries({"pageSize": st.sampled_from(["2MB", "1GB", "64KB"]), "limit": SIZES}), max_size=2
        ),
        "rdma": st.dictionaries(
            st.sampled_from(["mlx5_1"]), st.fixed_dictionaries({}, optional={"hcaHandles": st.integers(0, 99)})
        ),
    },
)


def planned(resources: dict[str, Any], layout: Layout) -> list[Write] | None:
    """None: refused in a sentence."""
    try:
        return plan(resources, layout)
    except BadResources:
        return None


@given(RESOURCES)
def test_every_write_is_one_line_for_one_file_of_its_controller(resources: dict[str, Any]) -> None:
    for layout in (V1, HYBRID, V2):
        for write in planned(resources, layout) or ():
            for file, value in ((write.file, write.value), write.otherwise or (write.file, write.value)):
                assert "/" not in file
                assert "\n" not in value
                assert file.startswith(f"{write.controller}.") or write.lost, "else its absence is told"


@given(RESOURCES)
def test_every_write_names_the_field_that_asks_for_it(resources: dict[str, Any]) -> None:
    for layout in (V1, HYBRID, V2):
        for write in planned(resources, layout) or ():
            section, *rest = re.findall(r"[^.\[\]]+", write.field)
            value = resources[section]
            for part in [".".join(rest)] if section in ("rdma", "unified") else rest:
                value = value[int(part) if isinstance(value, list) else part]
            assert value is not None


@given(RESOURCES)
def test_a_hybrid_writes_what_the_kind_of_each_controller_wants(resources: dict[str, Any]) -> None:
    on_v1, on_hybrid = planned(resources, V1), planned(resources, HYBRID)
    if on_v1 is None or on_hybrid is None:
        assert on_v1 is on_hybrid
        return
    assert [write for write in on_hybrid if write.controller != "hugetlb"] == [
        write for write in on_v1 if write.controller != "hugetlb"
    ]
    assert {write.file for write in on_hybrid if write.controller == "hugetlb"} == {
        write.file.replace("limit_in_bytes", "max") for write in on_v1 if write.controller == "hugetlb"
    }


@given(st.integers(1, 2**62), st.integers(0, 2**62))
def test_memory_and_swap_are_the_same_limits_on_both(limit: int, swap: int) -> None:
    resources = {"memory": {"limit": limit, "swap": limit + swap}}
    v1, v2 = dict(writes(resources, V1)), dict(writes(resources, V2))
    assert v1["memory.limit_in_bytes"] == v2["memory.max"] == str(limit)
    assert int(v1["memory.memsw.limit_in_bytes"]) - limit == int(v2["memory.swap.max"]) == swap


@given(st.integers(1, 300_000), st.integers(1, 300_000))
def test_more_shares_are_no_less_weight(some: int, more: int) -> None:
    some, more = sorted((some, more))
    assert 1 <= weight_of_shares(some) <= weight_of_shares(more) <= 10_000


@given(st.integers(10, 1000), st.integers(10, 1000))
def test_more_block_io_weight_is_more_io_weight(some: int, more: int) -> None:
    some, more = sorted((some, more))
    assert 1 <= io_weight_of(some) <= io_weight_of(more) <= 10_000
    assert (some == more) is (io_weight_of(some) == io_weight_of(more))


@given(st.integers(-2, 10**7), st.integers(0, 10**6))
def test_quota_and_period_are_the_same_share_on_both(quota: int, period: int) -> None:
    cpu = {"cpu": {"quota": quota, "period": period}}
    v1, v2 = dict(writes(cpu, V1)), dict(writes(cpu, V2))
    if not quota and not period:
        assert v1 == v2 == {}
        return
    shown_quota, shown_period = v2["cpu.max"].split()
    assert shown_period == v1.get("cpu.cfs_period_us", "100000")
    assert shown_quota == ("max" if quota <= 0 else v1["cpu.cfs_quota_us"])


@given(st.text(max_size=20), st.text(max_size=20))
def test_unified_takes_plain_file_names_only(file: str, value: str) -> None:
    for write in planned({"unified": {file: value}}, V2) or ():
        assert re.fullmatch(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)+", write.file)
        assert write.file == file
        assert not write.lost, "a file that is missing is an error"


@given(
    st.sampled_from(["memory.high", "hugetlb.2MB.max", "io.bfq.weight", "cpuset.cpus.partition", "cgroup.max.depth"])
)
def test_unified_passes_on_what_it_is_given(file: str) -> None:
    assert writes({"unified": {file: "a b\n8:0 c"}}, V2) == [(file, "a b"), (file, "8:0 c")]


@given(RESOURCES)
def test_unified_has_the_last_word(resources: dict[str, Any]) -> None:
    found = planned({**resources, "unified": {"memory.max": "7"}}, V2)
    assert found is None or tuple(found[-1][1:4]) == ("memory", "memory.max", "7")
