"""The neighbours of a container that has just joined networks are told of its addresses, while it runs on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from pier.containers.network_namespace import EndedMeanwhile, network_namespace
from pier.containers.world import Container, World
from pier.errors import NotFound
from pier.networks import Endpoint
from pier.networks.announce import announce, cadence, is_news

__all__ = ["tell"]


def tell(world: World, container: Container, endpoints: Iterable[Endpoint]) -> None:
    """Begin to tell them, where they may remember another device behind an address; it ends with the container."""
    told = [one for one in endpoints if one.interface is not None and is_news(one.interface)]
    if told:
        world.tasks.start(_tell(world, container, told), f"announcements of {container.id[:12]}")


async def _tell(world: World, container: Container, endpoints: Iterable[Endpoint]) -> None:
    try:
        async with network_namespace(container) as netns_fd:
            await asyncio.gather(*(_tell_of(world, netns_fd, endpoint) for endpoint in endpoints))
    except EndedMeanwhile:
        pass


async def _tell_of(world: World, netns_fd: int, endpoint: Endpoint) -> None:
    try:
        options = world.networks.find(endpoint.network_id).options
    except NotFound:
        return
    times, interval_s = cadence(options)
    assert endpoint.interface is not None
    await announce(netns_fd, endpoint.interface, times=times, interval_s=interval_s)
