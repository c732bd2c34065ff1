"""The end of a daemon that takes its containers with it (`"live-restore": false`), as dockerd's does."""

from __future__ import annotations

import asyncio

from pier.containers import signals
from pier.containers.freezer import thaw
from pier.containers.lifecycle import end_now, ended_within, send_signal
from pier.containers.world import Container, World, log
from pier.errors import PierError


async def stop_all(world: World) -> None:
    """Stop every container by its own signal, after its own timeout by SIGKILL; none is started by policy meanwhile.

    It is not the user who stops them: the next daemon starts those whose policy says so.
    """
    world.closing = True
    await asyncio.gather(*(_end(world, item) for item in list(world.containers.values()) if item.running))


async def _end(world: World, container: Container) -> None:
    config = container.record.config
    try:
        async with container.lock:  # a start that is under way ends first
            if container.record.state.status == "restarting":
                container.record.state.status = "exited"
                await world.save(container)
        container.wake_restart.set()
        await send_signal(world, container, signals.stop_signal(config))
        await thaw(world, container)
        if not await ended_within(container, signals.stop_timeout_s(config)):
            await end_now(world, container)
    except (PierError, OSError) as error:
        log.error("container %s was not stopped: %s", container.record.name, error)
