"""What a build tells while it runs: steps that begin, print, count and end. Faces turn these into their own words."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Final

from pier.builder.graph import Location, Note, ProgressGroup, Vertex
from pier.oci import Digest

OUTPUT_MAX_BYTES: Final = 16 << 20
"""Of one step: a build's journal is kept in memory. BuildKit's limit is 2 MiB."""
CLIPPED: Final = b"[output clipped, log limit 16MiB reached]\n"


@dataclass(frozen=True, slots=True)
class Step:
    """A vertex as builds tell of it."""

    digest: Digest
    name: str
    inputs: tuple[Digest, ...]
    location: Location | None = None
    group: ProgressGroup | None = None

    @classmethod
    def of(cls, vertex: Vertex) -> Step:
        inputs = dict.fromkeys(each.vertex.digest for each in vertex.inputs)
        return cls(vertex.digest, vertex.name, tuple(inputs), vertex.note.location, vertex.note.group)


@dataclass(frozen=True, slots=True)
class Started:
    step: Step
    at_ns: int
    cached: bool = False
    """The cache has it: it ends at once."""


@dataclass(frozen=True, slots=True)
class Finished:
    step: Step
    at_ns: int
    cached: bool = False
    error: str = ""
    """Why it failed, or `canceled`; empty: it did not."""


@dataclass(frozen=True, slots=True)
class Printed:
    """Bytes a step's process wrote."""

    digest: Digest
    stream: int
    """1: standard output, 2: standard error."""
    data: bytes
    at_ns: int


@dataclass(frozen=True, slots=True)
class Counted:
    """How far a part of a step is: a layer that is downloaded, files that come in."""

    digest: Digest
    id: str
    """`sha256:…`, `transferring context`, `exporting layers`; the step's own and unique in it."""
    action: str
    current: int
    total: int
    """0: not known."""
    at_ns: int
    done: bool = False


@dataclass(frozen=True, slots=True)
class Warned:
    """Something a person should know, such as what a lint rule found."""

    digest: Digest | None
    text: str
    detail: tuple[str, ...] = ()
    url: str = ""
    location: Location | None = None


Event = Started | Finished | Printed | Counted | Warned
Say = Callable[[Event], None]


class Journal:
    """All a build has told, for any number of readers, who may come late."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._more = asyncio.Event()
        self._closed = False

    def say(self, event: Event) -> None:
        self._events.append(event)
        self._more.set()

    @property
    def told(self) -> list[Event]:
        """All so far."""
        return list(self._events)

    def close(self) -> None:
        """There will be no more."""
        self._closed = True
        self._more.set()

    async def read(self) -> AsyncIterator[Event]:
        """Everything from the beginning to the end."""
        at = 0
        while True:
            while at < len(self._events):
                yield self._events[at]
                at += 1
            if self._closed:
                return
            self._more.clear()
            await self._more.wait()


@dataclass(slots=True)
class Broadcast:
    """What one running step tells, to every build that waits for it; who joins gets what was told before."""

    step: Step
    _listeners: dict[int, tuple[Say, Step]] = field(default_factory=dict)
    _told: list[Event] = field(default_factory=list)
    _kept: int = 0
    _serial: int = 0

    def join(self, say: Say, vertex: Vertex) -> Callable[[], None]:
        """Tell a build, whose vertex has a name of its own; returns what leaves again."""
        own = Step.of(vertex)
        for event in self._told:
            say(_for(event, own))
        self._serial += 1
        number = self._serial
        self._listeners[number] = say, own

        def leave() -> None:
            self._listeners.pop(number, None)

        return leave

    def say(self, event: Event) -> None:
        if isinstance(event, Printed):
            room = OUTPUT_MAX_BYTES - self._kept
            if room <= 0:
                return
            self._kept += len(event.data)
            if self._kept >= OUTPUT_MAX_BYTES:
                event = Printed(event.digest, event.stream, event.data[:room] + CLIPPED, event.at_ns)
        self._told.append(event)
        for say, own in list(self._listeners.values()):
            say(_for(event, own))

    def printed(self, stream: int, data: bytes) -> None:
        self.say(Printed(self.step.digest, stream, data, time.time_ns()))

    def counted(self, id: str, action: str, current: int, total: int = 0, *, done: bool = False) -> None:
        self.say(Counted(self.step.digest, id, action, current, total, time.time_ns(), done))


def _for(event: Event, own: Step) -> Event:
    """The event as it concerns a build's own vertex."""
    match event:
        case Started(at_ns=at_ns, cached=cached):
            return Started(own, at_ns, cached)
        case Finished(at_ns=at_ns, cached=cached, error=error):
            return Finished(own, at_ns, cached, error)
        case Printed(stream=stream, data=data, at_ns=at_ns):
            return Printed(own.digest, stream, data, at_ns)
        case Counted():
            return Counted(own.digest, event.id, event.action, event.current, event.total, event.at_ns, event.done)
        case Warned():
            return event


def named(name: str) -> Note:
    """The note of a step that is not in any file."""
    return Note(name)
