"""An export as a step of the build, so that clients show it."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterator

from pier.builder.progress import Counted, Finished, Started, Step, Warned
from pier.builder.solver import Build
from pier.errors import PierError
from pier.oci import Digest

__all__ = ["Telling"]


class Telling:
    """Begun and ended by a `with` block; an error is told as its end."""

    def __init__(self, build: Build, name: str) -> None:
        self._build = build
        self._step = Step(Digest.of(secrets.token_bytes(16)), name, ())

    def __enter__(self) -> Telling:
        self._build.say(Started(self._step, time.time_ns()))
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        words = "" if error is None else str(error) if isinstance(error, PierError) else "canceled"
        self._build.say(Finished(self._step, time.time_ns(), error=words))

    def count(self, what: str, current: int = 0, total: int = 0, *, done: bool = False) -> None:
        self._build.say(Counted(self._step.digest, what, "", current, total, time.time_ns(), done))

    def warn(self, text: str) -> None:
        self._build.say(Warned(self._step.digest, text))

    @contextlib.contextmanager
    def part(self, what: str) -> Iterator[None]:
        self.count(what)
        yield
        self.count(what, done=True)
