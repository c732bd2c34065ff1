"""Where in a Dockerfile something stands, and the errors that say so."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from pier.builder.dockerfile.suggest import nearest
from pier.errors import InvalidParameter

AROUND_ONE: Final = 2
"""Lines shown above and below one marked line."""
AROUND_SEVERAL: Final = 1


class SourceRange(msgspec.Struct, frozen=True, order=True):
    """The lines of one instruction; all numbers count from 1."""

    file: str
    first_line: int
    last_line: int
    column: int = 1
    """In the first line."""

    @property
    def lines(self) -> range:
        return range(self.first_line, self.last_line + 1)

    def __str__(self) -> str:
        return f"{self.file}:{self.first_line}:{self.column}"


class DockerfileError(InvalidParameter):
    """{message}"""

    def __init__(self, message: str, *, at: Iterable[SourceRange] = ()) -> None:
        """`at`: the instructions to blame, the first of them foremost; they are named after the message."""
        super().__init__(message)
        self.at = tuple(at)

    @property
    def wire(self) -> str:
        places = ", ".join(map(str, self.at))
        return f"{self.message} ({places})" if places else self.message

    def excerpt(self, text: str) -> str:
        """The lines around each blamed instruction, these marked with `>>>`; empty where nothing is to blame."""
        return "\n".join(excerpt(text, place) for place in self.at)


def excerpt(text: str, place: SourceRange) -> str:
    """The lines around a place, its own marked with `>>>`."""
    lines = text.split("\n")
    around = AROUND_ONE if place.first_line == place.last_line else AROUND_SEVERAL
    first, last = max(1, place.first_line - around), min(len(lines), place.last_line + around)
    rows = [
        f"{number:4} | {'>>> ' if number in place.lines else '    '}{lines[number - 1].rstrip(chr(13))}"
        for number in range(first, last + 1)
    ]
    rule = "-" * 20
    return "\n".join([f"{place.file}:{place.first_line}", rule, *rows, rule])


class SyntaxFault(DockerfileError):
    """dockerfile parse error on line {line}: {reason}: an instruction that cannot be read."""

    def __init__(self, reason: str, *, at: SourceRange) -> None:
        super().__init__(f"dockerfile parse error on line {at.first_line}: {reason}", at=[at])
        self.reason = reason


class Fault(Exception):
    """Raised inside the parser, by functions that know only their piece of text.

    `offset` counts characters of the logical line; None means its beginning.
    """

    def __init__(self, reason: str, offset: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.offset = offset


def meant(reason: str, word: str, known: Iterable[str], *, ignore_case: bool = False) -> str:
    """The reason with the nearest right word behind it, where one is near: `… (did you mean COPY?)`."""
    near = nearest(word, known, ignore_case=ignore_case)
    return f"{reason} (did you mean {near}?)" if near else reason
