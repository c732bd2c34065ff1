"""What a build tells, in the words of `Control.Status`.

A client keeps the last it was told of each vertex, so every message about one says all of it again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from google.protobuf.timestamp_pb2 import Timestamp

from pier.builder.graph import Location, Vertex
from pier.builder.progress import Counted, Event, Finished, Printed, Started, Step, Warned
from pier.buildkit.pb import control_pb2 as control
from pier.buildkit.pb import ops_pb2 as ops

__all__ = ["Statuses", "plan_of", "ranges_of", "stamp"]

WARNING_LEVEL = 1


def stamp(at_ns: int) -> Timestamp:
    """A time."""
    return Timestamp(seconds=at_ns // 1_000_000_000, nanos=at_ns % 1_000_000_000)


def ranges_of(location: Location | None) -> list[ops.Range]:
    """Where something stands in its file."""
    if location is None:
        return []
    return [
        ops.Range(
            start=ops.Position(line=first.line, character=first.character),
            end=ops.Position(line=last.line, character=last.character),
        )
        for first, last in location.ranges
    ]


def plan_of(vertices: Iterable[Vertex]) -> control.StatusResponse:
    """Steps that are to come: clients count them."""
    return control.StatusResponse(vertexes=[_vertex(Step.of(vertex)) for vertex in vertices])


def _vertex(step: Step) -> control.Vertex:
    made = control.Vertex(digest=str(step.digest), inputs=[str(each) for each in step.inputs], name=step.name)
    if step.group is not None:
        made.progress_group.CopyFrom(ops.ProgressGroup(id=step.group.id, name=step.group.name, weak=step.group.weak))
    return made


@dataclass(slots=True)
class Statuses:
    """One reader's translation."""

    files: dict[str, bytes] = field(default_factory=dict)
    """Content of the files that warnings point into, by name."""
    _started_ns: dict[str, int] = field(default_factory=dict)
    _counted_ns: dict[tuple[str, str], int] = field(default_factory=dict)

    def of(self, event: Event) -> control.StatusResponse:
        """An event as a message."""
        match event:
            case Started(step=step, at_ns=at_ns):
                self._started_ns.setdefault(step.digest, at_ns)
                return control.StatusResponse(vertexes=[self._begun(step)])
            case Finished():
                return control.StatusResponse(vertexes=[self._ended(event)])
            case Printed():
                return control.StatusResponse(logs=[_log(event)])
            case Counted():
                return control.StatusResponse(statuses=[self._count(event)])
            case Warned():
                return control.StatusResponse(warnings=[self._warning(event)])

    def _begun(self, step: Step) -> control.Vertex:
        made = _vertex(step)
        if step.digest in self._started_ns:
            made.started.CopyFrom(stamp(self._started_ns[step.digest]))
        return made

    def _ended(self, event: Finished) -> control.Vertex:
        self._started_ns.setdefault(event.step.digest, event.at_ns)
        made = self._begun(event.step)
        made.completed.CopyFrom(stamp(event.at_ns))
        made.cached = event.cached
        made.error = event.error
        return made

    def _count(self, event: Counted) -> control.VertexStatus:
        started = self._counted_ns.setdefault((event.digest, event.id), event.at_ns)
        made = control.VertexStatus(
            id=event.id,
            vertex=str(event.digest),
            name=event.action,
            current=event.current,
            total=event.total,
            timestamp=stamp(event.at_ns),
            started=stamp(started),
        )
        if event.done:
            made.completed.CopyFrom(stamp(event.at_ns))
        return made

    def _warning(self, event: Warned) -> control.VertexWarning:
        made = control.VertexWarning(
            vertex=str(event.digest or ""),
            level=WARNING_LEVEL,
            short=event.text.encode(),
            detail=[line.encode() for line in event.detail],
            url=event.url,
            ranges=ranges_of(event.location),
        )
        if event.location is not None:
            name = event.location.filename
            made.info.CopyFrom(ops.SourceInfo(filename=name, data=self.files.get(name, b""), language="Dockerfile"))
        return made


def _log(event: Printed) -> control.VertexLog:
    return control.VertexLog(
        vertex=str(event.digest), timestamp=stamp(event.at_ns), stream=event.stream, msg=event.data
    )
