"""Limits of real containers on cgroup v2: they are in the kernel's files, and they hold."""

from __future__ import annotations

import asyncio

import pytest

from .conftest import Lab, folder_of, group_of, text_of

MIB = 1 << 20
DISK = {"major": 254, "minor": 0}
"""The machine's virtio disk, of 16 MiB of nothing."""
ALLOCATE = "dd if=/dev/zero of=/dev/null bs=128M count=1"

pytestmark = pytest.mark.root


async def test_values_are_written_and_seen_inside(lab: Lab) -> None:
    request = lab.request(["sh", "-c", "cd /sys/fs/cgroup; head -n 1 cpu.max cpu.weight memory.max; sleep 100"])
    request.spec["linux"]["resources"] = {
        "memory": {"limit": 64 * MIB, "swap": 96 * MIB, "reservation": 32 * MIB},
        "cpu": {"shares": 512, "quota": 50_000, "period": 200_000, "cpus": "0", "burst": 1000},
        "pids": {"limit": 20},
        "unified": {"memory.high": str(60 * MIB)},
    }
    container = await lab.start(request)
    await container.read_until(str(64 * MIB).encode())
    assert container.running.warnings == []
    expected = {
        "memory.max": 64 * MIB,
        "memory.swap.max": 32 * MIB,
        "memory.low": 32 * MIB,
        "memory.high": 60 * MIB,
        "cpu.weight": 59,
        "cpu.max": "50000 200000",
        "cpu.max.burst": 1000,
        "cpuset.cpus": 0,
        "pids.max": 20,
    }
    folder = folder_of(container)
    assert {name: (folder / name).read_text().strip() for name in expected} == {
        name: str(value) for name, value in expected.items()
    }
    assert b"50000 200000" in container.output
    assert b"\n59\n" in container.output


async def test_memory_max_kills_and_the_record_says_so(lab: Lab) -> None:
    request = lab.request(ALLOCATE.split())
    request.spec["linux"]["resources"] = {"memory": {"limit": 32 * MIB, "swap": 32 * MIB}}
    container = await lab.start(request)
    record = await asyncio.wait_for(container.running.wait(), 30)
    assert (record.exit_code, record.oom_killed) == (137, True)


async def test_the_flag_is_set_when_only_a_child_was_killed(lab: Lab) -> None:
    request = lab.request(["sh", "-c", f"{ALLOCATE}; echo child: $?"])
    request.spec["linux"]["resources"] = {"memory": {"limit": 32 * MIB, "swap": 32 * MIB}}
    container = await lab.start(request)
    record = await asyncio.wait_for(container.running.wait(), 30)
    assert (record.exit_code, record.oom_killed) == (0, True)
    assert "child: 137" in await text_of(container)


async def test_no_flag_without_a_lack_of_memory(lab: Lab) -> None:
    request = lab.request(["sh", "-c", "kill -9 $$; exit 3"])
    request.spec["linux"]["resources"] = {"memory": {"limit": 32 * MIB}}
    container = await lab.start(request)
    assert not (await asyncio.wait_for(container.running.wait(), 30)).oom_killed


async def test_pids_max_stops_a_fork_bomb(lab: Lab) -> None:
    request = lab.request(["sh", "-c", "(while true; do sleep 100 & done); echo over; exec sleep 100"])
    request.spec["linux"]["resources"] = {"pids": {"limit": 12}}
    container = await lab.start(request)
    await container.read_until(b"over")
    assert b"can't fork" in container.output
    stats = group_of(container).stats()
    assert stats.pids_current <= stats.pids_limit == 12
    assert (folder_of(container) / "pids.events").read_text() != "max 0\n"


async def test_cpu_max_throttles(lab: Lab) -> None:
    request = lab.request(["sh", "-c", "echo go; while true; do true; done"])
    request.spec["linux"]["resources"] = {"cpu": {"quota": 10_000, "period": 100_000}}
    container = await lab.start(request)
    await container.read_until(b"go")
    before = group_of(container).stats()
    await asyncio.sleep(1)
    after = group_of(container).stats()
    assert after.cpu_throttled_periods > before.cpu_throttled_periods
    assert after.cpu_throttled_ns > before.cpu_throttled_ns
    assert after.cpu_total_ns - before.cpu_total_ns < 300_000_000, "a tenth of a CPU for a second, and some slack"


async def test_limits_change_while_it_runs(lab: Lab) -> None:
    container = await lab.start(lab.request(["sleep", "100"]))
    group, folder = group_of(container), folder_of(container)
    for mib in (64, 256, 32):
        assert group.apply({"memory": {"limit": mib * MIB, "swap": 2 * mib * MIB}, "cpu": {"shares": mib}}) == []
        assert (folder / "memory.max").read_text() == f"{mib * MIB}\n"
    group.apply({"memory": {"limit": -1}, "cpu": {"quota": -1}, "pids": {"limit": -1}})
    assert [(folder / name).read_text() for name in ("memory.max", "memory.swap.max", "pids.max")] == ["max\n"] * 3
    assert (folder / "cpu.max").read_text().startswith("max ")


async def test_what_v2_does_not_have_is_a_warning(lab: Lab) -> None:
    request = lab.request(["sleep", "100"])
    request.spec["linux"]["resources"] = {
        "memory": {"limit": 64 * MIB, "swappiness": 10, "disableOOMKiller": True, "kernel": 32 * MIB},
        "cpu": {"realtimeRuntime": 1000},
    }
    container = await lab.start(request)
    assert [warning.split(" ")[-2] for warning in container.running.warnings] == [
        "limit",
        "OomKillDisable",
        "swappiness",
        "period/runtime",
    ]


async def test_io_limits_and_counts(lab: Lab) -> None:
    request = lab.request(
        ["sh", "-c", "busybox mknod /vda b 254 0; dd if=/vda of=/dev/null bs=64k count=16 iflag=direct; sleep 100"]
    )
    request.spec["linux"]["resources"] = {
        "blockIO": {
            "throttleReadBpsDevice": [DISK | {"rate": 64 * MIB}],
            "throttleWriteIOPSDevice": [DISK | {"rate": 50}],
        },
        "devices": [{"allow": False, "access": "rwm"}, DISK | {"type": "b", "allow": True, "access": "rwm"}],
    }
    container = await lab.start(request)
    await container.read_until(b"records out")
    assert (folder_of(container) / "io.max").read_text() == f"254:0 rbps={64 * MIB} wbps=max riops=max wiops=50\n"
    stats = group_of(container).stats()
    assert (254, 0, "read", MIB) in stats.io_service_bytes
    assert (254, 0, "read", 16) in stats.io_serviced


async def test_stats_of_a_running_container(lab: Lab) -> None:
    container = await lab.start(
        lab.request(["sh", "-c", "dd if=/dev/zero of=/file bs=1M count=8; sleep 100 & sleep 100"])
    )
    await container.read_until(b"records out")
    stats = group_of(container).stats()
    assert stats.version == 2
    assert stats.pids_current in {1, 2, 3}
    assert stats.memory_usage >= 8 * MIB, "what is written to a tmpfs counts"
    assert stats.memory_max_usage >= stats.memory_usage
    assert stats.memory_limit is None
    assert stats.memory_stat["shmem"] >= 8 * MIB
    assert stats.cpu_total_ns >= stats.cpu_user_ns + stats.cpu_system_ns - 1000 > 0
