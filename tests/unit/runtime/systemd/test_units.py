"""Names and properties that systemd is given, from an OCI configuration."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pier.kernel.bpf_devices import DeviceRule
from pier.kernel.cgroup_layout import Layout
from pier.kernel.cgroup_plan import BadResources
from pier.runtime.systemd import units
from pier.runtime.systemd.dbus_wire import Variant
from pier.runtime.systemd.units import BadName, BadProperty, ScopeName, bits_of, expand_slice, is_slice, parse_gvariant

ROOT = "/sys/fs/cgroup"
V2 = Layout("v2", dict.fromkeys(("cpu", "cpuset", "io", "memory", "pids"), ROOT), (ROOT,), ROOT)
V1 = Layout("v1", {name: f"{ROOT}/{name}" for name in ("cpu", "cpuset", "blkio", "memory", "pids")}, (), None)
NO_LIMIT = 2**64 - 1
MIB = 1 << 20


def limits(resources: dict[str, Any], layout: Layout = V2, version: int = 252) -> dict[str, Any]:
    return {name: variant.value for name, variant in units.limits(resources, layout, version)}


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "unit", "cgroup"),
    [
        ("system.slice:docker:abc", "docker-abc.scope", "/system.slice/docker-abc.scope"),
        (":pier:abc", "pier-abc.scope", "/system.slice/pier-abc.scope"),
        ("a-b-c.slice:x:y", "x-y.scope", "/a.slice/a-b.slice/a-b-c.slice/x-y.scope"),
        ("-:x:y", "x-y.scope", "/x-y.scope"),
        ("a.slice:x:y:z", "x-y:z.scope", "/a.slice/x-y:z.scope"),
    ],
)
def test_a_place_among_the_units(path: str, unit: str, cgroup: str) -> None:
    name = ScopeName.parse(path)
    assert (name.unit, name.path) == (unit, cgroup)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("", 'expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups, got "" instead'),
        ("a.slice:b", "slice:prefix:name"),
        ("a:b:c", "invalid slice name: a"),
        (".slice:b:c", "invalid slice name: .slice"),
        ("-a.slice:b:c", "invalid slice name: -a.slice"),
        ("a/b.slice:b:c", "invalid slice name: a/b.slice"),
        ("../x.slice:b:c", "invalid slice name"),
        ("a.slice:b:", "cannot name a unit"),
        ("a.slice:b:../../c", "cannot name a unit"),
        ("a.slice:b:" + 300 * "c", "cannot name a unit"),
        ("a.slice:b:c.slice", "a slice holds units"),
    ],
)
def test_what_is_no_place(path: str, words: str) -> None:
    with pytest.raises(BadName) as caught:
        ScopeName.parse(path)
    assert words in caught.value.message


@given(st.text(st.sampled_from("ab-./: \0"), max_size=12))
def test_attack_17_no_slice_leaves_the_hierarchy(text: str) -> None:
    try:
        path = expand_slice(text)
    except BadName:
        assert not is_slice(text)
        return
    assert all(part.endswith(".slice") and part not in (".", "..") for part in path.split("/")[1:])


def test_slices_for_dockers_option() -> None:
    assert [is_slice(name) for name in ("x.slice", "a-b.slice", "-.slice", "x", "/x.slice", ".slice", "")] == [
        *[True] * 3,
        *[False] * 4,
    ]


# --- limits ----------------------------------------------------------------------------------------------------------


def test_limits_on_v2() -> None:
    resources = {
        "memory": {"limit": 64 * MIB, "swap": 96 * MIB, "reservation": 8 * MIB},
        "cpu": {"shares": 1024, "quota": 12_345, "period": 50_000, "cpus": "0-1,9", "mems": "0"},
        "pids": {"limit": 20},
        "blockIO": {"weight": 10},
    }
    assert limits(resources) == {
        "MemoryMax": 64 * MIB,
        "MemorySwapMax": 32 * MIB,
        "MemoryLow": 8 * MIB,
        "CPUWeight": 100,
        "CPUQuotaPeriodUSec": 50_000,
        "CPUQuotaPerSecUSec": 250_000,
        "AllowedCPUs": b"\x03\x02",
        "AllowedMemoryNodes": b"\x01",
        "TasksMax": 20,
        "IOWeight": 1,
    }


def test_limits_on_v1() -> None:
    resources = {
        "memory": {"limit": 64 * MIB, "swap": 96 * MIB},
        "cpu": {"shares": 512, "quota": 20_000, "cpus": "0"},
        "pids": {"limit": -1},
        "blockIO": {"weight": 300},
    }
    assert limits(resources, V1) == {
        "MemoryLimit": 64 * MIB,
        "CPUShares": 512,
        "CPUQuotaPerSecUSec": 200_000,
        "TasksMax": NO_LIMIT,
        "BlockIOWeight": 300,
    }


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({}, {}),
        ({"memory": {"limit": -1}}, {"MemoryMax": NO_LIMIT, "MemorySwapMax": NO_LIMIT}),
        ({"memory": {"limit": MIB, "swap": -1}}, {"MemoryMax": MIB, "MemorySwapMax": NO_LIMIT}),
        ({"memory": {"limit": -1, "swap": 5}}, {"MemoryMax": NO_LIMIT, "MemorySwapMax": 5}),
        ({"cpu": {"quota": -1}}, {"CPUQuotaPerSecUSec": NO_LIMIT}),
        ({"cpu": {"quota": 1}}, {"CPUQuotaPerSecUSec": 10_000}),
        ({"cpu": {"quota": 100_000}}, {"CPUQuotaPerSecUSec": 1_000_000}),
        ({"cpu": {"idle": 1, "shares": 512}}, {"CPUWeight": 0}),
        ({"unified": {"cpu.max": "max"}}, {"CPUQuotaPerSecUSec": NO_LIMIT, "CPUQuotaPeriodUSec": 100_000}),
        ({"unified": {"cpu.max": "5000 10000"}}, {"CPUQuotaPerSecUSec": 500_000, "CPUQuotaPeriodUSec": 10_000}),
        ({"unified": {"memory.high": "max", "pids.max": "7"}}, {"MemoryHigh": NO_LIMIT, "TasksMax": 7}),
        ({"unified": {"cpuset.cpus": "1", "memory.oom.group": "1"}}, {"AllowedCPUs": b"\x02"}),
        ({"unified": {"cpu.weight": "rubbish", "pids.max": ""}}, {}),
    ],
)
def test_single_limits(resources: dict[str, Any], expected: dict[str, Any]) -> None:
    assert limits(resources) == expected


def test_an_old_systemd_is_not_asked_what_it_does_not_know() -> None:
    resources = {"cpu": {"cpus": "0", "period": 5000, "quota": 5000, "idle": 1}, "devices": []}
    assert limits(resources, V2, 239) == {"CPUQuotaPerSecUSec": 1_000_000}


@pytest.mark.parametrize("text", ["x", "3-1", "1-", "-1", "0,,1", "99999999", "²"])
def test_cpus_that_are_none(text: str) -> None:
    with pytest.raises(BadResources):
        bits_of(text)


@given(st.sets(st.integers(0, 600), min_size=1))
def test_cpus_are_bits(cpus: set[int]) -> None:
    mask = bits_of(",".join(map(str, sorted(cpus))))
    assert {at for at in range(len(mask) * 8) if mask[at // 8] >> at % 8 & 1} == cpus


# --- devices ---------------------------------------------------------------------------------------------------------


def test_devices_as_a_list_of_what_is_allowed() -> None:
    rules = [
        DeviceRule(True),
        DeviceRule(False),
        DeviceRule(True, "c", 1, 3),
        DeviceRule(True, "b", 8, None, 2),
        DeviceRule(True, "c", None, None, 1),
        DeviceRule(True, "c", None, 5),
        DeviceRule(False, "c", 9, 9),
    ]
    assert units.devices(rules) == [
        ("DevicePolicy", Variant("s", "strict")),
        ("DeviceAllow", Variant("a(ss)", [])),
        (
            "DeviceAllow",
            Variant("a(ss)", [["/dev/char/1:3", "rwm"], ["block-8", "r"], ["char-*", "m"]]),
        ),
    ]


def test_everything_is_no_policy() -> None:
    assert units.devices([DeviceRule(True)])[0] == ("DevicePolicy", Variant("s", "auto"))
    exception = units.devices([DeviceRule(True), DeviceRule(False, "c", 1, 3)])
    assert exception[2][1].value == [["char-*", "rwm"], ["block-*", "rwm"]]


# --- annotations -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "variant"),
    [
        ("true", Variant("b", True)),
        ("uint64 123456789", Variant("t", 123456789)),
        ("int32 -5", Variant("i", -5)),
        ("7", Variant("i", 7)),
        ("'inactive-or-failed'", Variant("s", "inactive-or-failed")),
        ('"it\'s"', Variant("s", "it's")),
        (r"'it\'s'", Variant("s", "it's")),
        ("['a.service', \"b\"]", Variant("as", ["a.service", "b"])),
        ("[]", Variant("as", [])),
    ],
)
def test_values_of_annotations(text: str, variant: Variant) -> None:
    asked = units.asked_for({"org.systemd.property.Some": text, "other": "x"})
    assert asked == [("Some", variant)]


@pytest.mark.parametrize(
    "text", ["", "word", "uint64", "uint64 x", "uint32 4294967296", "uint64 -1", "'open", "'a' b", "['a' 'b']", "[1]"]
)
def test_annotations_that_are_no_values(text: str) -> None:
    with pytest.raises(BadProperty, match=r"annotation org\.systemd\.property\.Some"):
        parse_gvariant("Some", text)


@pytest.mark.parametrize("name", ["", "ab", "A B C", "a.b.c"])
def test_annotations_that_name_no_property(name: str) -> None:
    with pytest.raises(BadProperty):
        units.asked_for({f"org.systemd.property.{name}": "true"})
