"""Containers whose first process was parked ahead, through zygote and monitor, without the daemon."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest

from pier.kernel import namespaces
from pier.runtime import zygote
from pier.runtime.client import Runtime, StartFailed
from pier.runtime.monitor import parking
from pier.runtime.request import PARKED_NAMESPACES, Supervision

from ..conftest import MOUNTS, Container, Lab

pytestmark = pytest.mark.root


@pytest.fixture
async def runtime() -> AsyncIterator[Runtime]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    started = Runtime(standard_mounts=MOUNTS)
    await started.start()
    yield started
    await started.close()


def children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def is_called(pid: int, name: str) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip() == name
    except OSError:
        return False


def is_dead(pid: int) -> bool:
    """Whether it waits only to be buried: a parked monitor does not look after its first process."""
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return True


def waits_in(pid: int, call: str) -> bool:
    """Whether a process stands in a system call (proc_pid_syscall(5)); recvmsg is 47 on x86-64, 212 on arm64."""
    number = {"x86_64": {"recvmsg": "47"}, "aarch64": {"recvmsg": "212"}}[os.uname().machine][call]
    try:
        return Path(f"/proc/{pid}/syscall").read_text().split()[0] == number
    except OSError:
        return False


def parked(runtime: Runtime) -> dict[int, int]:
    """Monitors that wait for an order, each with its parked first process."""
    assert runtime._process is not None
    found = {}
    for monitor in children(runtime._process.pid):
        firsts = children(monitor)
        if len(firsts) == 1 and is_called(monitor, parking.NAME):
            found |= {monitor: firsts[0]} if all(waits_in(pid, "recvmsg") for pid in (monitor, *firsts)) else {}
    return found


async def all_parked(runtime: Runtime) -> dict[int, int]:
    async with asyncio.timeout(20):
        while len(found := parked(runtime)) < zygote.PARKED:
            await asyncio.sleep(0.01)
    return found


async def gone(pids: Iterable[int]) -> None:
    async with asyncio.timeout(10):
        for pid in pids:
            while is_called(pid, parking.NAME) and not is_dead(pid):
                await asyncio.sleep(0.01)


def monitor_of(container: Container) -> int:
    status = Path(f"/proc/{container.running.pid}/status").read_text()
    return int(status.partition("PPid:")[2].split()[0])


async def test_a_parked_process_becomes_the_container(lab: Lab, runtime: Runtime) -> None:
    before = await all_parked(runtime)
    container = await lab.start(lab.request(["sleep", "1000"]))
    monitor = monitor_of(container)
    assert monitor in before
    assert children(monitor) == [container.running.pid]  # born again: the parked process itself is gone
    assert container.running.pid != before[monitor]
    assert not Path(f"/proc/{before[monitor]}").exists()


async def test_it_is_as_isolated_as_any(lab: Lab, runtime: Runtime) -> None:
    await all_parked(runtime)
    script = (
        "for kind in cgroup ipc mnt net pid uts; do readlink /proc/self/ns/$kind; done; "
        "ls /proc/self/fd | wc -l; ls /dev | tr '\\n' ' '; cat /proc/net/dev | grep -c lo:; "
        "ps -o pid,comm | grep -c pier; cat /proc/self/cgroup"
    )
    request = lab.request(["sh", "-c", script])
    container = await lab.start(request)
    assert (await container.running.wait()).exit_code == 0
    lines = (await container.read()).decode(errors="replace")
    for kind in ("cgroup", "ipc", "mnt", "net", "pid", "uts"):
        assert os.readlink(f"/proc/self/ns/{kind}") not in lines
    for node in ("core", "fd", "full", "null", "ptmx", "pts", "random", "zero"):
        assert node in lines
    assert request.id not in lines  # the cgroup namespace begins at its own group


async def test_two_orders_at_once_get_two_monitors_and_the_third_is_served_too(lab: Lab, runtime: Runtime) -> None:
    await all_parked(runtime)
    containers = await asyncio.gather(*(lab.start(lab.request(["sleep", "1000"])) for _ in range(5)))
    assert len({monitor_of(container) for container in containers}) == 5
    assert len({os.readlink(f"/proc/{item.running.pid}/ns/net") for item in containers}) == 5


@pytest.mark.parametrize("shared", PARKED_NAMESPACES)
async def test_another_kind_of_container_is_made_by_a_fork(lab: Lab, runtime: Runtime, shared: str) -> None:
    before = await all_parked(runtime)
    request = lab.request(["sleep", "1000"])
    request.spec["linux"]["namespaces"] = [
        item for item in request.spec["linux"]["namespaces"] if item["type"] != shared
    ]
    assert not Supervision.of(request).ordinary
    if shared == "network":  # a new sysfs shows the namespace that owns it: only that one's root may mount it
        request.spec["mounts"] = [mount for mount in request.spec["mounts"] if mount["type"] != "sysfs"]
    container = await lab.start(request)
    kind = Path(namespaces.namespace_path(1, shared)).name
    own = os.readlink(f"/proc/self/ns/{kind}")
    assert os.readlink(f"/proc/{container.running.pid}/ns/{kind}") == own
    monitor = monitor_of(container)
    assert monitor in before
    assert not Path(f"/proc/{before[monitor]}").exists()


async def test_a_start_that_fails_leaves_nothing(lab: Lab, runtime: Runtime) -> None:
    before = await all_parked(runtime)
    with pytest.raises(StartFailed, match="no-such-program"):
        await lab.start(lab.request(["no-such-program"]))
    async with asyncio.timeout(10):
        while (after := await all_parked(runtime)).keys() == before.keys():
            await asyncio.sleep(0.01)
    (used,) = before.keys() - after.keys()
    assert not Path(f"/proc/{before[used]}").exists()


async def test_a_parked_process_that_was_killed_is_done_without(lab: Lab, runtime: Runtime) -> None:
    firsts = (await all_parked(runtime)).values()
    for first in firsts:
        os.kill(first, signal.SIGKILL)
    await gone(firsts)
    record, output = await lab.run(["echo", "served"])
    assert (record.exit_code, output) == (0, "served\n")


async def test_parked_monitors_that_were_killed_are_replaced(lab: Lab, runtime: Runtime) -> None:
    before = await all_parked(runtime)
    for monitor in before:
        os.kill(monitor, signal.SIGKILL)
    await gone(before.keys())
    record, output = await lab.run(["echo", "served"])
    assert (record.exit_code, output) == (0, "served\n")
    assert not (await all_parked(runtime)).keys() & before.keys()


async def test_nobody_waits_once_the_daemon_has_gone(runtime: Runtime) -> None:
    before = await all_parked(runtime)
    await runtime.close()
    await gone(pid for pair in before.items() for pid in pair)


def test_the_reborn_has_the_memory_and_a_namespace_of_its_own() -> None:
    said, saying = os.pipe()
    parent = os.fork()
    if parent == 0:
        first = os.fork()
        if first == 0:
            memory = ["as it was"]
            namespaces.unshare(namespaces.CLONE_NEWPID)
            before = os.getpid()
            pid = namespaces.be_reborn(None)
            os.write(saying, f"{memory[0]} {os.getpid()} {pid != before} {pid}\n".encode())
            signal.pause()
        pid = int(os.read(said, 100).split()[-1])
        os.kill(first, signal.SIGKILL)
        os.waitpid(first, 0)
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        os.write(saying, f"as it was 1 True killed by {os.waitstatus_to_exitcode(status)}\n".encode())
        os._exit(0)
    os.waitpid(parent, 0)
    os.close(saying)
    with open(said, encoding="utf-8") as file:
        assert file.read() == "as it was 1 True killed by -9\n"
