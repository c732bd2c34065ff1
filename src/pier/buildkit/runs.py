"""Builds of BuildKit's clients while they run, and for a little while after, so that whoever watches sees the end."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from pier.builder.graph import Output, Vertex, below
from pier.builder.service import BuildService
from pier.builder.session import Session
from pier.builder.solver import Build
from pier.builder.tree import SCRATCH, Result
from pier.buildkit.results import Outcome, Part, Parts
from pier.errors import NotFound

__all__ = ["Run", "Runs"]

ENDED_MAX: Final = 8
COMES_WITHIN_S: Final = 6.0
"""Calls about a build may be here before it is."""


class NoSuchBuild(NotFound):
    """no such job {id}"""


@dataclass(eq=False, slots=True)
class Run:
    """One build."""

    build: Build
    service: BuildService
    parts: Parts = field(default_factory=Parts)
    files: dict[str, bytes] = field(default_factory=dict)
    """Dockerfiles it has read, by name: what places in errors and warnings mean."""
    carries_cache: bool = False
    """Its images tell which steps made their layers (`--cache-to type=inline`)."""
    planned: list[Vertex] = field(default_factory=list)
    """Steps that are known to come."""
    returned: asyncio.Future[Outcome] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    """What the client's own frontend gives back, where it has one."""

    @property
    def session(self) -> Session:
        return self.build.session

    async def solve(self, outputs: Sequence[Output]) -> list[Result]:
        """Raises StepFailed."""
        known = {vertex.digest for vertex in self.planned}
        self.planned += [vertex for vertex in below(outputs) if vertex.digest not in known]
        return await self.service.solve(self.build, outputs)

    async def tree(self, part: Part) -> Result:
        """A part's files. Raises StepFailed."""
        return (await self.solve([part.output]))[0] if part.output is not None else SCRATCH

    async def trees(self, outcome: Outcome) -> dict[str, Result]:
        """All parts' files, made side by side. Raises StepFailed."""
        wanted = {name: part.output for name, part in outcome.parts.items() if part.output is not None}
        solved = dict(zip(wanted, await self.solve(list(wanted.values())), strict=True)) if wanted else {}
        return {name: solved.get(name, SCRATCH) for name in outcome.parts}


class Runs:
    """All builds, by the ids that their clients gave them."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Run] = OrderedDict()
        self._running: set[str] = set()
        self._news = asyncio.Event()

    def add(self, run: Run) -> None:
        self._known[run.build.id] = run
        self._running.add(run.build.id)
        self._news.set()
        self._news = asyncio.Event()

    def end(self, run: Run) -> None:
        """It has ended; what it told can be read for a while."""
        self._running.discard(run.build.id)
        if not run.returned.done():
            run.returned.cancel()
        ended = [id for id in self._known if id not in self._running]
        for id in ended[: max(0, len(ended) - ENDED_MAX)]:
            del self._known[id]

    async def get(self, id: str) -> Run:
        """Waits a little for one that is not there yet. Raises NoSuchBuild."""
        try:
            async with asyncio.timeout(COMES_WITHIN_S):
                while id not in self._known:
                    await self._news.wait()
        except TimeoutError:
            raise NoSuchBuild(id=id) from None
        return self._known[id]
