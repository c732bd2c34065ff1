"""Pause a container and let it go on: its cgroup is frozen, its program notices nothing but the time."""

from __future__ import annotations

import asyncio

from pier.containers.start import NotRunning, Restarting, cgroup_of
from pier.containers.world import Container, World, finish
from pier.errors import Conflict


class AlreadyPaused(Conflict):
    """Container {id} is already paused"""


class NotPaused(Conflict):
    """Container {id} is not paused"""


async def pause(world: World, container: Container) -> None:
    """Freeze every process of a running container.

    Raises NotRunning, Restarting, AlreadyPaused, MonitorError, OSError.
    """
    async with container.lock:
        state = container.record.state
        if state.status == "paused":
            raise AlreadyPaused(id=container.id)
        if state.status == "restarting":
            raise Restarting(id=container.id)
        if state.status != "running" or container.monitor is None:
            raise NotRunning(id=container.id)
        await finish(_freeze(world, container))


async def _freeze(world: World, container: Container) -> None:
    if container.monitor is not None and container.monitor.foreign:
        await container.monitor.pause()
    else:
        await asyncio.to_thread(cgroup_of(world, container).freeze)
    container.record.state.status = "paused"
    world.health.sync(container)
    await world.save(container)
    world.publish(container, "pause")


async def unpause(world: World, container: Container) -> None:
    """Let a paused container go on. Raises NotPaused, MonitorError, OSError."""
    if not await thaw(world, container):
        raise NotPaused(id=container.id)
    world.publish(container, "unpause")


async def thaw(world: World, container: Container) -> bool:
    """Unpause if it is paused, without an event; False: it was not. A frozen process takes no signal."""
    async with container.lock:
        if container.record.state.status != "paused":
            return False
        await finish(_thaw(world, container))
        return True


async def _thaw(world: World, container: Container) -> None:
    if container.monitor is not None and container.monitor.foreign:
        await container.monitor.resume()
    else:
        await asyncio.to_thread(cgroup_of(world, container).thaw)
    container.record.state.status = "running"
    world.health.sync(container)
    await world.save(container)
