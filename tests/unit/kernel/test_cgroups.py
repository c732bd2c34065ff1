"""A container's cgroups on this machine, and on recorded trees of the other kinds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pier.kernel import cgroup_stats, cgroups
from pier.kernel.cgroup_stats import OpenCounters
from pier.kernel.cgroups import Cgroup, CgroupBusy, CgroupError, Layout, ResourceRefused

MIB = 1 << 20
NULL = {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rwm"}
NOTHING = {"allow": False, "access": "rwm"}


@pytest.fixture
def cgroup() -> Iterator[Cgroup]:
    group = Cgroup(cgroups.detect(), f"/pier-test-{uuid.uuid4().hex[:12]}/leaf")
    group.create()
    yield group
    parent = Cgroup(group.layout, os.path.dirname(group.path))
    parent.kill()
    parent.remove()


def joined(cgroup: Cgroup, program: str) -> subprocess.Popen[bytes]:
    """A Python process in the cgroup, running `program`, which has begun when this returns."""
    procs = cgroup.open_entrances()
    unified = cgroup.open_unified()
    if unified is not None:
        procs.append(os.open("cgroup.procs", os.O_WRONLY, dir_fd=unified))
        os.close(unified)
    read, write = os.pipe()
    try:
        join = "import os, sys\nfor fd in sys.argv[2:]: os.write(int(fd), b'0')\nos.write(int(sys.argv[1]), b'.')\n"
        process = subprocess.Popen(
            [sys.executable, "-I", "-c", join + program, str(write), *map(str, procs)],
            pass_fds=[write, *procs],
        )
        assert os.read(read, 1) == b"."
    finally:
        for fd in (read, write, *procs):
            os.close(fd)
    return process


SLEEP = "import time\nwhile True: time.sleep(60)"


@pytest.mark.parametrize("path", ["pier/x", "/", "/pier//x", "/pier/../x", "/pier/.", "", "/pier/"])
def test_path_must_be_plain(path: str) -> None:
    with pytest.raises(CgroupError):
        Cgroup(Layout("v2", {}, ("/c",), "/c"), path)


@pytest.mark.root
def test_join_and_pids_and_kill(cgroup: Cgroup) -> None:
    process = joined(cgroup, SLEEP)
    assert cgroup.pids() == [process.pid]
    for line in Path(f"/proc/{process.pid}/cgroup").read_text().splitlines():
        assert line.endswith(":" + cgroup.path), "in every hierarchy"
    cgroup.kill()
    assert process.wait(5) == -signal.SIGKILL
    cgroup.remove()
    assert cgroup.pids() == []
    assert not any(os.path.exists(mount + cgroup.path) for mount in cgroup.layout.hierarchies)
    cgroup.remove()  # gone already is well


@pytest.mark.root
def test_kill_without_cgroup_kill_gets_every_fork(cgroup: Cgroup) -> None:
    process = joined(
        cgroup,
        "import time\nfor _ in range(6): os.fork()\nwhile True:\n if not os.fork(): os._exit(0)\n os.wait()",
    )
    time.sleep(0.05)
    cgroup._kill_each(5)
    assert process.wait(5) == -signal.SIGKILL
    cgroup.remove(5)
    assert cgroup.pids() == []


@pytest.mark.root
def test_remove_is_bounded_and_names_who_holds_it(cgroup: Cgroup) -> None:
    process = joined(cgroup, SLEEP)
    began = time.monotonic()
    with pytest.raises(CgroupBusy, match=str(process.pid)):
        cgroup.remove(timeout_s=0.1)
    assert time.monotonic() - began < 1
    process.kill()
    process.wait()


@pytest.mark.root
def test_remove_takes_children_too(cgroup: Cgroup) -> None:
    for mount in cgroup.layout.hierarchies:
        os.makedirs(f"{mount}{cgroup.path}/made/by/the/container")
    cgroup.remove()
    assert not any(os.path.exists(mount + cgroup.path) for mount in cgroup.layout.hierarchies)


@pytest.mark.root
def test_freeze_and_thaw(cgroup: Cgroup) -> None:
    process = joined(cgroup, "while True: pass")
    cgroup.freeze()
    before = cgroup.stats().cpu_total_ns
    time.sleep(0.1)
    assert cgroup.stats().cpu_total_ns - before < 5_000_000
    cgroup.thaw()
    deadline = time.monotonic() + 30
    while cgroup.stats().cpu_total_ns - before <= 20_000_000:
        assert time.monotonic() < deadline, "it goes on"
        time.sleep(0.01)
    cgroup.kill()
    process.wait(5)


RESOURCES: dict[str, Any] = {
    "memory": {"limit": 64 * MIB, "swap": 64 * MIB, "reservation": 32 * MIB},
    "cpu": {"shares": 512, "quota": 50_000, "period": 100_000, "cpus": "0"},
    "pids": {"limit": 20},
    "devices": [NOTHING, NULL],
}


@pytest.mark.root
def test_apply_shows_in_the_stats(cgroup: Cgroup) -> None:
    """A tenth of a CPU: so much every process gets on a busy machine too, and is then held back."""
    assert cgroup.apply({**RESOURCES, "cpu": {"quota": 10_000, "period": 100_000}}) == []
    opened = OpenCounters(cgroup.layout, cgroup.path)
    stats = opened.collect()
    assert stats.memory_limit == 64 * MIB
    assert stats.pids_limit == 20
    began = time.monotonic()
    process = joined(cgroup, "x = b'x' * (8 << 20)\nwhile True: pass")
    while not stats.cpu_throttled_ns or stats.cpu_total_ns < 50_000_000:
        assert time.monotonic() - began < 60
        time.sleep(0.02)
        stats = opened.collect()
    passed_ns = (time.monotonic() - began) * 1e9
    assert stats.pids_current == 1
    assert stats.memory_usage > MIB
    assert stats.memory_stat
    assert stats.cpu_total_ns < passed_ns / 10 + 100_000_000, "a tenth of a CPU, and one period more"
    assert stats.cpu_throttled_periods > 0
    assert cgroup.stats().memory_stat.keys() == stats.memory_stat.keys()
    cgroup.kill()
    process.wait(5)
    cgroup.remove()
    gone = opened.collect()
    assert (gone.cpu_total_ns, gone.memory_usage, gone.memory_stat, gone.pids_current) == (0, 0, {}, 0)
    opened.close()


@pytest.mark.root
def test_apply_again_up_and_down(cgroup: Cgroup) -> None:
    """Memory and swap depend on each other: whichever way they move, one order of writes fails."""
    for mib in (64, 256, 32, 512):
        assert cgroup.apply({"memory": {"limit": mib * MIB, "swap": 2 * mib * MIB}}) == []
        assert cgroup.stats().memory_limit == mib * MIB
    cgroup.apply({"memory": {"limit": -1}})
    assert cgroup.stats().memory_limit is None


@pytest.mark.root
def test_an_update_is_all_or_nothing(cgroup: Cgroup) -> None:
    cgroup.apply({"memory": {"limit": 64 * MIB, "swap": 128 * MIB}, "pids": {"limit": 20}, "cpu": {"shares": 100}})
    before = {file: cgroup._read(*file) for file in (("memory", "memory.stat"), ("pids", "pids.max"))}
    wanted = {"memory": {"limit": 512 * MIB, "swap": 600 * MIB}, "pids": {"limit": 5}, "cpu": {"cpus": "9999"}}
    with pytest.raises(ResourceRefused, match=r"cpuset\.cpus"):
        cgroup.update(wanted)
    stats = cgroup.stats()
    assert (stats.memory_limit, stats.pids_limit) == (64 * MIB, 20)
    limits = [line for line in before["memory", "memory.stat"].splitlines() if "hierarchical" in line]
    assert [line for line in cgroup._read("memory", "memory.stat").splitlines() if "hierarchical" in line] == limits
    cgroup.update({**wanted, "cpu": {"shares": 200}})
    assert (cgroup.stats().memory_limit, cgroup.stats().pids_limit) == (512 * MIB, 5)


@pytest.mark.root
def test_a_limit_below_what_is_in_use(cgroup: Cgroup) -> None:
    process = joined(cgroup, f"x = b'x' * (40 << 20)\n{SLEEP}")
    wait_for_memory(cgroup, 40 * MIB)
    if cgroup.layout.version("memory") == 2:
        with pytest.raises(cgroups.BadResources, match="rejecting memory limit"):
            cgroup.update({"memory": {"limit": 8 * MIB, "checkBeforeUpdate": True}})
    else:
        with pytest.raises(cgroups.MemoryInUse, match=r"^unable to set memory limit to 8388608 \(current usage: \d+, "):
            cgroup.update({"memory": {"limit": 8 * MIB, "swap": 8 * MIB}})
        assert cgroup.stats().memory_limit is None
    assert process.poll() is None
    cgroup.kill()
    process.wait(5)


def wait_for_memory(cgroup: Cgroup, size_bytes: int) -> None:
    deadline = time.monotonic() + 10
    while cgroup.stats().memory_usage < size_bytes:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.root
def test_oom_kills(cgroup: Cgroup) -> None:
    cgroup.apply({"memory": {"limit": 32 * MIB, "swap": 32 * MIB}})
    assert cgroup.oom_kills() == 0
    process = joined(cgroup, "x = b'x' * (256 << 20)")
    assert process.wait(20) == -signal.SIGKILL
    assert cgroup.oom_kills() == 1


@pytest.mark.root
def test_pids_limit_holds(cgroup: Cgroup) -> None:
    cgroup.apply({"pids": {"limit": 1}})
    process = joined(cgroup, "try: os.fork()\nexcept BlockingIOError: os._exit(42)")
    assert process.wait(5) == 42


@pytest.mark.root
def test_devices_policy_holds(cgroup: Cgroup) -> None:
    cgroup.apply({"devices": [NOTHING]})
    process = joined(
        cgroup,
        "open('/dev/null').close()\ntry: open('/dev/kmsg')\nexcept PermissionError: os._exit(42)",
    )
    assert process.wait(5) == 42, "null is everyone's, kmsg is not"
    cgroup.apply({"devices": [{"allow": True, "access": "rwm"}]})
    assert joined(cgroup, "open('/dev/kmsg').close()").wait(5) == 0


@pytest.mark.root
def test_a_refused_value_names_file_and_cgroup(cgroup: Cgroup) -> None:
    with pytest.raises(ResourceRefused, match=rf"cpuset.cpus of cgroup {cgroup.path}"):
        cgroup.apply({"cpu": {"cpus": "9999"}})


@pytest.mark.root
def test_what_this_kernel_lacks_is_a_warning_or_an_error(cgroup: Cgroup) -> None:
    layout = Layout(cgroup.layout.mode, {}, cgroup.layout.hierarchies, cgroup.layout.unified)
    bare = Cgroup(layout, cgroup.path)
    assert bare.apply({"pids": {"limit": 5}, "memory": {"limit": MIB}, "cpu": {"quota": 1000, "period": 10000}}) == [
        "Your kernel does not support memory limit capabilities or the cgroup is not mounted. Limitation discarded.",
        "Your kernel does not support CPU CFS scheduler or the cgroup is not mounted. Period/quota discarded.",
        "Your kernel does not support PIDs limit capabilities or the cgroup is not mounted. PIDs limit discarded.",
    ]
    with pytest.raises(CgroupError, match=r"hugetlb\.2MB"):
        bare.apply({"hugepageLimits": [{"pageSize": "2MB", "limit": 1}]})


@pytest.mark.root
def test_lost_foretells_the_warnings(cgroup: Cgroup) -> None:
    resources = RESOURCES | {"blockIO": {"weight": 100}}
    assert cgroups.lost(resources, cgroup.layout, cgroup.files()) == cgroup.apply(resources)
    assert "Weight discarded" in cgroups.lost(resources, cgroup.layout, frozenset())[-1]


# --- cgroup v2 on a recorded tree ------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Layout:
    """A v2 hierarchy's files as a kernel shows them before anything is delegated."""
    for directory in (tmp_path, tmp_path / "pier", tmp_path / "pier/x"):
        directory.mkdir(exist_ok=True)
        (directory / "cgroup.controllers").write_text("cpu memory\n" if directory != tmp_path / "pier/x" else "")
        (directory / "cgroup.subtree_control").write_text("")
        (directory / "cgroup.procs").write_text("")
    for file in ("memory.max", "memory.swap.max", "cpu.weight", "cpu.max", "memory.low"):
        (tmp_path / "pier/x" / file).write_text("")
    root = str(tmp_path)
    return Layout("v2", {"cpu": root, "memory": root}, (root,), root)


def test_v2_delegates_down_the_path(tree: Layout, tmp_path: Path) -> None:
    Cgroup(tree, "/pier/x").create()
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+cpu +memory"
    assert (tmp_path / "pier/cgroup.subtree_control").read_text() == "+cpu +memory"
    assert not (tmp_path / "pier/x/cgroup.subtree_control").read_text(), "the leaf keeps its processes"


def test_v2_apply_and_stats(tree: Layout, tmp_path: Path) -> None:
    leaf = tmp_path / "pier/x"
    group = Cgroup(tree, "/pier/x")
    warnings = group.apply({"memory": {"limit": MIB, "swap": 2 * MIB}, "cpu": {"shares": 1024}, "pids": {"limit": 3}})
    assert (leaf / "memory.max").read_text() == str(MIB)
    assert (leaf / "memory.swap.max").read_text() == str(MIB)
    assert (leaf / "cpu.weight").read_text() == "100"
    assert [warning[:45] for warning in warnings] == ["Your kernel does not support PIDs limit capab"]
    (leaf / "cpu.stat").write_text("usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_throttled 2\nthrottled_usec 7\n")
    (leaf / "memory.current").write_text("4096\n")
    (leaf / "memory.max").write_text("max\n")
    (leaf / "memory.stat").write_text("anon 1\ninactive_file 2\n")
    (leaf / "memory.events").write_text("low 0\nmax 4\noom 1\noom_kill 3\n")
    stats = group.stats()
    assert (stats.version, stats.cpu_total_ns, stats.cpu_user_ns, stats.cpu_system_ns) == (2, 30_000, 20_000, 10_000)
    assert (stats.cpu_throttled_periods, stats.cpu_throttled_ns) == (2, 7000)
    assert (stats.memory_usage, stats.memory_limit, stats.memory_failcnt) == (4096, None, 1)
    assert stats.memory_stat == {"anon": 1, "inactive_file": 2}
    assert group.oom_kills() == 3


def test_io_entries() -> None:
    v1 = "8:0 Read 4096\n8:0 Write 0\n8:0 Total 4096\nTotal 4096\n"
    assert cgroup_stats.v1_entries(v1) == [(8, 0, "Read", 4096), (8, 0, "Write", 0), (8, 0, "Total", 4096)]
    v2 = "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n253:0\n"
    assert cgroup_stats.v2_entries(v2, {"rbytes": "read", "wbytes": "write"}) == [(8, 0, "read", 1), (8, 0, "write", 2)]
