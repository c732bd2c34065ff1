"""A container's cgroup on v2 from birth to removal: joining, delegation, view from inside, freezer, kill, the end."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest
from tests.unit.runtime.test_runtime import exec_request, run_exec

from pier.kernel import cgroup_layout, cgroups, mounts, namespaces
from pier.kernel.cgroups import Cgroup
from pier.kernel.namespaces import fork_into_cgroup
from pier.runtime.client import StartFailed

from .conftest import CGROUP_PARENT, UNIFIED, Lab, folder_of, group_of, text_of

pytestmark = pytest.mark.root


def cgroup_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cgroup").read_text().strip()


def test_this_machine_is_what_it_is_for() -> None:
    layout = cgroups.detect()
    assert (layout.mode, layout.number, layout.unified) == ("v2", "2", str(UNIFIED))
    assert layout.hierarchies == (str(UNIFIED),)
    assert {"cpu", "cpuset", "io", "memory", "pids", "hugetlb"} <= layout.controllers.keys()


# --- birth -----------------------------------------------------------------------------------------------------------


def test_a_process_is_born_in_its_cgroup(group: Cgroup) -> None:
    fd = group.open_unified()
    read, write = os.pipe()
    pid = fork_into_cgroup(fd)
    if pid == 0:
        os.write(write, Path("/proc/self/cgroup").read_bytes())
        os._exit(0)
    os.close(fd)
    assert os.waitpid(pid, 0)[1] == 0
    assert os.read(read, 1000).decode() == f"0::{group.path}\n"
    os.close(read)
    os.close(write)


async def test_the_container_is_in_its_cgroup_and_its_monitor_is_not(lab: Lab) -> None:
    container = await lab.start(lab.request(["sleep", "100"]))
    pid = container.running.pid
    assert cgroup_of(pid) == f"0::{group_of(container).path}"
    status = Path(f"/proc/{pid}/status").read_text()
    monitor = int(next(line.split()[1] for line in status.splitlines() if line.startswith("PPid:")))
    assert cgroup_of(monitor) == cgroup_of(os.getpid())


async def test_controllers_are_handed_down_the_path(lab: Lab) -> None:
    container = await lab.start(lab.request(["sleep", "100"]))
    leaf = folder_of(container)
    for above in (UNIFIED, leaf.parent):
        assert {"cpu", "cpuset", "io", "memory", "pids"} <= set((above / "cgroup.subtree_control").read_text().split())
    assert (leaf / "cgroup.subtree_control").read_text().strip() == "", "a leaf keeps its processes"


def test_processes_of_a_root_that_is_not_the_true_one_make_way() -> None:
    """Pier in a container: /sys/fs/cgroup shows a cgroup that has processes, and so cannot hand controllers down."""
    box = Cgroup(cgroups.detect(), "/pier-vm-box")
    box.create()
    fd = box.open_unified()
    read, write = os.pipe()
    pid = fork_into_cgroup(fd)
    if pid == 0:
        try:
            namespaces.unshare(namespaces.CLONE_NEWNS | namespaces.CLONE_NEWCGROUP)
            mounts.mount(None, "/", None, mounts.MS_PRIVATE | mounts.MS_REC)
            mounts.umount(str(UNIFIED))
            mounts.mount("cgroup2", str(UNIFIED), "cgroup2", 0)
            cgroup_layout.detect.cache_clear()
            leaf = Cgroup(cgroups.detect(), "/pier/one")
            leaf.create()
            leaf.apply({"memory": {"limit": 1 << 26}, "pids": {"limit": 5}})
            answer = [cgroup_of(os.getpid()), *sorted(os.listdir(UNIFIED / "pier/one"))]
            leaf.remove()
        except BaseException as error:
            answer = [repr(error)]
        os.write(write, "\n".join(answer).encode())
        os._exit(0)
    os.close(fd)
    os.waitpid(pid, 0)
    answer = os.read(read, 65536).decode().split("\n")
    os.close(read)
    os.close(write)
    box.remove()
    assert answer[0] == "0::/init"
    assert {"memory.max", "pids.max", "cpu.max"} <= set(answer)


async def test_a_threaded_parent_is_named(lab: Lab) -> None:
    parent = Path(f"{UNIFIED}{CGROUP_PARENT}/threads/below")
    parent.mkdir(parents=True)
    (parent / "cgroup.type").write_text("threaded")
    request = lab.request(["true"])
    request.spec["linux"]["cgroupsPath"] = f"{CGROUP_PARENT}/threads/below/leaf"
    with pytest.raises(StartFailed, match=r"below/leaf.*below a threaded cgroup"):
        await lab.start(request)
    assert not (parent / "leaf").exists()
    parent.rmdir()
    parent.parent.rmdir()


async def test_a_parent_with_processes_is_named(lab: Lab) -> None:
    """Two rules of v2 meet: a cgroup with processes gives its children no controllers."""
    busy = Cgroup(cgroups.detect(), f"{CGROUP_PARENT}/busy")
    busy.create()
    fd = busy.open_unified()
    pid = fork_into_cgroup(fd)
    if pid == 0:
        signal.pause()
    os.close(fd)
    try:
        request = lab.request(["true"])
        request.spec["linux"]["cgroupsPath"] = f"{busy.path}/leaf"
        with pytest.raises(StartFailed, match=f"{busy.path}.*has processes of its own"):
            await lab.start(request)
        assert not Path(f"{UNIFIED}{busy.path}/leaf").exists()
    finally:
        busy.kill()
        os.waitpid(pid, 0)
        busy.remove()


# --- the view from inside --------------------------------------------------------------------------------------------


async def test_the_cgroup_namespace_is_private_and_its_files_read_only(lab: Lab) -> None:
    script = """
    cat /proc/self/cgroup
    grep /sys/fs/cgroup /proc/self/mountinfo
    busybox mkdir /sys/fs/cgroup/x
    echo 1 >/sys/fs/cgroup/pids.max
    ls /sys/fs/cgroup
    """
    _, text = await lab.run(["sh", "-c", script])
    lines = text.splitlines()
    assert lines[0] == "0::/"
    mount = lines[1].split()
    assert mount[3:5] == ["/", "/sys/fs/cgroup"]
    assert "ro" in mount[5].split(",")
    assert mount[mount.index("-") + 1] == "cgroup2"
    assert text.count("Read-only file system") == 2
    assert "memory.max" in lines, "the container's own cgroup is the root of what it sees"


async def test_the_hosts_namespace_shows_the_hosts_tree_and_keeps_its_options(lab: Lab) -> None:
    """A second mount of cgroup2 from the first cgroup namespace would set the options of every mount of it."""
    options = "nsdelegate,memory_recursiveprot"  # as systemd mounts it
    mounts.mount("cgroup2", str(UNIFIED), "cgroup2", mounts.MS_REMOUNT, options)
    request = lab.request(["sh", "-c", "cat /proc/self/cgroup; ls /sys/fs/cgroup; busybox mkdir /sys/fs/cgroup/x"])
    request.spec["linux"]["namespaces"] = [
        item for item in request.spec["linux"]["namespaces"] if item["type"] != "cgroup"
    ]
    container = await lab.start(request)
    await container.running.wait()
    text = await text_of(container)
    table = Path("/proc/self/mountinfo").read_text().splitlines()
    assert next(line for line in table if " - cgroup2 " in line).endswith(options)
    assert text.splitlines()[0] == f"0::{group_of(container).path}"
    assert CGROUP_PARENT.lstrip("/") in text.splitlines()
    assert "Read-only file system" in text


# --- freezer, exec, kill ---------------------------------------------------------------------------------------------


async def test_freeze_stands_still_and_thaw_goes_on(lab: Lab) -> None:
    container = await lab.start(lab.request(["sh", "-c", "echo go; while true; do true; done"]))
    await container.read_until(b"go")
    group = group_of(container)
    group.freeze()
    before = group.stats().cpu_total_ns
    await asyncio.sleep(0.2)
    assert group.stats().cpu_total_ns == before
    group.thaw()
    await asyncio.sleep(0.2)
    assert group.stats().cpu_total_ns > before


async def test_a_frozen_container_can_be_killed(lab: Lab) -> None:
    container = await lab.start(lab.request(["sh", "-c", "echo go; sleep 100 & sleep 100"]))
    await container.read_until(b"go")
    group_of(container).freeze()
    await container.running.signal(signal.SIGKILL)
    record = await asyncio.wait_for(container.running.wait(), 10)
    assert (record.exit_code, record.oom_killed) == (137, False)
    assert not folder_of(container).exists()


async def test_cgroup_kill_reaches_everything_below(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cgroup, "_kill_each", None)  # by cgroup.kill or not at all
    container = await lab.start(lab.request(["sh", "-c", "sleep 100 & sleep 100 & echo go; sleep 100"]))
    await container.read_until(b"go")
    group = group_of(container)
    below = folder_of(container) / "a/b"
    below.mkdir(parents=True)
    moved = group.pids()[-1]
    (below / "cgroup.procs").write_text(str(moved))
    assert moved in group.pids()
    group.kill()
    assert (await asyncio.wait_for(container.running.wait(), 10)).exit_code == 137
    assert not folder_of(container).exists()


async def test_exec_when_the_container_has_divided_its_cgroup(lab: Lab) -> None:
    """systemd in a container moves itself to a child and hands controllers down: its root then takes no process."""
    container = await lab.start(lab.request(["sleep", "100"]))
    folder, pid = folder_of(container), container.running.pid
    (folder / "init.scope").mkdir()
    (folder / "init.scope/cgroup.procs").write_text(str(pid))
    (folder / "cgroup.subtree_control").write_text("+memory +pids")
    record, text = await run_exec(lab, container, exec_request(["cat", "/proc/self/cgroup"]))
    assert record.exit_code == 0
    assert text == "0::/init.scope\n"


# --- the end ---------------------------------------------------------------------------------------------------------


async def test_nothing_is_left(lab: Lab) -> None:
    container = await lab.start(lab.request(["sh", "-c", "sleep 100 & echo go; sleep 1"]))
    await container.read_until(b"go")
    folder = folder_of(container)
    (folder / "made/inside").mkdir(parents=True)
    (folder / "made/inside/cgroup.procs").write_text(str(group_of(container).pids()[-1]))
    await asyncio.wait_for(container.running.wait(), 10)
    assert not folder.exists()
    assert [name for name in os.listdir(folder.parent) if os.path.isdir(folder.parent / name)] == []


async def test_ten_in_a_row_leave_nothing(lab: Lab) -> None:
    for _ in range(10):
        record, _ = await lab.run(["true"])
        assert record.exit_code == 0
    assert not any(path.is_dir() for path in Path(f"{UNIFIED}{CGROUP_PARENT}").iterdir())
