"""Pause a container and let it go on: its cgroup is frozen, its program notices nothing but the time."""

from __future__ import annotations

import asyncio

from pier.containers.start import NotRunning, cgroups_path
from pier.containers.world import Container, World
from pier.errors import Conflict
from pier.kernel.cgroups import Cgroup


class AlreadyPaused(Conflict):
    """Container {id} is already paused"""


class NotPaused(Conflict):
    """Container {id} is not paused"""


def _cgroup(world: World, container: Container) -> Cgroup:
    return Cgroup(world.config.cgroups, cgroups_path(world, container.record))


async def pause(world: World, container: Container) -> None:
    """Freeze every process of a running container. Raises NotRunning, AlreadyPaused, OSError."""
    async with container.lock:
        state = container.record.state
        if state.status == "paused":
            raise AlreadyPaused(id=container.id)
        if state.status != "running" or container.monitor is None:
            raise NotRunning(id=container.id)
        await asyncio.to_thread(_cgroup(world, container).freeze)
        state.status = "paused"
        await world.save(container)
    world.publish(container, "pause")


async def unpause(world: World, container: Container) -> None:
    """Let a paused container go on. Raises NotRunning, NotPaused, OSError."""
    if not container.running:
        raise NotRunning(id=container.id)
    if container.record.state.status != "paused":
        raise NotPaused(id=container.id)
    await thaw(world, container)


async def thaw(world: World, container: Container) -> None:
    """Unpause if it is paused: a frozen process takes no signal."""
    async with container.lock:
        state = container.record.state
        if state.status != "paused":
            return
        await asyncio.to_thread(_cgroup(world, container).thaw)
        state.status = "running"
        await world.save(container)
    world.publish(container, "unpause")
