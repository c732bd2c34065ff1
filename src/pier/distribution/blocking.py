"""Blocking calls from asynchronous code, with a cancellation that does not leave the thread behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `call` in a worker thread. When cancelled, wait until the call has ended, then be cancelled.

    What the call works on (an open file, a folder) is thus never closed or removed under its hands.
    """
    return await interruptible(partial(call, *args, **kwargs), interrupt=lambda: None)


async def interruptible(call: Callable[[], T], *, interrupt: Callable[[], object]) -> T:
    """The same for a call that takes long: `interrupt` tells it to come to an end, its result is then dropped."""
    work = asyncio.ensure_future(asyncio.to_thread(call))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        interrupt()
        while not work.done():
            try:
                await asyncio.wait([work])
            except asyncio.CancelledError:
                continue
        if not work.cancelled():
            work.exception()  # seen here: the caller is told of the cancellation instead
        raise
