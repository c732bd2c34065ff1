"""The network namespace of a container's first process, and not of whoever has its number by now."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from pier.containers.network_namespace import EndedMeanwhile, namespace_of, network_namespace, parent_of
from pier.runtime.client import MonitorLost


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "100"])
    yield process
    process.kill()
    process.wait()


async def opened(container: Any) -> int:
    async with network_namespace(container) as fd:
        return os.fstat(fd).st_ino


async def running(house: Any, pid: int, own_pid: int) -> Any:
    monitor = await house.run()
    monitor.pid, monitor.own_pid = pid, own_pid
    asked = []

    async def signal(number: int, *, exec_id: str | None = None) -> None:
        asked.append(number)
        if monitor.ended.done():
            raise MonitorLost

    monitor.signal, monitor.numbers = signal, asked
    return house.service._world.containers[monitor.id], monitor


@pytest.mark.parametrize("name", ["sleep", "a) S 1 (b", ") R 7 8"])
def test_parent_of(name: str) -> None:
    assert parent_of(f"42 ({name}) S 17 42 42 0 -1".encode()) == 17


def test_what_has_ended_has_no_namespace(child: subprocess.Popen[bytes]) -> None:
    fd, parent = namespace_of(child.pid)
    os.close(fd)
    assert parent == os.getpid()
    before = os.listdir("/proc/self/fd")
    child.kill()
    child.wait()
    with pytest.raises(OSError, match=str(child.pid)):
        namespace_of(child.pid)
    assert os.listdir("/proc/self/fd") == before


async def test_a_child_of_the_monitor_is_the_container(house: Any, child: subprocess.Popen[bytes]) -> None:
    container, monitor = await running(house, child.pid, os.getpid())
    assert await opened(container) == os.stat("/proc/self/ns/net").st_ino
    assert monitor.numbers == []


async def test_of_another_the_monitor_is_asked(house: Any, child: subprocess.Popen[bytes]) -> None:
    container, monitor = await running(house, child.pid, os.getppid())
    assert await opened(container)
    assert monitor.numbers == [0]
    monitor.end(0)
    container.monitor = monitor
    with pytest.raises(EndedMeanwhile):
        await opened(container)
