"""Builds of the past: what was asked, how it ended, what it told. The last ones are kept, and those that are pinned.

    <folder>/<name>.json    the record
    <folder>/<name>.log     what `Control.Status` sent, each message after its length in four bytes

The name is made of the build's id, which is the client's word.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import msgspec

from pier.builder.progress import Event, Finished, Warned
from pier.buildkit.pb import control_pb2 as control
from pier.buildkit.statuses import Statuses, stamp
from pier.errors import NotFound
from pier.storage.durable import write_file

__all__ = ["History", "Past", "event_of"]

KEPT_MAX: Final = 50
LISTENER_MAX: Final = 256
"""Events that wait for one reader; a slower one misses the oldest."""


class NoSuchBuild(NotFound):
    """no build {ref} in the history"""


class Past(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One build."""

    ref: str
    frontend: str = ""
    attrs: dict[str, str] = msgspec.field(default_factory=dict)
    exports: list[tuple[str, dict[str, str]]] = msgspec.field(default_factory=list)
    created_ns: int = 0
    completed_ns: int = 0
    """0: it runs."""
    code: int = 0
    message: str = ""
    response: dict[str, str] = msgspec.field(default_factory=dict)
    generation: int = 1
    pinned: bool = False
    steps: int = 0
    cached_steps: int = 0
    completed_steps: int = 0
    warnings: int = 0

    def count(self, events: Iterable[Event]) -> None:
        """Take the numbers of steps from what was told."""
        ended = {event.step.digest: event for event in events if isinstance(event, Finished)}
        self.steps = self.completed_steps = len(ended)
        self.cached_steps = sum(event.cached for event in ended.values())
        self.warnings = sum(isinstance(event, Warned) for event in events)


def event_of(past: Past, *, deleted: bool = False) -> control.BuildHistoryEvent:
    """A record as clients are told of it."""
    record = control.BuildHistoryRecord(
        ref=past.ref,
        frontend=past.frontend,
        frontend_attrs=past.attrs,
        exporters=[control.Exporter(type=kind, attrs=attrs) for kind, attrs in past.exports],
        created_at=stamp(past.created_ns),
        exporter_response=past.response,
        generation=past.generation,
        pinned=past.pinned,
        num_cached_steps=past.cached_steps,
        num_total_steps=past.steps,
        num_completed_steps=past.completed_steps,
        num_warnings=past.warnings,
    )
    if past.completed_ns:
        record.completed_at.CopyFrom(stamp(past.completed_ns))
    if past.code and past.completed_ns:
        record.error.code, record.error.message = past.code, past.message
    kind = control.DELETED if deleted else control.COMPLETE if past.completed_ns else control.STARTED
    return control.BuildHistoryEvent(type=kind, record=record)


@dataclass(slots=True)
class History:
    """One per daemon. Files are touched in threads."""

    folder: str
    _known: dict[str, Past] = field(default_factory=dict)
    """By id, the oldest first; those that run are among them."""
    _loaded: bool = False
    _listeners: set[asyncio.Queue[control.BuildHistoryEvent]] = field(default_factory=set)

    def __contains__(self, ref: str) -> bool:
        """Is it a build that has ended?"""
        past = self._known.get(ref)
        return past is not None and past.completed_ns > 0

    async def load(self) -> None:
        """Read what earlier daemons kept, once."""
        if not self._loaded:
            self._loaded = True
            found = await asyncio.to_thread(self._read_all)
            self._known = {past.ref: past for past in found} | self._known

    def _read_all(self) -> list[Past]:
        found = []
        with suppress(FileNotFoundError):
            for name in os.listdir(self.folder):
                if name.endswith(".json"):
                    with suppress(OSError, msgspec.DecodeError), open(os.path.join(self.folder, name), "rb") as file:
                        found.append(msgspec.json.decode(file.read(), type=Past))
        return sorted(found, key=lambda past: past.created_ns)

    async def begin(self, past: Past) -> None:
        """A build has begun."""
        await self.load()
        self._known.pop(past.ref, None)
        self._known[past.ref] = past
        self._tell(event_of(past))

    async def end(self, past: Past, events: list[Event], files: Mapping[str, bytes]) -> None:
        """It has ended; `past` says how, `events` are what it has told."""
        past.count(events)
        await asyncio.to_thread(self._write, past, events, files)
        self._tell(event_of(past))
        ended = [each for each in self._known.values() if each.completed_ns and not each.pinned]
        for old in ended[: max(0, len(ended) - KEPT_MAX)]:
            await self.remove(old.ref)

    def _write(self, past: Past, events: list[Event], files: Mapping[str, bytes]) -> None:
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        statuses = Statuses(dict(files))
        messages = (statuses.of(event).SerializeToString() for event in events)
        log = b"".join(len(message).to_bytes(4) + message for message in messages)
        write_file(self._path(past.ref, "log"), log, durable=False)
        self._save(past)

    def _save(self, past: Past) -> None:
        write_file(self._path(past.ref, "json"), msgspec.json.encode(past), durable=False)

    async def remove(self, ref: str) -> None:
        """Forget a build that has ended. Raises NoSuchBuild."""
        past = await self._ended(ref)
        del self._known[ref]
        for ending in ("json", "log"):
            with suppress(FileNotFoundError):
                await asyncio.to_thread(os.unlink, self._path(ref, ending))
        self._tell(event_of(past, deleted=True))

    async def pin(self, ref: str, *, pinned: bool) -> None:
        """Keep a build however many come after it, or no longer. Raises NoSuchBuild."""
        past = await self._ended(ref)
        past.pinned = pinned
        past.generation += 1
        await asyncio.to_thread(self._save, past)
        self._tell(event_of(past))

    async def _ended(self, ref: str) -> Past:
        await self.load()
        past = self._known.get(ref)
        if past is None or not past.completed_ns:
            raise NoSuchBuild(ref=ref)
        return past

    async def log(self, ref: str) -> AsyncIterator[control.StatusResponse]:
        """What a build has told. Raises NoSuchBuild."""
        await self._ended(ref)

        def read() -> bytes:
            with open(self._path(ref, "log"), "rb") as file:
                return file.read()

        try:
            data = await asyncio.to_thread(read)
        except FileNotFoundError:
            return
        at = 0
        while at < len(data):
            size = int.from_bytes(data[at : at + 4])
            yield control.StatusResponse.FromString(data[at + 4 : at + 4 + size])
            at += 4 + size

    async def listen(self, request: control.BuildHistoryRequest) -> AsyncGenerator[control.BuildHistoryEvent]:
        """What there is, the newest last, and unless the request says otherwise what comes."""
        await self.load()
        queue: asyncio.Queue[control.BuildHistoryEvent] = asyncio.Queue(LISTENER_MAX)
        self._listeners.add(queue)
        try:
            known = [past for past in self._known.values() if not (request.active_only and past.completed_ns)]
            chosen = [past for past in known if request.ref in ("", past.ref)]
            for past in chosen[-request.limit :] if request.limit > 0 else chosen:
                yield event_of(past)
            while not request.early_exit:
                event = await queue.get()
                active = not event.record.HasField("completed_at")
                if request.ref in ("", event.record.ref) and (active or not request.active_only):
                    yield event
        finally:
            self._listeners.discard(queue)

    def _tell(self, event: control.BuildHistoryEvent) -> None:
        for queue in self._listeners:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(event)

    def _path(self, ref: str, ending: str) -> str:
        return os.path.join(self.folder, f"{hashlib.sha256(ref.encode()).hexdigest()[:32]}.{ending}")
