"""Remove a container (`rm`): only what does not run, or is ended first."""

from __future__ import annotations

import asyncio

from pier.containers import declared_data, links
from pier.containers.discard import discard
from pier.containers.lifecycle import change_over, end_now, forget_restart
from pier.containers.world import Container, World
from pier.errors import Conflict


class CannotRemove(Conflict):
    """cannot remove container "{ref}": container is running: stop the container before removing or force remove"""


class CannotRemovePaused(Conflict):
    """cannot remove container "{ref}": container is paused and must be unpaused first"""


class RemovalInProgress(Conflict):
    """removal of container {id} is already in progress"""


async def remove(
    world: World, ref: str, *, force: bool, volumes: bool = False, link: bool = False, keep_data: bool = False
) -> None:
    """Remove a container and everything it has, with `volumes` also those of its volumes that have no name and no other
    user; with `keep_data` not one that has data to lose.

    Raises CannotRemove, RemovalInProgress, HoldsData, NotFound, OSError.
    """
    if link:
        await links.remove(world, ref)
        return
    container = world.find(ref)
    while not await _remove_at_rest(world, container, ref, force=force, volumes=volumes, keep_data=keep_data):
        pass


async def _remove_at_rest(
    world: World, container: Container, ref: str, *, force: bool, volumes: bool, keep_data: bool
) -> bool:
    """As `remove`; False where a restart has started the container again after it was ended."""
    await change_over(container)
    if container.running:
        if not force:
            if container.record.state.status == "paused":
                raise CannotRemovePaused(ref=ref)
            raise CannotRemove(ref=ref)
        await forget_restart(world, container)
        if container.monitor is not None:
            await end_now(world, container)
    async with container.lock:
        if container.id not in world.containers:  # it removed itself meanwhile
            return True
        if container.record.state.status == "removing":
            raise RemovalInProgress(id=container.id)
        if container.running:
            if force:
                return False
            raise CannotRemove(ref=ref)
        if keep_data:
            await asyncio.to_thread(declared_data.refuse, world, container.record, ref)
        container.record.state.status = "removing"
        container.record.removes_volumes = volumes
        await world.save(container)
        await discard(world, container)
    return True
