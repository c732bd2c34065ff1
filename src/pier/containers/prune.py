"""`docker container prune`: remove the containers that do not run."""

from __future__ import annotations

import asyncio
import time

from pier.containers import removal
from pier.containers.world import Container, World
from pier.errors import Conflict, NotFound
from pier.model.container import ContainersPruneResponse
from pier.model.filters import Filters, pruned_before_ns
from pier.oci import Digest

FILTERS = ("label", "label!", "until")


async def prune(world: World, filters: Filters) -> ContainersPruneResponse:
    """Remove the stopped containers that fit, the newest first. Raises UnknownFilter, BadTime, SeveralUntil, OSError.

    Bytes are those of their writable layers. One that is started, or removed by someone else, meanwhile is left alone.
    """
    filters.validate(FILTERS)
    before_ns = pruned_before_ns(filters, time.time_ns())
    chosen = [one for one in world.containers.values() if _fits(one, filters, before_ns)]
    gone: list[str] = []
    freed = 0
    for container in sorted(chosen, key=lambda one: one.record.created_ns, reverse=True):
        try:
            layers = [Digest(layer) for layer in container.record.layers]
            written = await asyncio.to_thread(world.snapshots.usage, container.id, layers)
            await removal.remove(world, container.id, force=False)
        except (Conflict, NotFound):
            continue
        gone.append(container.id)
        freed += written
    world.events.publish("container", "prune", "", {"reclaimed": str(freed)})
    return ContainersPruneResponse(containers_deleted=gone or None, space_reclaimed=freed)


def _fits(container: Container, filters: Filters, before_ns: int | None) -> bool:
    record = container.record
    labels = record.config.labels or {}
    return (
        not container.running
        and (before_ns is None or record.created_ns <= before_ns)
        and filters.key_values("label", labels)
        and filters.lacks_key_values("label!", labels)
    )
