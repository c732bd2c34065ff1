"""The network namespace of a container that runs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator

from pier.containers.world import Container
from pier.errors import Conflict
from pier.kernel.namespaces import namespace_path
from pier.runtime.client import MonitorError, MonitorLost

__all__ = ["EndedMeanwhile", "network_namespace"]


class EndedMeanwhile(Conflict):
    """container {id} has ended meanwhile"""


@contextlib.asynccontextmanager
async def network_namespace(container: Container) -> AsyncIterator[int]:
    """The descriptor of a running container's network namespace. Raises EndedMeanwhile.

    The number of its first process could be another's by the time the file is opened; its monitor, which buries it,
    says that it is not.
    """
    monitor = container.monitor
    if monitor is None:
        raise EndedMeanwhile(id=container.id)
    try:
        fd = os.open(namespace_path(monitor.pid, "network"), os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise EndedMeanwhile(id=container.id) from error
    try:
        try:
            await monitor.signal(0)
        except (MonitorError, MonitorLost) as error:
            raise EndedMeanwhile(id=container.id) from error
        yield fd
    finally:
        os.close(fd)
