"""The words of Docker's classic builder for a build: steps in the file's order, whatever ran when.

    Step 2/3 : RUN make
     ---> Running in 1a2b3c4d5e6f
    what it prints
     ---> Removed intermediate container 1a2b3c4d5e6f
     ---> 2ad9be92dd51

The ids after arrows name nothing that could be asked for, but for those of base images and of the image itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pier.builder.graph import Exec, Vertex
from pier.builder.progress import Event, Finished, Printed, Started, Warned
from pier.builder.solver import StepFailed
from pier.builder.steps.files import NothingThere
from pier.builder.steps.process import ProcessFailed, ProcessNotStarted
from pier.errors import PierError
from pier.oci import Digest

Message = Mapping[str, Any]
Say = Callable[[Message], Awaitable[None]]
CANCELED: Final = "canceled"


@dataclass(slots=True)
class Line:
    """One instruction of the file."""

    code: str
    vertices: list[Vertex] = field(default_factory=list)
    is_from: bool = False
    makes_files: bool = False
    """RUN, COPY, ADD: others show a container that there never was."""


@dataclass(slots=True)
class _State:
    started: bool = False
    cached: bool = False
    finished: Finished | None = None
    output: list[bytes] = field(default_factory=list)

    @property
    def is_cached(self) -> bool:
        return self.cached or (self.finished is not None and self.finished.cached)


class ClassicWords:
    """Turns what a build tells into the classic builder's stream."""

    def __init__(self, lines: Sequence[Line], say: Say, base_id: Callable[[Vertex], str] = lambda _: "") -> None:
        """`base_id`: short id of the image that a FROM has found."""
        self._lines = lines
        self._say = say
        self._base_id = base_id
        self._at = 0
        self._headed = False
        self._states: dict[str, _State] = {str(vertex.digest): _State() for line in lines for vertex in line.vertices}
        self._cached = True
        self._id = ""

    async def take(self, event: Event) -> None:
        """Go on as far as the event allows."""
        match event:
            case Started(step=step, cached=cached):
                state = self._state(step.digest)
                state.started, state.cached = True, cached
            case Finished(step=step):
                self._state(step.digest).finished = event
            case Printed(digest=digest, data=data):
                self._state(digest).output.append(data)
            case Warned(text=text):
                await self._say({"stream": f" [Warning] {text}\n"})
        await self._advance()

    def _state(self, digest: Digest) -> _State:
        return self._states.setdefault(str(digest), _State())

    async def _advance(self) -> None:
        while self._at < len(self._lines):
            line = self._lines[self._at]
            states = [self._state(vertex.digest) for vertex in line.vertices]
            if not self._headed:
                decisive = states or self._next_in_stage()
                if decisive and not any(state.started or state.finished for state in decisive):
                    return
                await self._head(line)
            await self._print(line, states)
            if any(state.finished is None or state.finished.error for state in states):
                return
            await self._end(line, states)
            self._at += 1
            self._headed = False

    def _all_cached(self) -> bool:
        """Whether every stage so far was there: one that stands on another is new where that one is."""
        return all(
            self._state(vertex.digest).is_cached
            for line in self._lines[: self._at]
            if not line.is_from
            for vertex in line.vertices
        )

    def _next_in_stage(self) -> list[_State]:
        """The steps that tell whether the cache has what a line without any would have made."""
        for line in self._lines[self._at + 1 :]:
            if line.is_from:
                break
            if line.vertices:
                return [self._state(vertex.digest) for vertex in line.vertices]
        return []

    async def _head(self, line: Line) -> None:
        self._headed = True
        await self._say({"stream": f"Step {self._at + 1}/{len(self._lines)} : {line.code}"})
        await self._say({"stream": "\n"})
        if self._runs(line):
            await self._say({"stream": f" ---> Running in {self._container(line)}\n"})

    def _runs(self, line: Line) -> bool:
        """Whether a process is run now."""
        return any(isinstance(vertex.op, Exec) and not self._is_cached(vertex) for vertex in line.vertices)

    def _is_cached(self, vertex: Vertex) -> bool:
        return self._state(vertex.digest).is_cached

    async def _print(self, line: Line, states: Iterable[_State]) -> None:
        for state in states:
            if state.output:
                text = b"".join(state.output).decode("utf-8", "replace")
                state.output.clear()
                await self._say({"stream": text})

    async def _end(self, line: Line, states: Sequence[_State]) -> None:
        next_id, container = self._next_id(line), self._container(line)
        if line.is_from:
            self._id = next((found for vertex in line.vertices if (found := self._base_id(vertex))), next_id)
            self._cached = bool(line.vertices) or self._all_cached()
        elif self._id:
            decisive = states or self._next_in_stage()
            self._cached = self._cached and all(state.is_cached for state in decisive)
            if self._cached:
                await self._say({"stream": " ---> Using cache\n"})
            elif not line.makes_files:
                await self._say({"stream": f" ---> Running in {container}\n"})
            if not self._cached and (self._runs(line) or not line.makes_files):
                await self._say({"stream": f" ---> Removed intermediate container {container}\n"})
            self._id = next_id
        if self._id and self._at < len(self._lines) - 1:
            await self._say({"stream": f" ---> {self._id}\n"})

    async def done(self, id: str) -> None:
        """The image is there."""
        await self._say({"stream": f" ---> {id}\n"})

    def _container(self, line: Line) -> str:
        return Digest.of(f"container {self._next_id(line)}".encode()).short

    def _next_id(self, line: Line) -> str:
        """Like an image's id: of everything so far."""
        made = [str(vertex.digest) for vertex in line.vertices]
        return Digest.of(" ".join([self._id, line.code, *made]).encode()).short

    async def failed(self) -> None:
        """The build has failed: show the step that did, if it is not the one shown last."""
        for number, line in enumerate(self._lines[self._at :], self._at):
            states = [self._state(vertex.digest) for vertex in line.vertices]
            if any(state.finished and state.finished.error not in ("", CANCELED) for state in states):
                if number != self._at or not self._headed:
                    self._at = number
                    await self._head(line)
                await self._print(line, states)
                return


def failure(error: PierError) -> Message:
    """The last line of a build that failed, in the classic builder's words."""
    cause = error.cause if isinstance(error, StepFailed) else error
    detail: dict[str, Any] = {"message": error.wire}
    if isinstance(cause, ProcessNotStarted):
        detail = {"message": cause.start.wire}
    elif isinstance(cause, ProcessFailed):
        command = " ".join(cause.args_of_process)
        code = cause.exit_code_of_process
        detail = {"code": code, "message": f"The command '{command}' returned a non-zero code: {code}"}
    elif isinstance(cause, NothingThere) and isinstance(error, StepFailed):
        path = str(cause.fields["path"]).lstrip("/")
        words = "COPY failed: file not found in build context or excluded by .dockerignore"
        detail = {"message": f"{words}: stat {path}: file does not exist"}
    elif isinstance(cause, PierError):
        detail = {"message": cause.wire}
    return {"errorDetail": detail, "error": detail["message"]}
