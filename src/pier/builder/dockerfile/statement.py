"""One logical line taken apart: keyword, flags, arguments; and what all readings of arguments need."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from pier.builder.dockerfile.flags import Flag, Flags, Kind, read_flags, split_flags
from pier.builder.dockerfile.gotext import SPACE
from pier.builder.dockerfile.heredoc import Heredoc, heredocs_of
from pier.builder.dockerfile.instructions import Command
from pier.builder.dockerfile.source import Fault, SourceRange
from pier.builder.dockerfile.words import BLANK, exec_form

NO_FLAGS: Final[Mapping[str, Kind]] = {}


class Statement(msgspec.Struct, frozen=True):
    keyword: str
    flags: list[Flag]
    rest: str
    """The arguments, without white space around them."""
    offset: int
    """Of the arguments in the logical line."""
    text: str
    escape: str
    comments: tuple[str, ...] = ()
    source: SourceRange | None = None
    heredocs: tuple[Heredoc, ...] = ()

    @property
    def name(self) -> str:
        return self.keyword.upper()

    def known_flags(self, known: Mapping[str, Kind] = NO_FLAGS) -> Flags:
        """Raises Fault."""
        return read_flags(self.flags, known)

    def frame(self) -> dict[str, Any]:
        """The fields that every instruction has."""
        assert self.source is not None
        return {
            "source": self.source,
            "keyword": self.keyword,
            "code": self.text.strip(SPACE),
            "comments": self.comments,
        }

    def one(self) -> str:
        """The arguments as one. Raises Fault where there are none."""
        if not self.rest:
            raise Fault(f"{self.name} requires exactly one argument")
        return self.rest

    def command(self) -> Command:
        """Raises Fault for a JSON array of anything but strings."""
        listed = self.listed()
        if listed is not None:
            return Command(tuple(listed), shell_form=False)
        return Command((self.rest,) if self.rest else (), shell_form=True)

    def listed(self) -> list[str] | None:
        """The words of a JSON array, None where the arguments are none. Raises Fault."""
        return listed_words(self.rest, self.offset)

    def needed(self) -> None:
        """Raises Fault where there are no arguments."""
        if not self.rest:
            raise Fault(f"{self.name} requires at least one argument")

    def heredocs_started(self) -> list[Heredoc]:
        """The heredocs whose bodies follow; those of ONBUILD's instruction count."""
        inner = self
        if self.name == "ONBUILD" and self.rest:
            inner = split(self.rest, self.escape)
        if inner.name not in ("ADD", "COPY", "RUN"):
            return []
        if inner.listed() is not None:
            return []
        return heredocs_of(self.text)


def listed_words(text: str, offset: int) -> list[str] | None:
    """The words of a JSON array at an offset of the line, None where it is none. Raises Fault."""
    try:
        return exec_form(text)
    except Fault as fault:
        raise Fault(fault.reason, offset) from None


def split(text: str, escape: str) -> Statement:
    """Keyword, flags and arguments of a line."""
    start = len(text) - len(text.lstrip(SPACE))
    line = text.strip(SPACE)
    gap = BLANK.search(line)
    if gap is None:
        return Statement(line, [], "", start + len(line), text, escape)
    keyword, after = line[: gap.start()], line[gap.end() :]
    base = start + gap.end()
    flags, at = split_flags(after, base)
    rest = after[at:]
    stripped = rest.lstrip(SPACE)
    return Statement(keyword, flags, stripped, base + at + len(rest) - len(stripped), text, escape)
