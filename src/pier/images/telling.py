"""A long task that tells its progress: run beside its reader, ended with it, its failure one sentence."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from typing import Final, TypeVar

from pier.errors import first_of
from pier.images.progress import Message

BACKLOG: Final = 64
"""Messages a slow reader may be behind before the task waits for it."""
TICK_S: Final = 0.1
"""How often the progress of a blob is told."""

T = TypeVar("T")
Say = Callable[[Message], Awaitable[None]]


async def telling(work: Callable[[Say], Coroutine[None, None, None]], *, name: str) -> AsyncGenerator[Message, None]:
    """What `work` says, as it says it; raises what `work` raises. Closing the generator ends the work."""
    said: asyncio.Queue[Message] = asyncio.Queue(BACKLOG)
    task = asyncio.create_task(single_error(work(said.put)), name=name)
    try:
        while not task.done():
            arrival = asyncio.ensure_future(said.get())
            try:
                await asyncio.wait({task, arrival}, return_when=asyncio.FIRST_COMPLETED)
                if arrival.done():
                    yield arrival.result()
            finally:
                arrival.cancel()
        while not said.empty():
            yield said.get_nowait()
        await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def single_error(work: Coroutine[None, None, T]) -> T:
    """Raise the first of a group's errors alone: whoever reads messages wants one sentence."""
    try:
        return await work
    except BaseExceptionGroup as group:
        raise first_of(group) from None
