"""Looks at what running containers have of their networks: all who ask at a time are answered by one thread."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import NamedTuple

from pier.networks.endpoint import Sandbox
from pier.networks.plugging import Faults, faults
from pier.networks.publishing import Work

__all__ = ["Looks"]


class _Asked(NamedTuple):
    netns_fd: int
    sandbox: Sandbox
    answer: asyncio.Future[Faults]


class Looks:
    """One per daemon: at its start it looks at every container."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._asked: list[_Asked] = []
        self._task: asyncio.Task[None] | None = None

    async def faults(self, netns_fd: int, sandbox: Sandbox) -> Faults:
        """What is not as `sandbox` says in a container's network namespace. Raises OSError."""
        if not any(sandbox.interfaces):
            return Faults([], misrouted=False)
        asked = _Asked(netns_fd, sandbox, asyncio.get_running_loop().create_future())
        self._asked.append(asked)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._answer(), name="looks at networks")
        return await asked.answer

    async def _answer(self) -> None:
        while self._asked:
            asked, self._asked = self._asked, []
            places = [(one.netns_fd, one.sandbox) for one in asked]
            found: list[Faults | BaseException]
            try:
                found = await self._work(partial(faults, places))
            except Exception as error:
                found = [error] * len(asked)
            for one, answer in zip(asked, found, strict=True):
                if one.answer.done():
                    continue
                if isinstance(answer, BaseException):
                    one.answer.set_exception(answer)
                else:
                    one.answer.set_result(answer)
