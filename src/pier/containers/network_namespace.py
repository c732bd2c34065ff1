"""The network namespace of a container that runs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator

from pier.containers.world import Container
from pier.errors import Conflict
from pier.kernel.paths import closing
from pier.runtime.client import Monitor, MonitorError, MonitorLost

__all__ = ["EndedMeanwhile", "namespace_of", "network_namespace", "parent_of"]


class EndedMeanwhile(Conflict):
    """container {id} has ended meanwhile"""


@contextlib.asynccontextmanager
async def network_namespace(container: Container) -> AsyncIterator[int]:
    """The descriptor of a running container's network namespace. Raises EndedMeanwhile.

    The number of its first process could be another's by the time the file is opened; but only its monitor's child is
    in the container.
    """
    monitor = container.monitor
    if monitor is None:
        raise EndedMeanwhile(id=container.id)
    try:
        fd, parent = namespace_of(monitor.pid)
    except (OSError, ValueError) as error:
        raise EndedMeanwhile(id=container.id) from error
    try:
        if parent != monitor.own_pid:
            await _ask(container, monitor)
        yield fd
    finally:
        os.close(fd)


def namespace_of(pid: int) -> tuple[int, int]:
    """A process's network namespace, and its parent. Raises OSError, ValueError for one that has ended."""
    with closing(os.open(f"/proc/{pid}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as process:
        fd = os.open("ns/net", os.O_RDONLY | os.O_CLOEXEC, dir_fd=process)
        try:
            with closing(os.open("stat", os.O_RDONLY | os.O_CLOEXEC, dir_fd=process)) as stat:
                return fd, parent_of(os.read(stat, 4096))
        except BaseException:
            os.close(fd)
            raise


def parent_of(stat: bytes) -> int:
    """The fourth field of /proc/PID/stat, behind a name that may hold anything (proc(5)). Raises ValueError."""
    return int(stat.rpartition(b")")[2].split()[1])


async def _ask(container: Container, monitor: Monitor) -> None:
    """A monitor buries its children itself: what it can signal has not ended."""
    try:
        await monitor.signal(0)
    except (MonitorError, MonitorLost) as error:
        raise EndedMeanwhile(id=container.id) from error
