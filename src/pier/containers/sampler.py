"""Readings for everyone who watches what containers use: all of them in one go once a second, from files held open."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from pier.containers import stats
from pier.containers.start import cgroup_of
from pier.containers.world import Container, World, finish
from pier.model import wire
from pier.model.container import ContainerStatsResponse, CPUStats

PERIOD_S = 1.0
ALONE_S = 0.5
"""Between the two readings of who wants one alone: Docker's client gives up after two seconds."""
NOBODY = ContainerStatsResponse()
"""What a first reading was preceded by."""


@dataclass(eq=False, slots=True)
class Watched:
    """A container that someone watches."""

    container: Container
    watchers: int = 0
    latest: ContainerStatsResponse | None = None
    latest_s: float = 0.0
    """When, by the event loop's clock."""
    waiting: list[asyncio.Future[ContainerStatsResponse]] = field(default_factory=list)
    reader: stats.Reader | None = None
    """Of its present run; used, and closed, by the sampler's task alone."""

    def publish(self, reading: ContainerStatsResponse, now_s: float) -> None:
        """Hand a reading with its predecessor to all who wait for it."""
        before = self.latest or NOBODY
        reading.preread, reading.precpu_stats = before.read, before.cpu_stats
        self.latest, self.latest_s = reading, now_s
        waiting, self.waiting = self.waiting, []
        for one in waiting:
            if not one.done():
                one.set_result(reading)


class Sampler:
    """One for each service. Its task runs, and holds files open, while someone watches."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._watched: dict[str, Watched] = {}
        self._task: asyncio.Task[None] | None = None

    async def stream(self, container: Container, *, stream: bool, one_shot: bool) -> AsyncIterator[dict[str, Any]]:
        """Readings as JSON objects: one a second, or one alone (after a while, for the rate, unless `one_shot`)."""
        if not stream:
            yield wire.to_builtins(await self._alone(container, one_shot=one_shot))
            return
        with self._watch(container) as watched:
            if watched.latest is None or self._now_s() - watched.latest_s > PERIOD_S:
                watched.publish(await self._now(container), self._now_s())
            assert watched.latest is not None
            yield wire.to_builtins(
                msgspec.structs.replace(watched.latest, preread=NOBODY.read, precpu_stats=CPUStats())
            )
            while container.id in self._world.containers and self._task is not None and not self._task.done():
                following: asyncio.Future[ContainerStatsResponse] = asyncio.get_running_loop().create_future()
                watched.waiting.append(following)
                yield wire.to_builtins(await following)

    async def _alone(self, container: Container, *, one_shot: bool) -> ContainerStatsResponse:
        before = NOBODY
        if not one_shot and container.record.state.pid:
            before = await self._now(container)
            await asyncio.sleep(ALONE_S)
        reading = await self._now(container)
        reading.preread, reading.precpu_stats = before.read, before.cpu_stats
        return reading

    async def _now(self, container: Container) -> ContainerStatsResponse:
        """One reading without its predecessor, by files opened for it."""
        reader = self._reader(container)
        if reader is None:
            return self._of_none(container)
        return await asyncio.to_thread(_once, reader, container.record.name)

    def _reader(self, container: Container) -> stats.Reader | None:
        """Of the present run; None: there is none."""
        pid = container.record.state.pid
        return stats.Reader(container.id, cgroup_of(self._world, container), pid) if pid else None

    def _of_none(self, container: Container) -> ContainerStatsResponse:
        """Of a container that does not run only its name is shown."""
        return ContainerStatsResponse(name=f"/{container.record.name}", id=container.id)

    @contextlib.contextmanager
    def _watch(self, container: Container) -> Iterator[Watched]:
        watched = self._watched.setdefault(container.id, Watched(container))
        watched.watchers += 1
        if self._task is None or self._task.done():
            self._task = self._world.tasks.start(self._run(), "stats")
        try:
            yield watched
        finally:
            watched.watchers -= 1

    async def _run(self) -> None:
        try:
            while self._keep_watched():
                await asyncio.sleep(PERIOD_S)
                await self._read_due()
        except Exception as error:
            self._fail(error)
            raise
        finally:
            self._fail(asyncio.CancelledError())
            for watched in self._watched.values():
                _close(watched)
            self._watched.clear()

    async def _read_due(self) -> None:
        due = [one for one in self._watched.values() if self._is_due(one)]
        work = [work for one in due if (work := self._work(one)) is not None]
        # To the end, even if this is cancelled: the thread must be out of the files before they are closed.
        readings = await finish(asyncio.to_thread(_read_all, [(reader, name) for _, reader, name in work]))
        now_s = self._now_s()
        for (watched, _, _), reading in zip(work, readings, strict=True):
            watched.publish(reading, now_s)

    def _fail(self, error: BaseException) -> None:
        """Nothing more comes for those who wait."""
        for watched in self._watched.values():
            for one in watched.waiting:
                if not one.done():
                    one.set_exception(error)
            watched.waiting.clear()

    def _keep_watched(self) -> bool:
        """Forget what nobody watches any more; is there anything left?"""
        for id, watched in list(self._watched.items()):
            if not watched.watchers:
                _close(watched)
                del self._watched[id]
        return bool(self._watched)

    def _is_due(self, watched: Watched) -> bool:
        """One who has just come has had his first reading a moment ago."""
        return watched.watchers > 0 and self._now_s() - watched.latest_s > PERIOD_S / 2

    def _work(self, watched: Watched) -> tuple[Watched, stats.Reader, str] | None:
        """What the thread needs; a container that does not run is told of at once."""
        container = watched.container
        if watched.reader is None or watched.reader.pid != container.record.state.pid:
            _close(watched)
            watched.reader = self._reader(container)
        if watched.reader is None:
            watched.publish(self._of_none(container), self._now_s())
            return None
        return watched, watched.reader, container.record.name

    @staticmethod
    def _now_s() -> float:
        return asyncio.get_running_loop().time()


def _once(reader: stats.Reader, name: str) -> ContainerStatsResponse:
    try:
        return reader.read(name, stats.Host.now())
    finally:
        reader.close()


def _read_all(work: list[tuple[stats.Reader, str]]) -> list[ContainerStatsResponse]:
    """In a thread; the machine's own figures are read once for all."""
    host = stats.Host.now()
    return [reader.read(name, host) for reader, name in work]


def _close(watched: Watched) -> None:
    if watched.reader is not None:
        watched.reader.close()
        watched.reader = None
