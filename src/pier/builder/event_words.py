"""A build's stream for `pier build`: everything that is told, as JSON, with the times that people want to see."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from pier.builder.dockerfile.source import DockerfileError, SourceRange
from pier.builder.graph import Location
from pier.builder.progress import Counted, Event, Finished, Printed, Started, Step, Warned
from pier.builder.solver import StepFailed
from pier.errors import PierError

Message = Mapping[str, Any]


class EventWords:
    """The same face as `ClassicWords`."""

    def __init__(self, say: Callable[[Message], Awaitable[None]]) -> None:
        self._say = say

    async def take(self, event: Event) -> None:
        await self._say(message_of(event))

    async def failed(self) -> None:
        """Nothing: the last line says it."""

    async def done(self, id: str) -> None:
        """Nothing: `aux` says it."""


def message_of(event: Event) -> Message:
    """One event; times in nanoseconds since 1970."""
    match event:
        case Started(step=step, at_ns=at_ns, cached=cached):
            return {"started": {**_step(step), "at": at_ns, "cached": cached}}
        case Finished(step=step, at_ns=at_ns, cached=cached, error=error):
            return {"finished": {**_step(step), "at": at_ns, "cached": cached, "error": error}}
        case Printed(digest=digest, stream=stream, data=data):
            return {"printed": {"id": str(digest), "stream": stream, "text": data.decode("utf-8", "replace")}}
        case Counted(digest=digest):
            fields = {"id": str(digest), "what": event.id, "action": event.action, "done": event.done}
            return {"counted": {**fields, "current": event.current, "total": event.total}}
        case Warned(text=text, detail=detail, url=url):
            return {"warned": {"text": text, "detail": list(detail), "url": url}}


def _step(step: Step) -> dict[str, Any]:
    line = step.location.ranges[0][0].line if step.location else 0
    return {"id": str(step.digest), "name": step.name, "line": line}


def failure(error: PierError, text: str) -> Message:
    """The last line of a build that has failed, with the lines of the Dockerfile that are to blame marked."""
    excerpt, step = "", ""
    if isinstance(error, StepFailed):
        step = str(error.vertex.digest)
        if error.vertex.note.location is not None:
            excerpt = blamed(error.vertex.note.location, text)
    elif isinstance(error, DockerfileError):
        excerpt = error.excerpt(text)
    detail = {"message": error.wire, "excerpt": excerpt, "step": step}
    return {"errorDetail": detail, "error": error.wire}


def blamed(location: Location, text: str) -> str:
    """The lines around a place with it marked."""
    places = [SourceRange(location.filename, first.line, last.line) for first, last in location.ranges]
    return DockerfileError("", at=places).excerpt(text)
