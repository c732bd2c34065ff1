"""Delete a container for good: what it has on disk, then what is known of it."""

from __future__ import annotations

import asyncio

from pier.containers.create import remove_folders
from pier.containers.networking import disconnect
from pier.containers.record import KIND
from pier.containers.start import close_pending
from pier.containers.volume_mounts import to_remove
from pier.containers.waiters import WAIT_CONDITIONS, wake
from pier.containers.world import Container, World
from pier.state import Delete


async def discard(world: World, container: Container) -> None:
    """Delete a container that does not run: files, layer, record, name, and its volumes without a name if asked to.

    The caller holds its lock. Raises OSError.
    """
    close_pending(container)
    await disconnect(world, container)
    try:
        await asyncio.to_thread(remove_folders, world, container.id)
    except OSError:
        container.record.state.status = "dead"
        await world.save(container)
        raise
    record = container.record
    volumes = to_remove(record) if record.removes_volumes or record.host_config.auto_remove else []
    async with world.volumes.removing(volumes, user=container.id) as changes:
        await world.store.write(Delete(KIND, container.id), *changes)
        world.containers.pop(container.id, None)
    world.id_maps.pop(container.id, None)
    if world.names.get(container.record.name) == container.id:
        del world.names[container.record.name]
    world.publish(container, "destroy")
    wake(container, container.record.state.exit_code, conditions=WAIT_CONDITIONS)
