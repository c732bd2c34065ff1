"""The systemd cgroup driver against systemd itself: scopes, their properties, their end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.unit.runtime.conftest import Lab, unframe
from tests.unit.runtime.monitor.test_parking import all_parked, monitor_of
from tests.unit.runtime.test_runtime import exec_request, run_exec
from tests.vm.guest.benches import ForkedBench, ends

from pier.kernel import bpf_devices, cgroup_files, cgroups
from pier.runtime.client import StartFailed
from pier.runtime.systemd import scopes, units
from pier.runtime.systemd.scopes import Manager, NoSystemd, Scope
from pier.runtime.systemd.units import ScopeName

UNIFIED = Path("/sys/fs/cgroup")
MIB = 1 << 20
ALLOCATE = "dd if=/dev/zero of=/dev/null bs=128M count=1"


def systemctl(*words: str) -> str:
    return subprocess.run(
        ["/usr/bin/systemctl", *words], capture_output=True, text=True, timeout=30, check=False
    ).stdout


def show(unit: str, *names: str) -> dict[str, str]:
    text = systemctl("show", unit, *(f"--property={name}" for name in names))
    return dict(line.partition("=")[::2] for line in text.splitlines())


def is_gone(unit: str) -> bool:
    return show(unit, "LoadState") == {"LoadState": "not-found"}


# --- the manager -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 1], ids=["own socket", "message bus"])
def test_a_scope_by_either_socket(number: int) -> None:
    name = ScopeName("vm.slice", f"pier-raw{number}.scope")
    pid = os.fork()
    if pid == 0:
        signal.pause()
    manager = Manager([scopes.SOCKETS[number]])
    try:
        assert manager.version() >= 252
        layout = cgroups.detect()
        manager.start_scope(name, units.scope_properties(name, pid, layout))
        assert Path(f"/proc/{pid}/cgroup").read_text() == f"0::/vm.slice/{name.unit}\n"
        manager.set_properties(name, units.limits({"pids": {"limit": 11}}, layout, 252))
        assert Path(f"{UNIFIED}{name.path}/pids.max").read_text() == "11\n"
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        manager.stop(name)
        manager.close()
    assert is_gone(name.unit)
    assert not Path(f"{UNIFIED}{name.path}").exists()


def test_what_systemd_refuses_is_told_in_its_words() -> None:
    manager = Manager()
    name = ScopeName("vm.slice", "pier-nobody.scope")
    with pytest.raises(scopes.SystemdRefused, match=r"pier-nobody.scope: systemd says: .*not (loaded|found)"):
        manager.set_properties(name, units.limits({"pids": {"limit": 11}}, cgroups.detect(), 252))
    with pytest.raises(scopes.SystemdRefused, match="systemd says"):
        manager.start_scope(name, units.scope_properties(name, 4_000_000, cgroups.detect()))
    manager.stop(name)
    with pytest.raises(NoSystemd, match="No such file"):
        Manager([("/run/nowhere", False)])


# --- pier-runtime ----------------------------------------------------------------------------------------------------


@pytest.fixture
def scoped(bench: ForkedBench) -> ForkedBench:
    bench.options = ["--systemd-cgroup"]
    return bench


RESOURCES: dict[str, Any] = {
    "memory": {"limit": 64 * MIB, "swap": 96 * MIB, "reservation": 32 * MIB},
    "cpu": {"shares": 512, "quota": 12_345, "period": 50_000, "cpus": "0"},
    "pids": {"limit": 20},
    "hugepageLimits": [{"pageSize": "2MB", "limit": 4 * MIB}],
    "unified": {"memory.high": str(60 * MIB)},
    "devices": [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "r"},
    ],
}
FILES = {
    "memory.max": 64 * MIB,
    "memory.swap.max": 32 * MIB,
    "memory.low": 32 * MIB,
    "memory.high": 60 * MIB,
    "cpu.weight": 59,
    "cpu.max": "12345 50000",
    "cpuset.cpus": 0,
    "pids.max": 20,
    "hugetlb.2MB.max": 4 * MIB,
}


def values(folder: Path, names: Any) -> dict[str, str]:
    return {name: (folder / name).read_text().strip() for name in names}


def test_a_life_with_limits_that_systemd_keeps(scoped: ForkedBench) -> None:
    scoped.spec["linux"] |= {"resources": RESOURCES, "cgroupsPath": "vm-tests.slice:vm:one"}
    scoped.spec["annotations"] = {"org.systemd.property.TimeoutStopUSec": "uint64 7000000"}
    scoped.start("one", "head -c 1 /dev/kmsg >/dev/null; busybox mknod /d b 254 0; head -c 1 /d; sleep 100")
    folder = UNIFIED / "vm.slice/vm-tests.slice/vm-one.scope"
    pid = scoped.state("one")["pid"]
    assert Path(f"/proc/{pid}/cgroup").read_text() == "0::/vm.slice/vm-tests.slice/vm-one.scope\n"
    assert values(folder, FILES) == {name: str(value) for name, value in FILES.items()}
    assert show(
        "vm-one.scope",
        *("Slice", "Delegate", "MemoryMax", "CPUWeight", "CPUQuotaPerSecUSec", "TasksMax", "DevicePolicy"),
        *("AllowedCPUs", "MemoryHigh", "TimeoutStopUSec", "ActiveState", "DefaultDependencies"),
    ) == {
        "Slice": "vm-tests.slice",
        "Delegate": "yes",
        "MemoryMax": str(64 * MIB),
        "CPUWeight": "59",
        "CPUQuotaPerSecUSec": "250ms",
        "TasksMax": "20",
        "DevicePolicy": "strict",
        "AllowedCPUs": "0",
        "MemoryHigh": str(60 * MIB),
        "TimeoutStopUSec": "7s",
        "ActiveState": "active",
        "DefaultDependencies": "no",
    }
    systemctl("daemon-reload")
    kept = FILES | {"cpu.max": values(folder, ["cpu.max"])["cpu.max"]}  # systemd's own is in whole percents
    assert values(folder, FILES) == {name: str(value) for name, value in kept.items()}
    assert kept["cpu.max"] in {"12345 50000", "12500 50000"}

    assert scoped.call("exec", "one", "sh", "-c", "busybox mknod /e b 254 0; head -c 1 /e").code != 0
    assert scoped.call("exec", "one", "head", "-c", "0", "/dev/null").code == 0
    scoped.ok("update", "--memory", "48m", "--memory-swap", "48m", "--pids-limit", "-1", "--cpu-share", "1024", "one")
    assert values(folder, ("memory.max", "memory.swap.max", "pids.max", "cpu.weight")) == {
        "memory.max": str(48 * MIB),
        "memory.swap.max": "0",
        "pids.max": "max",
        "cpu.weight": "100",
    }
    assert show("vm-one.scope", "MemoryMax", "TasksMax", "CPUWeight") == {
        "MemoryMax": str(48 * MIB),
        "TasksMax": "infinity",
        "CPUWeight": "100",
    }
    scoped.ok("pause", "one")
    assert scoped.state("one")["status"] == "paused"
    scoped.ok("resume", "one")
    assert json.loads(scoped.ok("events", "--stats", "one"))["data"]["memory"]["usage"]["limit"] == 48 * MIB
    scoped.ok("delete", "--force", "one")
    assert not folder.exists()
    assert is_gone("vm-one.scope")


def test_without_a_path_it_is_in_the_system_slice(scoped: ForkedBench) -> None:
    scoped.spec["linux"]["cgroupsPath"] = ""
    scoped.start("two", "sleep 100")
    assert Path(f"/proc/{scoped.state('two')['pid']}/cgroup").read_text() == "0::/system.slice/pier-runtime-two.scope\n"
    result = scoped.make("create", "two")
    assert "already exists" in result.message
    # Without the option the container is found all the same.
    scoped.options = []
    pidfd = os.pidfd_open(scoped.state("two")["pid"])
    scoped.ok("kill", "two", "KILL")
    assert ends(pidfd)
    os.close(pidfd)
    scoped.ok("delete", "two")
    assert is_gone("pier-runtime-two.scope")


def test_a_container_killed_for_want_of_memory_leaves_no_failed_unit(scoped: ForkedBench) -> None:
    scoped.spec["linux"] |= {
        "resources": {"memory": {"limit": 32 * MIB, "swap": 32 * MIB}},
        "cgroupsPath": "vm.slice:vm:oom",
    }
    scoped.spec["process"]["args"] = ALLOCATE.split()
    for _ in range(2):
        assert scoped.make("run", "oom").code == 137
    assert is_gone("vm-oom.scope")
    assert "vm-oom" not in systemctl("list-units", "--failed", "--plain", "--no-legend")


def test_one_unit_for_two_containers_is_refused(scoped: ForkedBench) -> None:
    scoped.spec["linux"]["cgroupsPath"] = "vm.slice:vm:same"
    scoped.start("a", "sleep 100")
    result = scoped.make("create", "b")
    assert result.code == 1
    assert "container's cgroup is not empty" in result.message
    assert scoped.state("a")["status"] == "running"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/a/b", 'expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups, got "/a/b" instead'),
        ("a--b.slice:x:y", "invalid slice name: a--b.slice"),
        ("a.slice:x:y.slice", "a slice holds units"),
        ("a.slice:x:y/../z", "cannot name a unit"),
    ],
)
def test_paths_that_are_none(scoped: ForkedBench, path: str, words: str) -> None:
    scoped.spec["linux"]["cgroupsPath"] = path
    result = scoped.make("create", "no")
    assert result.code == 1
    assert words in result.message


def test_a_property_that_systemd_does_not_know(scoped: ForkedBench) -> None:
    scoped.spec["linux"]["cgroupsPath"] = "vm.slice:vm:property"
    scoped.spec["annotations"] = {"org.systemd.property.Nonsense": "true"}
    result = scoped.make("create", "property")
    assert result.code == 1
    assert "systemd says" in result.message
    assert is_gone("vm-property.scope")


# --- the daemon's runtime --------------------------------------------------------------------------------------------


def place(request: Any) -> tuple[str, Path]:
    """Put a container into `vm.slice`; its unit and its cgroup."""
    request.spec["linux"]["cgroupsPath"] = f"vm.slice:pier:{request.id}"
    unit = f"pier-{request.id}.scope"
    return unit, UNIFIED / "vm.slice" / unit


async def test_a_container_of_the_daemons(lab: Lab) -> None:
    request = lab.request(["sh", "-c", "cat /proc/self/cgroup; sleep 100"])
    request.spec["linux"]["resources"] = {"memory": {"limit": 64 * MIB}, "pids": {"limit": 9}, "devices": []}
    unit, folder = place(request)
    container = await lab.start(request)
    assert container.running.warnings == []
    assert b"0::/\n" in await container.read_until(b"0::/\n")
    assert Path(f"/proc/{container.running.pid}/cgroup").read_text().strip() == f"0::/vm.slice/{unit}"
    assert values(folder, ("memory.max", "pids.max")) == {"memory.max": str(64 * MIB), "pids.max": "9"}
    assert show(unit, "MemoryMax", "TasksMax") == {"MemoryMax": str(64 * MIB), "TasksMax": "9"}
    fd = os.open(folder, os.O_RDONLY)
    assert len(bpf_devices._attached(fd)) >= 1
    os.close(fd)
    record, text = await run_exec(lab, container, exec_request(["cat", "/proc/self/cgroup"]))
    assert (record.exit_code, text) == (0, "0::/\n")
    group = Scope(cgroups.detect(), ScopeName("vm.slice", unit))
    await asyncio.to_thread(group.freeze)
    await asyncio.to_thread(group.thaw)
    assert group.stats().pids_current == 1
    await container.running.signal(9)
    assert (await asyncio.wait_for(container.running.wait(), 20)).exit_code == 137
    assert not folder.exists()
    assert is_gone(unit)


async def test_a_parked_process_makes_the_scope_it_goes_on_in(lab: Lab) -> None:
    parked = await all_parked(lab.runtime)
    request = lab.request(["sleep", "100"])
    unit, _ = place(request)
    container = await lab.start(request)
    assert monitor_of(container) in parked
    assert Path(f"/proc/{container.running.pid}/cgroup").read_text() == f"0::/vm.slice/{unit}\n"
    for parked_before in parked.values():
        assert unit not in cgroup_files.read(f"/proc/{parked_before}/cgroup")


async def test_the_same_container_again_and_again(lab: Lab) -> None:
    request = lab.request(["true"])
    unit, _ = place(request)
    for _ in range(5):
        container = await lab.start(request)
        assert (await asyncio.wait_for(container.running.wait(), 20)).exit_code == 0
    assert is_gone(unit)


async def test_the_record_says_that_memory_was_short(lab: Lab) -> None:
    for script in (ALLOCATE, f"{ALLOCATE}; exit 0"):
        request = lab.request(["sh", "-c", script])
        request.spec["linux"]["resources"] = {"memory": {"limit": 32 * MIB, "swap": 32 * MIB}}
        place(request)
        container = await lab.start(request)
        assert (await asyncio.wait_for(container.running.wait(), 30)).oom_killed


async def test_a_container_that_divides_its_scope(lab: Lab) -> None:
    request = lab.request(["sleep", "100"])
    _, folder = place(request)
    container = await lab.start(request)
    (folder / "init.scope").mkdir()
    (folder / "init.scope/cgroup.procs").write_text(str(container.running.pid))
    (folder / "cgroup.subtree_control").write_text("+memory +pids")
    systemctl("daemon-reload")
    record, text = await run_exec(lab, container, exec_request(["cat", "/proc/self/cgroup"]))
    assert (record.exit_code, text) == (0, "0::/init.scope\n")


async def test_a_killed_monitor_leaves_no_scope(lab: Lab) -> None:
    request = lab.request(["sleep", "100"])
    unit, folder = place(request)
    container = await lab.start(request)
    status = Path(f"/proc/{container.running.pid}/status").read_text()
    monitor = int(next(line.split()[1] for line in status.splitlines() if line.startswith("PPid:")))
    os.kill(monitor, signal.SIGKILL)
    assert (await asyncio.wait_for(container.running.wait(), 20)).exit_code == 137
    assert not folder.exists()
    assert is_gone(unit)


async def test_a_start_that_fails_leaves_no_scope(lab: Lab) -> None:
    request = lab.request(["nothing-of-that-name"])
    unit, _ = place(request)
    with pytest.raises(StartFailed, match="nothing-of-that-name"):
        await lab.start(request)
    assert is_gone(unit)


async def test_stopping_the_unit_stops_the_container(lab: Lab) -> None:
    request = lab.request(["sh", "-c", "trap 'echo told; exit 3' TERM; echo ready; while true; do sleep 1; done"])
    unit, _ = place(request)
    container = await lab.start(request)
    await container.read_until(b"ready")
    systemctl("stop", unit)
    assert (await asyncio.wait_for(container.running.wait(), 20)).exit_code == 3
    assert "told" in unframe(container.output + await container.read())
