"""The solver over executors of the test's own: what runs, when, how often, and what the cache answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from pier.builder.cache import Cache
from pier.builder.graph import (
    Copy,
    Exec,
    File,
    FileAction,
    Merge,
    Meta,
    Mount,
    Note,
    Output,
    Source,
    Vertex,
)
from pier.builder.keys import Selection
from pier.builder.progress import Broadcast, Finished, Started
from pier.builder.session import Given
from pier.builder.solver import Build, Found, Solver, StepFailed, Work
from pier.builder.tree import LayerRef, Result, Tree
from pier.errors import InvalidParameter
from pier.oci import Digest
from pier.state.memory import MemoryStore


class Snapshots:
    def layers(self) -> set[Digest]:
        return set()


class World:
    """Steps are words; a result is one layer that says what made it."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.running: set[str] = set()
        self.most = 0
        self.gates: dict[str, asyncio.Event] = {}
        self.begun: dict[str, asyncio.Event] = {}
        self.contents: dict[str, str] = {"base": "1"}
        self.parts: dict[str, str] = {}
        self.outcome: dict[str, str] = {}
        self.store = MemoryStore()
        self.cache = Cache(self.store, Snapshots(), None)  # type: ignore[arg-type]
        self.solver = Solver(self.cache, {"x": self}, {Exec: self.run, File: self.run, Merge: self.run}, self.checksum)

    type = ""

    async def find(self, vertex: Vertex, build: Build, say: Broadcast) -> Found:
        assert isinstance(vertex.op, Source)
        return Found(self.contents[vertex.op.rest])

    async def fetch(self, work: Work, found: Found) -> Result:
        self.ran.append(work.vertex.name)
        return tree(found.key)

    async def run(self, work: Work) -> Sequence[Tree]:
        name = work.vertex.name
        self.ran.append(name)
        self.running.add(name)
        self.most = max(self.most, len(self.running))
        try:
            self.begun.setdefault(name, asyncio.Event()).set()
            if name in self.gates:
                await self.gates[name].wait()
            if name == "fail":
                raise InvalidParameter("exit code: 1")
        finally:
            self.running.discard(name)
        work.broadcast.printed(1, f"{name} ran\n".encode())
        inputs = [each.key for each in work.inputs]
        return [tree(self.outcome.get(name, f"{name} of {inputs}"))]

    async def checksum(self, result: Result, usage: tuple[Selection, ...]) -> str:
        return self.parts.get(usage[0].path, result.key)

    async def solve(self, *outputs: Output, build: Build | None = None) -> list[Any]:
        return await self.solver.solve(build or new_build(), outputs)

    async def ran_by(self, *outputs: Output) -> list[str]:
        """What a further build runs."""
        self.ran.clear()
        await self.solve(*outputs)
        return list(self.ran)


def tree(what: str) -> Tree:
    return Tree((LayerRef(Digest.of(what.encode())),))


def new_build() -> Build:
    return Build("b", Given())


def source(name: str = "base") -> Output:
    return Vertex(Source(f"x://{name}")).output()


def run(name: str, *inputs: Output, **note: Any) -> Output:
    mounts = tuple(Mount("/" if not n else f"/{n}", input=n, output=-1 if n else 0) for n in range(len(inputs)))
    return Vertex(Exec(Meta((name,)), mounts), inputs, note=Note(name, **note)).output()


def copy(src: str, root: Output, of: Output) -> Output:
    action = FileAction(Copy(src, "/"), input=0, secondary_input=1, output=0)
    return Vertex(File((action,)), (root, of), note=Note(f"copy {src}")).output()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    await world.solver.close()
    await world.cache.close()


async def test_a_step_is_done_once_and_what_nobody_wants_is_not(world: World) -> None:
    wanted = run("b", run("a", source()))
    run("unused", source())
    await world.solve(wanted)
    assert world.ran == ["x://base", "a", "b"]
    assert await world.ran_by(wanted) == []


async def test_the_branches_of_a_diamond_run_side_by_side(world: World) -> None:
    top = run("top", source())
    branches = [run(name, top) for name in "abcd"]
    world.gates = {name: asyncio.Event() for name in "abcd"}
    task = asyncio.create_task(world.solve(run("join", *branches)))
    for name in "abcd":
        await world.begun.setdefault(name, asyncio.Event()).wait()
    for gate in world.gates.values():
        gate.set()
    await task
    assert world.most == 4
    assert world.ran[-1] == "join"


async def test_twenty_builds_of_one_file_run_each_step_once(world: World) -> None:
    world.gates["a"] = asyncio.Event()
    builds = [new_build() for _ in range(20)]
    tasks = [asyncio.create_task(world.solve(run("b", run("a", source())), build=build)) for build in builds]
    await world.begun.setdefault("a", asyncio.Event()).wait()
    world.gates["a"].set()
    results = await asyncio.gather(*tasks)
    assert sorted(world.ran) == ["a", "b", "x://base"]
    assert len({str(result[0].key) for result in results}) == 1


async def test_each_build_hears_of_a_shared_step_by_its_own_name(world: World) -> None:
    world.gates["a"] = asyncio.Event()
    first, second = new_build(), new_build()
    one = asyncio.create_task(world.solve(run("a", source()), build=first))
    await world.begun.setdefault("a", asyncio.Event()).wait()
    other = Vertex(run("a", source()).vertex.op, (source(),), note=Note("a of another")).output()
    two = asyncio.create_task(world.solve(other, build=second))
    while not world.solver._jobs or len(next(iter(world.solver._jobs.values())).work.builds) < 2:
        await asyncio.sleep(0)
    world.gates["a"].set()
    await asyncio.gather(one, two)
    for build, name in ((first, "a"), (second, "a of another")):
        build.journal.close()
        told = [event async for event in build.journal.read()]
        assert [event.step.name for event in told if isinstance(event, Started)][-1] == name
        assert [event.cached for event in told if isinstance(event, Finished)][-1] is False


async def test_a_shared_step_ends_with_the_last_that_wants_it(world: World) -> None:
    world.gates["a"] = asyncio.Event()
    tasks = [asyncio.create_task(world.solve(run("a", source()))) for _ in range(2)]
    await world.begun.setdefault("a", asyncio.Event()).wait()
    while len(next(iter(world.solver._jobs.values())).work.builds) < 2:
        await asyncio.sleep(0)
    tasks[0].cancel()
    await asyncio.wait([tasks[0]])
    assert world.running == {"a"}
    tasks[1].cancel()
    await asyncio.wait([tasks[1]])
    assert world.running == set()
    assert not world.cache.records


async def test_a_failure_ends_the_other_branches_and_says_which_step(world: World) -> None:
    world.gates["slow"] = asyncio.Event()
    with pytest.raises(StepFailed, match="exit code: 1") as failed:
        await world.solve(run("join", run("slow", source()), run("fail", source())))
    assert failed.value.vertex.name == "fail"
    assert world.running == set()
    assert "join" not in world.ran


async def test_a_step_takes_only_what_it_uses_of_an_input(world: World) -> None:
    world.contents.update(context="1")
    world.parts = {"/a": "a1", "/b": "b1"}
    first = copy("/a", source(), source("context"))
    wanted = run("make", copy("/b", first, source("context")))
    await world.solve(wanted)
    world.contents.update(context="2")
    assert sorted(await world.ran_by(wanted)) == ["x://base", "x://context"]
    world.contents.update(context="3")
    world.parts["/b"] = "b2"
    assert (await world.ran_by(wanted))[2:] == ["copy /b", "make"]


async def test_the_same_outcome_of_a_step_run_again_leaves_those_above_cached(world: World) -> None:
    world.outcome["build"] = "binary"
    wanted = run("use", run("build", source()))
    await world.solve(wanted)
    world.contents["base"] = "2"
    assert await world.ran_by(wanted) == ["x://base", "build"]


async def test_a_step_that_ignores_the_cache_runs_and_is_remembered(world: World) -> None:
    plain = run("b", run("a", source()))
    fresh = run("b", run("a", source(), ignore_cache=True))
    await world.solve(plain)
    assert await world.ran_by(fresh) == ["x://base", "a"]  # and came to the same, so b need not run
    world.outcome["a"] = "another"
    assert await world.ran_by(fresh) == ["x://base", "a", "b"]
    assert await world.ran_by(plain) == []
    [result] = await world.solve(plain)
    assert result.key == tree(f"b of ['{tree('another').key}']").key


async def test_records_outlive_the_daemon_unless_their_layers_are_gone(world: World) -> None:
    wanted = run("a", source())
    await world.solve(wanted)
    await world.cache.flush()
    [record] = world.cache.records.values()
    there = Snapshots()
    again = Cache(world.store, there, None)  # type: ignore[arg-type]
    assert await again.load() == [f"build cache record {record.id}: its layers are gone"]
    await again.close()
    assert not await world.store.load("build-cache")


async def test_a_source_of_no_kind_is_refused_by_name(world: World) -> None:
    with pytest.raises(StepFailed, match="no source is called 'ftp'"):
        await world.solve(Vertex(Source("ftp://x")).output())


async def test_what_is_cached_is_told_in_order(world: World) -> None:
    wanted = run("b", run("a", source()))
    await world.solve(wanted)
    build = new_build()
    await world.solve(wanted, build=build)
    build.journal.close()
    ended = [event async for event in build.journal.read() if isinstance(event, Finished)]
    assert [(event.step.name, event.cached) for event in ended] == [("x://base", False), ("a", True), ("b", True)]
