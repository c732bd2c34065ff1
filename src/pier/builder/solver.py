"""The solver: from the outputs that are wanted down to what has to be done for them, each step once.

For each wanted step the cache is asked by its definition key; where it knows the answer nothing below is looked at.
Else the step's inputs are solved, side by side, the cache is asked by what they hold, and only then the step is run.
A step that several builds want at once is one job, which ends when the last of them has lost interest.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pier.builder import keys
from pier.builder.cache import Cache, Record
from pier.builder.graph import Output, Source, Vertex, below, outputs_of
from pier.builder.progress import Broadcast, Event, Finished, Journal, Started, Step
from pier.builder.session import Session
from pier.builder.tree import Folder, Result, Tree
from pier.errors import InvalidParameter, PierError, first_of


class StepFailed(PierError):
    """failed to solve: {reason}"""

    def __init__(self, vertex: Vertex, error: Exception) -> None:
        self.vertex = vertex
        self.cause = error
        super().__init__(reason=error.message if isinstance(error, PierError) else str(error))
        self.status = error.status if isinstance(error, PierError) else 500


class UnknownSource(InvalidParameter):
    """failed to load source {identifier!r}: no source is called {scheme!r}"""


@dataclass(slots=True)
class Work:
    """One step that is run: what its executor gets."""

    vertex: Vertex
    inputs: Sequence[Result]
    broadcast: Broadcast
    builds: list[Build] = field(default_factory=list)
    """Those that wait for it; the first still alive answers for session and limits."""

    @property
    def build(self) -> Build:
        return self.builds[0]

    @property
    def session(self) -> Session:
        return self.build.session


@dataclass(frozen=True, slots=True)
class Found:
    """What a source is at the moment."""

    key: str
    """Digest, commit, checksum: the same only for the same files."""
    pinned: Any = None
    """What `fetch` needs to know again."""


class SourceKind(Protocol):
    """Where files come from."""

    type: str
    """Of its cache records; empty: the cache is not asked, another store has its files."""

    async def find(self, vertex: Vertex, build: Build, say: Broadcast) -> Found:
        """Look up what the source is now, without fetching more than that takes."""
        ...

    async def fetch(self, work: Work, found: Found) -> Result: ...


Executor = Callable[[Work], Coroutine[Any, Any, Sequence[Tree]]]
"""Runs a step; one tree for each of its outputs."""
Checksum = Callable[[Result, tuple[keys.Selection, ...]], Coroutine[Any, Any, str]]


class Offer(Protocol):
    """A cache from elsewhere."""

    async def take(self, key: str) -> Record | None:
        """The record of a step, now one of this builder's cache; None: it has no such step."""
        ...


@dataclass(eq=False, slots=True)
class Build:
    """One client's build, while it runs."""

    id: str
    session: Session
    journal: Journal = field(default_factory=Journal)
    entitlements: frozenset[str] = frozenset()
    """`network.host`, `security.insecure`: what its steps may ask for."""
    memory: dict[Any, Any] = field(default_factory=dict)
    """What sources have found, for as long as the build runs."""
    records: dict[str, Record] = field(default_factory=dict)
    """What of the cache it stands on, or has added."""
    offers: list[Offer] = field(default_factory=list)
    """Caches from elsewhere, asked in this order where the builder's own does not know a step."""
    cleanups: list[Callable[[], None]] = field(default_factory=list)
    """Called in a thread when it has ended."""
    leaving: set[asyncio.Task[None]] = field(default_factory=set)
    """What steps that are done still put away; waited for when it ends, so that the next step need not."""
    told: set[str] = field(default_factory=set)
    """Digests of the steps it has told of."""
    _sources: dict[str, asyncio.Task[Found]] = field(default_factory=dict)
    _keys: dict[str, str] = field(default_factory=dict)
    """Vertex -> definition key to ask the cache by: one of its own at and above a step that ignores the cache."""
    _lasting: dict[str, str] = field(default_factory=dict)
    """Vertex -> definition key to remember it by."""
    _tasks: dict[str, asyncio.Task[Solved]] = field(default_factory=dict)
    _releases: list[Callable[[], None]] = field(default_factory=list)

    def say(self, event: Event) -> None:
        if isinstance(event, Started | Finished):
            self.told.add(event.step.digest)
        if isinstance(event, Finished):
            self.told.add(_end_of(event.step.digest))
        self.journal.say(event)

    def source(self, vertex: Vertex) -> Found | None:
        """What a source has been found to be; None: it is none, or not looked up yet."""
        task = self._sources.get(vertex.digest)
        return task.result() if task is not None and task.done() and not task.cancelled() else None

    def lock(self, key: Any) -> asyncio.Lock:
        """Held by whoever works out what `memory` will have under the key."""
        found: asyncio.Lock = self.memory.setdefault(("lock", key), asyncio.Lock())
        return found

    def release(self) -> None:
        """It needs no record of the cache any more."""
        for release in self._releases:
            release()
        self._releases.clear()


@dataclass(frozen=True, slots=True)
class Solved:
    """What came of a step."""

    results: Sequence[Result]
    record: Record | None = None


@dataclass(eq=False, slots=True)
class _Job:
    work: Work
    task: asyncio.Task[Solved]


class Solver:
    """One per daemon."""

    def __init__(
        self,
        cache: Cache,
        sources: Mapping[str, SourceKind],
        executors: Mapping[type, Executor],
        checksum: Checksum,
    ) -> None:
        """`sources` by scheme, `executors` by the operation's class."""
        self.cache = cache
        self._sources = sources
        self._executors = executors
        self._checksum = checksum
        self._jobs: dict[str, _Job] = {}

    async def solve(self, build: Build, outputs: Sequence[Output]) -> list[Result]:
        """The trees of the outputs. Raises StepFailed; cancelled, it leaves nothing that only this build wanted."""
        try:
            async with asyncio.TaskGroup() as group:
                await self._define(build, outputs, group)
                tasks = [self._task(build, output.vertex, group) for output in outputs]
                solved = [await task for task in tasks]
        except BaseExceptionGroup as errors:
            raise first_of(errors) from None
        return [each.results[output.index] for each, output in zip(solved, outputs, strict=True)]

    # --- definition keys

    async def _define(self, build: Build, outputs: Sequence[Output], group: asyncio.TaskGroup) -> None:
        """Work out the definition keys of all that the outputs need; sources are looked up side by side."""
        wanted = [vertex for vertex in below(outputs) if vertex.digest not in build._keys]
        for vertex in wanted:
            if isinstance(vertex.op, Source) and vertex.digest not in build._sources:
                build._sources[vertex.digest] = group.create_task(self._look_up(build, vertex))
        for vertex in wanted:
            if isinstance(vertex.op, Source):
                found = await build._sources[vertex.digest]
                key = lasting = keys.source_key(vertex, f"{vertex.op.scheme}:{found.key}")
            else:
                key, lasting = (_definition(vertex, known) for known in (build._keys, build._lasting))
            if vertex.note.ignore_cache:
                key = f"fresh:{secrets.token_hex(16)}"
            build._keys[vertex.digest], build._lasting[vertex.digest] = key, lasting

    async def _look_up(self, build: Build, vertex: Vertex) -> Found:
        step = Step.of(vertex)
        broadcast = Broadcast(step)
        broadcast.join(build.say, vertex)
        kind = self._kind(vertex)
        build.say(Started(step, time.time_ns()))
        try:
            found = await kind.find(vertex, build, broadcast)
        except Exception as error:
            build.say(Finished(step, time.time_ns(), error=_words(error)))
            raise StepFailed(vertex, error) from error
        except asyncio.CancelledError:
            build.say(Finished(step, time.time_ns(), error="canceled"))
            raise
        return found

    def _kind(self, vertex: Vertex) -> SourceKind:
        assert isinstance(vertex.op, Source)
        kind = self._sources.get(vertex.op.scheme)
        if kind is None:
            error = UnknownSource(identifier=vertex.op.identifier, scheme=vertex.op.scheme)
            raise StepFailed(vertex, error)
        return kind

    # --- steps

    def _task(self, build: Build, vertex: Vertex, group: asyncio.TaskGroup) -> asyncio.Task[Solved]:
        task = build._tasks.get(vertex.digest)
        if task is None or task.cancelled() or (task.done() and task.exception() is not None):
            task = group.create_task(self._step(build, vertex, group), name=vertex.name[:80])
            build._tasks[vertex.digest] = task
        return task

    async def _step(self, build: Build, vertex: Vertex, group: asyncio.TaskGroup) -> Solved:
        key = build._keys[vertex.digest]
        if not vertex.note.ignore_cache and (record := await self._known(build, vertex, key)):
            return self._cached(build, vertex, record)
        inputs = [self._task(build, each.vertex, group) for each in vertex.inputs]
        solved = [await task for task in inputs]
        results = [each.results[edge.index] for each, edge in zip(solved, vertex.inputs, strict=True)]
        known = [build._lasting[vertex.digest]]
        if not isinstance(vertex.op, Source):
            content = await self._content(vertex, results)
            known.append(content)
            if not vertex.note.ignore_cache and (record := await self._known(build, vertex, content)):
                self.cache.known_as(record, *known)
                return self._cached(build, vertex, record)
        parents = [each.record.id for each in solved if each.record is not None]
        return await self._shared(build, vertex, key, results, lambda work: self._run(work, known, parents))

    async def _known(self, build: Build, vertex: Vertex, key: str) -> Record | None:
        """The record of a step, of the builder's own cache or of one that the build was offered.

        What was imported may say anything of a step, also that it has other outputs than it has: that is none of it.
        """
        record = self.cache.find(key)
        for offer in build.offers if record is None else ():
            if (record := await offer.take(key)) is not None:
                break
        return record if record is not None and len(record.results) == outputs_of(vertex.op) else None

    async def _content(self, vertex: Vertex, results: Sequence[Result]) -> str:
        contents = []
        for usage, result in zip(keys.usages(vertex.op, len(results)), results, strict=True):
            contents.append(result.key if usage is None else await self._checksum(result, usage))
        return keys.content_key(vertex.op, vertex.platform, contents)

    def _cached(self, build: Build, vertex: Vertex, record: Record) -> Solved:
        """The cache knows: so it does of everything below."""
        build.records[record.id] = record
        build._releases.append(self.cache.use(record.id))
        for each in below([vertex.output()]):
            if isinstance(each.op, Source) and each is not vertex:
                self._end_of_source(build, each, cached=False)
            elif each.digest not in build.told:
                step, now = Step.of(each), time.time_ns()
                build.say(Started(step, now, cached=True))
                build.say(Finished(step, now, cached=True))
        if isinstance(vertex.op, Source):
            self._end_of_source(build, vertex, cached=True)
        return Solved(record.results, record)

    def _end_of_source(self, build: Build, vertex: Vertex, *, cached: bool) -> None:
        """Sources have told that they began when they were looked up."""
        if _end_of(vertex.digest) not in build.told:
            build.say(Finished(Step.of(vertex), time.time_ns(), cached=cached))

    async def _run(self, work: Work, known: Sequence[str], parents: Sequence[str]) -> Solved:
        vertex = work.vertex
        if isinstance(vertex.op, Source):
            kind = self._kind(vertex)
            found = work.build._sources[vertex.digest].result()
            result = await kind.fetch(work, found)
            if isinstance(result, Folder) or not kind.type:
                return Solved([result])
            record = self.cache.add(known, [result], [], type=kind.type, description=vertex.name)
            return Solved([result], record)
        results = await self._executors[type(vertex.op)](work)
        bases = [each for each in work.inputs if isinstance(each, Tree)]
        record = self.cache.add(known, results, bases, description=vertex.name, parents=parents)
        return Solved(results, record)

    # --- one job for all who want it

    async def _shared(
        self,
        build: Build,
        vertex: Vertex,
        key: str,
        inputs: Sequence[Result],
        run: Callable[[Work], Coroutine[Any, Any, Solved]],
    ) -> Solved:
        job = self._jobs.get(key)
        if job is None or job.task.done():
            broadcast = Broadcast(Step.of(vertex))
            work = Work(vertex, inputs, broadcast)
            job = _Job(work, asyncio.create_task(self._do(work, run), name=f"step {vertex.name[:80]}"))
            self._jobs[key] = job
            job.task.add_done_callback(lambda _, job=job: self._forget(key, job))  # type: ignore[misc]
        leave = job.work.broadcast.join(build.say, vertex)
        job.work.builds.append(build)
        try:
            solved = await asyncio.shield(job.task)
        except asyncio.CancelledError:
            await self._leave(job, build)
            raise
        except StepFailed as error:
            raise StepFailed(vertex, error.cause if isinstance(error.cause, Exception) else error) from error
        finally:
            with contextlib.suppress(ValueError):
                job.work.builds.remove(build)
            leave()
        if solved.record is not None:
            build.records[solved.record.id] = solved.record
            build._releases.append(self.cache.use(solved.record.id))
        return solved

    async def _leave(self, job: _Job, build: Build) -> None:
        """A build has lost interest; the job ends with the last, which waits for that."""
        if job.work.builds == [build] and not job.task.done():
            job.task.cancel()
            await asyncio.wait([job.task])

    def _forget(self, key: str, job: _Job) -> None:
        if self._jobs.get(key) is job:
            del self._jobs[key]
        if not job.task.cancelled():
            job.task.exception()  # whoever waited has it; there may be nobody left

    async def _do(self, work: Work, run: Callable[[Work], Coroutine[Any, Any, Solved]]) -> Solved:
        """Run a step and tell of it. Raises StepFailed."""
        vertex, say, step = work.vertex, work.broadcast.say, work.broadcast.step
        await asyncio.sleep(0)  # until the build that began it has joined
        if not isinstance(vertex.op, Source):
            say(Started(step, time.time_ns()))
        try:
            solved = await run(work)
        except asyncio.CancelledError:
            say(Finished(step, time.time_ns(), error="canceled"))
            raise
        except Exception as error:
            say(Finished(step, time.time_ns(), error=_words(error)))
            raise StepFailed(vertex, error) from error
        say(Finished(step, time.time_ns()))
        return solved

    async def close(self) -> None:
        """End what still runs."""
        tasks = [job.task for job in self._jobs.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _definition(vertex: Vertex, known: Mapping[str, str]) -> str:
    inputs = [(known[each.vertex.digest], each.index) for each in vertex.inputs]
    return keys.definition_key(vertex.op, vertex.platform, inputs)


def _end_of(digest: str) -> str:
    return f"{digest} end"


def _words(error: Exception) -> str:
    return error.message if isinstance(error, PierError) else str(error) or type(error).__name__
