"""`pier-runtime` on cgroup v2, without systemd: every verb and every resource, and what a container's cgroup may be."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from tests.unit.runtime.bundles import Bench
from tests.unit.runtime.conftest import CGROUP_PARENT

from pier.kernel import cgroups
from pier.kernel.cgroups import Cgroup
from pier.kernel.namespaces import fork_into_cgroup

from .benches import ForkedBench, ends
from .conftest import UNIFIED

pytestmark = pytest.mark.root
MIB = 1 << 20
DISK = {"major": 254, "minor": 0}
NOTHING = {"allow": False, "access": "rwm"}
ALLOCATE = "dd if=/dev/zero of=/dev/null bs=128M count=1"


def folder(container_id: str) -> Path:
    return Path(f"{UNIFIED}{CGROUP_PARENT}/{container_id}")


def values(container_id: str, names: Any) -> dict[str, str]:
    return {name: (folder(container_id) / name).read_text().strip() for name in names}


# --- the verbs -------------------------------------------------------------------------------------------------------


def test_a_life_as_the_launcher_runs_it(bench: Bench) -> None:
    bench.spec["process"]["args"] = ["sleep", "100"]
    plain = Bench(bench.folder, bench.rootfs, bench.spec, bench.used)
    assert plain.make("create", "a").code == 0
    assert (bench.state("a")["status"], plain.call("start", "a").code) == ("created", 0)
    result = plain.call("exec", "a", "cat", "/proc/self/cgroup")
    assert (result.code, result.out) == (0, "0::/\n"), "it sees its own cgroup as the root"
    pid = bench.state("a")["pid"]
    assert Path(f"/proc/{pid}/cgroup").read_text() == f"0::{CGROUP_PARENT}/a\n"
    assert plain.call("delete", "--force", "a").code == 0
    assert not folder("a").exists()
    bench.used.clear()


RESOURCES: dict[str, Any] = {
    "memory": {"limit": 64 * MIB, "swap": 96 * MIB, "reservation": 32 * MIB},
    "cpu": {"shares": 512, "quota": 50_000, "period": 200_000, "cpus": "0", "mems": "0", "burst": 1000},
    "pids": {"limit": 20},
    "blockIO": {"throttleReadBpsDevice": [DISK | {"rate": MIB}], "throttleWriteIOPSDevice": [DISK | {"rate": 50}]},
    "hugepageLimits": [{"pageSize": "2MB", "limit": 4 * MIB}],
    "unified": {"memory.high": str(60 * MIB), "memory.oom.group": "1"},
}
FILES = {
    "memory.max": 64 * MIB,
    "memory.swap.max": 32 * MIB,
    "memory.low": 32 * MIB,
    "memory.high": 60 * MIB,
    "memory.oom.group": 1,
    "cpu.weight": 59,
    "cpu.max": "50000 200000",
    "cpu.max.burst": 1000,
    "cpuset.cpus": 0,
    "cpuset.mems": 0,
    "pids.max": 20,
    "io.max": f"254:0 rbps={MIB} wbps=max riops=max wiops=50",
    "hugetlb.2MB.max": 4 * MIB,
}


def test_every_resource_is_in_its_file_and_update_changes_it(bench: ForkedBench) -> None:
    bench.spec["linux"]["resources"] = RESOURCES
    bench.start("r", "sleep 100")
    assert values("r", FILES) == {name: str(value) for name, value in FILES.items()}
    bench.ok(
        *("update", "--memory", "48m", "--memory-swap", "50m", "--memory-reservation", "8m", "--pids-limit", "7"),
        *("--cpu-share", "1024", "--cpu-quota", "20000", "--cpu-period", "100000", "--cpu-burst", "0", "r"),
    )
    changed = {
        "memory.max": 48 * MIB,
        "memory.swap.max": 2 * MIB,
        "memory.low": 8 * MIB,
        "pids.max": 7,
        "cpu.weight": 100,
        "cpu.max": "20000 100000",
        "cpu.max.burst": 0,
    }
    assert values("r", FILES) == {name: str(value) for name, value in (FILES | changed).items()}
    (bench.folder / "more.json").write_text(
        json.dumps({"unified": {"memory.high": "max"}, "pids": {"limit": -1}, "cpu": {"idle": 1}})
    )
    bench.ok("update", "--resources", str(bench.folder / "more.json"), "r")
    assert values("r", ("memory.high", "pids.max", "cpu.idle")) == {
        "memory.high": "max",
        "pids.max": "max",
        "cpu.idle": "1",
    }
    kept = json.loads((bench.root / "r/config.json").read_text())["linux"]["resources"]
    assert kept["memory"]["limit"] == 48 * MIB, "what was changed is what a later update starts from"


def test_the_limits_act(bench: ForkedBench) -> None:
    bench.spec["linux"]["resources"] = {"pids": {"limit": 5}, "cpu": {"quota": 10_000, "period": 100_000}}
    bench.spec["process"]["args"] = ["sh", "-c", "sleep 9 & sleep 9 & sleep 9 & sleep 9 & sleep 9 & wait"]
    result = bench.make("run", "pids")
    assert result.code != 0
    assert "can't fork" in result.err
    bench.spec["linux"]["resources"] = {"memory": {"limit": 32 * MIB, "swap": 32 * MIB}}
    bench.spec["process"]["args"] = ALLOCATE.split()
    assert bench.make("run", "memory").code == 137


def test_pause_resume_and_kill_while_frozen(bench: ForkedBench) -> None:
    bench.start("p", "while true; do sleep 100; done")
    bench.ok("pause", "p")
    assert bench.state("p")["status"] == "paused"
    assert values("p", ["cgroup.freeze"]) == {"cgroup.freeze": "1"}
    assert "frozen 1" in values("p", ["cgroup.events"])["cgroup.events"]
    assert bench.call("exec", "p", "true").message.startswith("exec failed: cannot exec in a paused container")
    bench.ok("update", "--pids-limit", "9", "p")
    bench.ok("resume", "p")
    assert (bench.state("p")["status"], bench.call("resume", "p").message) == ("running", "container not paused")
    bench.ok("pause", "p")
    pidfd = os.pidfd_open(bench.state("p")["pid"])
    bench.ok("kill", "p", "KILL")
    assert ends(pidfd)
    os.close(pidfd)
    assert bench.state("p")["status"] == "stopped"
    bench.ok("delete", "p")
    bench.start("q", "sleep 100")
    bench.ok("pause", "q")
    bench.ok("delete", "--force", "q")
    assert not folder("q").exists()


def test_events_tell_of_statistics_and_of_want_of_memory(bench: ForkedBench) -> None:
    bench.spec["linux"]["resources"] = {"memory": {"limit": 32 * MIB, "swap": 32 * MIB}, "pids": {"limit": 30}}
    bench.spec["process"]["args"] = ["sh", "-c", f"{ALLOCATE}; exit 0"]
    assert bench.make("create", "e").code == 0
    data = json.loads(bench.ok("events", "--stats", "e"))["data"]
    assert data["memory"]["usage"]["limit"] == 32 * MIB
    assert data["pids"] == {"current": 1, "limit": 30}
    assert data["cpu"]["usage"]["total"] > 0
    reader, writer = os.pipe()
    watcher = bench.fork(("events", "--interval", "10ms", "e"), writer, 2)
    os.close(writer)
    with open(reader) as lines:
        assert json.loads(lines.readline())["type"] == "stats", "now it watches"
        bench.ok("start", "e")
        told = [json.loads(line) for line in lines]
    assert os.waitpid(watcher, 0)[1] == 0
    assert [item for item in told if item["type"] == "oom"] == [{"type": "oom", "id": "e"}]


def test_devices_are_decided_by_a_program(bench: ForkedBench) -> None:
    bench.spec["linux"]["resources"] = {
        "devices": [NOTHING, DISK | {"type": "b", "allow": True, "access": "r"}],
    }
    script = """
    echo x >/dev/null && echo null
    busybox mknod /disk b 254 0 && head -c 1 /disk >/dev/null && echo read
    echo x >/disk
    busybox mknod /kmsg c 1 11; head -c 1 /kmsg
    busybox mknod /other b 7 7 && echo made
    busybox rm /disk /kmsg /other  # the root is that of all tests here
    """
    result = bench.run("sh", "-c", script)
    assert result.out.split() == ["null", "read", "made"], result.err
    assert "can't create /disk: Operation not permitted" in result.err
    assert "/kmsg: Operation not permitted" in result.err


def test_ps_and_list(bench: ForkedBench) -> None:
    bench.start("l", "sleep 100 & sleep 100")
    assert bench.state("l")["pid"] in json.loads(bench.ok("ps", "--format", "json", "l"))
    assert bench.ok("list", "--quiet") == "l\n"


# --- where a cgroup may be, and what a container may do with it ------------------------------------------------------


def test_a_container_divides_its_cgroup_and_exec_goes_where_it_can(bench: ForkedBench) -> None:
    """What systemd in a container does: a group for itself, controllers for others."""
    mount = {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["rw", "nosuid"]}
    bench.spec["mounts"] = [item for item in bench.spec["mounts"] if "cgroup" not in item["type"]] + [mount]
    script = """
    cd /sys/fs/cgroup && mkdir init.scope work && echo 0 >init.scope/cgroup.procs
    echo '+memory +pids' >cgroup.subtree_control && echo 3 >work/pids.max && echo divided; sleep 100
    """
    reader, writer = os.pipe()
    bench.start("d", script, stdout=writer)
    os.close(writer)
    assert os.read(reader, 100) == b"divided\n"
    os.close(reader)
    assert bench.call("exec", "d", "cat", "/proc/self/cgroup").out == "0::/init.scope\n"
    inside = bench.call("exec", "--cgroup", "/work", "d", "cat", "/proc/self/cgroup", "/sys/fs/cgroup/work/pids.max")
    assert inside.out == "0::/work\n3\n", inside.err
    bench.ok("pause", "d")
    bench.ok("resume", "d")
    bench.ok("update", "--pids-limit", "50", "d")
    bench.ok("delete", "--force", "d")
    assert not folder("d").exists()


def test_a_parent_with_processes_is_named(bench: ForkedBench) -> None:
    busy = Cgroup(cgroups.detect(), f"{CGROUP_PARENT}/busy")
    busy.create()
    fd = busy.open_unified()
    pid = fork_into_cgroup(fd)
    if pid == 0:
        signal.pause()
    os.close(fd)
    try:
        bench.spec["linux"]["cgroupsPath"] = f"{busy.path}/leaf"
        result = bench.make("create", "leaf")
        assert result.code == 1
        assert f"{busy.path} above it has processes of its own" in result.message
        assert not Path(f"{UNIFIED}{busy.path}/leaf").exists()
    finally:
        busy.kill()
        os.waitpid(pid, 0)
        busy.remove()


def test_a_threaded_parent_is_an_error_that_says_so(bench: ForkedBench) -> None:
    parent = Path(f"{UNIFIED}{CGROUP_PARENT}/threads")
    (parent / "below").mkdir(parents=True)
    (parent / "below/cgroup.type").write_text("threaded")
    try:
        bench.spec["linux"]["cgroupsPath"] = f"{CGROUP_PARENT}/threads/below/leaf"
        result = bench.make("create", "leaf")
        assert result.code == 1
        assert "threaded" in result.message
        assert not (parent / "below/leaf").exists()
    finally:
        (parent / "below").rmdir()
        parent.rmdir()


def test_threaded_groups_of_a_container_go_with_it(bench: ForkedBench) -> None:
    bench.start("t", "sleep 100")
    below = folder("t") / "workers"
    below.mkdir()
    (below / "cgroup.type").write_text("threaded")
    pid = bench.state("t")["pid"]
    (below / "cgroup.threads").write_text(str(pid))
    assert json.loads(bench.ok("ps", "--format", "json", "t")) == [pid]
    bench.ok("kill", "--all", "t", "KILL")
    bench.ok("delete", "--force", "t")
    assert not folder("t").exists()
