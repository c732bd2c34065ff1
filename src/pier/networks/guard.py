"""Keeps the firewall table in place: what others change or flush is noticed on the event loop and put right."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from pier.errors import PierError
from pier.kernel.nfwatch import TableWatch
from pier.networks.host import HostSide

__all__ = ["FirewallGuard"]

SETTLE_S = 0.05
"""Others change a table in several steps: those are waited for."""
AGAIN_S = 1.0
"""Between two repairs, where somebody changes it again and again, and until the next try where one failed."""


class FirewallGuard:
    """One per daemon, on its event loop."""

    def __init__(
        self,
        host: HostSide,
        work: Callable[[Callable[[], Any]], Awaitable[Any]],
        told: Callable[[str], None],
    ) -> None:
        """`work` does something in the thread of kernel work; `told` is given what was done, in words."""
        self._host = host
        self._work = work
        self._told = told
        self._watch: TableWatch | None = None
        self._task: asyncio.Task[None] | None = None
        self._changed: set[str] = set()
        self._not_before = 0.0

    async def start(self) -> None:
        """Begin to watch; a machine without nftables has nothing to watch."""
        self._watch = await self._work(self._host.watch)
        if self._watch is not None:
            asyncio.get_running_loop().add_reader(self._watch, self._read)

    async def close(self) -> None:
        """End; a repair that is under way is ended first."""
        if self._watch is not None:
            asyncio.get_running_loop().remove_reader(self._watch)
            self._watch.close()
            self._watch = None
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def _read(self) -> None:
        assert self._watch is not None
        self._changed |= self._watch.changed()
        if self._changed and self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._repair())
            self._task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._task = None

    async def _repair(self) -> None:
        """Put everything right, however often that takes."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(SETTLE_S, self._not_before - loop.time()))
        while self._changed:
            changed, self._changed = frozenset(self._changed), set()
            try:
                by = self._watch.changed_by if self._watch is not None else ""
                done: list[str] = await self._work(partial(self._host.repair, changed, by))
            except (OSError, PierError) as error:
                self._told(f"{', '.join(sorted(changed))} was changed by others and cannot be put right: {error}")
                self._changed |= changed
                done = []
            for words in done:
                self._told(words)
            self._not_before = loop.time() + AGAIN_S
            if self._changed:
                await asyncio.sleep(AGAIN_S)
