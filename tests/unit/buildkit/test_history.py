"""Builds of the past: told to who listens, kept over a restart, few of them."""

from pathlib import Path

import pytest

from pier.builder.graph import Note, Source, Vertex
from pier.builder.progress import Event, Finished, Printed, Started, Step, Warned
from pier.buildkit import history as module
from pier.buildkit.history import History, NoSuchBuild, Past
from pier.buildkit.pb import control_pb2 as control

STEP = Step.of(Vertex(Source("docker-image://a"), note=Note("a")))
TOLD: list[Event] = [
    Started(STEP, 1),
    Printed(STEP.digest, 1, b"hello", 2),
    Finished(STEP, 3, cached=True),
    Warned(None, "careful"),
]


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(str(tmp_path / "history"))


def past(ref: str, at: int = 1) -> Past:
    return Past(ref=ref, frontend="dockerfile.v0", attrs={"filename": "Dockerfile"}, created_ns=at)


async def done(history: History, ref: str, at: int = 1, *, code: int = 0) -> Past:
    made = past(ref, at)
    await history.begin(made)
    made.completed_ns, made.code, made.message = at + 1, code, "no" if code else ""
    await history.end(made, TOLD, {})
    return made


async def events(history: History, **request: object) -> list[control.BuildHistoryEvent]:
    wanted = control.BuildHistoryRequest(early_exit=True, **request)  # type: ignore[arg-type]
    return [event async for event in history.listen(wanted)]


async def test_a_build_is_there_when_it_runs_and_when_it_has_ended(history: History) -> None:
    made = past("a")
    await history.begin(made)
    (event,) = await events(history)
    assert (event.type, event.record.ref) == (control.STARTED, "a")
    assert not event.record.HasField("completed_at")
    made.completed_ns, made.code, made.message = 5, 2, "it failed"
    await history.end(made, TOLD, {})
    (event,) = await events(history)
    assert event.type == control.COMPLETE
    assert (event.record.error.code, event.record.error.message) == (2, "it failed")
    assert (event.record.num_total_steps, event.record.num_cached_steps, event.record.num_warnings) == (1, 1, 1)
    assert await events(history, active_only=True) == []


async def test_it_is_kept_over_a_restart_with_what_was_told(history: History) -> None:
    await done(history, "../../evil")
    again = History(history.folder)
    (event,) = await events(again)
    assert event.record.ref == "../../evil"
    log = [message async for message in again.log("../../evil")]
    assert log[1].logs[0].msg == b"hello"
    assert log[2].vertexes[0].cached
    assert log[3].warnings[0].short == b"careful"
    assert len(list(Path(history.folder).iterdir())) == 2


async def test_who_listens_is_told_what_comes(history: History) -> None:
    listening = history.listen(control.BuildHistoryRequest(ref="b"))
    waiting = anext(listening)
    await history.load()
    await done(history, "a")
    made = past("b")
    await history.begin(made)
    first = await waiting
    assert (first.type, first.record.ref) == (control.STARTED, "b")
    made.completed_ns = 2
    await history.end(made, [], {})
    assert (await anext(listening)).type == control.COMPLETE
    await history.remove("b")
    assert (await anext(listening)).type == control.DELETED
    await listening.aclose()


async def test_the_oldest_go_but_not_the_pinned(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_MAX", 2)
    await done(history, "a", 1)
    await history.pin("a", pinned=True)
    for at, ref in enumerate("bcd", 2):
        await done(history, ref, at)
    assert [event.record.ref for event in await events(history)] == ["a", "c", "d"]
    assert [event.record.ref for event in await events(history, limit=1)] == ["d"]
    assert [event.record.ref for event in await events(History(history.folder))] == ["a", "c", "d"]


async def test_what_is_not_there_or_runs_cannot_be_removed(history: History) -> None:
    await history.begin(past("a"))
    for ref in ("a", "b"):
        with pytest.raises(NoSuchBuild):
            await history.remove(ref)
        with pytest.raises(NoSuchBuild):
            [message async for message in history.log(ref)]
    assert "a" not in history
