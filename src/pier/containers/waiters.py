"""Those who wait for a container's end: registered by condition, woken once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from pier.containers.world import Container, World
from pier.errors import InvalidParameter
from pier.model.container import ContainerWaitResponse

WAIT_CONDITIONS = ("not-running", "next-exit", "removed")


def wake(container: Container, exit_code: int, *, conditions: tuple[str, ...]) -> None:
    """Tell those who wait for one of the conditions."""
    kept = []
    for condition, future in container.waiters:
        if condition in conditions:
            if not future.done():
                future.set_result(exit_code)
        else:
            kept.append((condition, future))
    container.waiters = kept


def wait(world: World, ref: str, condition: str) -> Awaitable[ContainerWaitResponse]:
    """Wait for an end; registered at the call, so that none is missed before the result is awaited.

    Raises NoSuchContainer, InvalidParameter at the call.
    """
    container = world.find(ref)
    condition = condition or "not-running"
    if condition not in WAIT_CONDITIONS:
        raise InvalidParameter(f'invalid condition: "{condition}"')
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    if condition == "not-running" and not container.running:
        future.set_result(container.record.state.exit_code)
    else:
        kind = "removed" if condition == "removed" else "next-exit"
        container.waiters.append((kind, future))
    return _answer(container, future)


async def _answer(container: Container, future: asyncio.Future[int]) -> ContainerWaitResponse:
    try:
        return ContainerWaitResponse(status_code=await future)
    finally:
        container.waiters = [item for item in container.waiters if item[1] is not future]
