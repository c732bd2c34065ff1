"""Flags of instructions: `--name`, `--name=value`, between the keyword and the arguments."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final

import msgspec

from pier.builder.dockerfile.gotext import SPACE
from pier.builder.dockerfile.source import Fault, meant

MAX_FLAGS: Final = 1_000


class Kind(Enum):
    BOOLEAN = "boolean"
    STRING = "string"
    STRINGS = "strings"
    """May be given more than once."""


class Flag(msgspec.Struct, frozen=True):
    """One flag as written, its quotes taken away."""

    text: str
    offset: int
    """Of its first dash in the text it was found in."""


class Flags(msgspec.Struct, frozen=True):
    """What an instruction's flags say."""

    given: Mapping[str, list[str]]
    """Flag without dashes -> its values; a boolean's is `true` or `false`."""
    offsets: Mapping[str, int]

    def string(self, name: str) -> str:
        return self.given[name][-1] if name in self.given else ""

    def strings(self, name: str) -> tuple[str, ...]:
        return tuple(self.given.get(name, ()))

    def boolean(self, name: str) -> bool:
        return self.string(name) == "true"

    def tristate(self, name: str) -> bool | None:
        return self.boolean(name) if name in self.given else None


def split_flags(text: str, base: int) -> tuple[list[Flag], int]:
    """The flags at the beginning of an instruction's arguments, and the offset in `text` of what follows them.

    `base` is added to the flags' offsets. `--` ends them. Quotes group, a backslash takes the next character as it is.
    """
    flags: list[Flag] = []
    at = 0
    while True:
        while at < len(text) and text[at] in SPACE:
            at += 1
        if not text.startswith("--", at):
            return flags, at
        start = at
        word, at = _word(text, at)
        if word == "--":
            return flags, at
        flags.append(Flag(word, base + start))
        if len(flags) > MAX_FLAGS:
            raise Fault(f"more than the {MAX_FLAGS} flags an instruction may have", base + start)


def _word(text: str, at: int) -> tuple[str, int]:
    made: list[str] = []
    quote = ""
    while at < len(text):
        char = text[at]
        if char == "\\":
            made.append(text[at + 1 : at + 2])
            at += 2
            continue
        if quote:
            if char == quote:
                quote = ""
            else:
                made.append(char)
        elif char in SPACE:
            break
        elif char in "'\"":
            quote = char
        else:
            made.append(char)
        at += 1
    return "".join(made), min(at, len(text))


_BOOLEANS: Final = {"": "true", "true": "true", "false": "false"}


def read_flags(flags: list[Flag], known: Mapping[str, Kind]) -> Flags:
    """Raises Fault for an unknown flag, one given twice, a value that is missing or wrong."""
    given: dict[str, list[str]] = {}
    offsets: dict[str, int] = {}
    for flag in flags:
        name, equals, value = flag.text[2:].partition("=")
        kind = known.get(name)
        if kind is None:
            raise Fault(meant(f"unknown flag: --{name}", name, known), flag.offset)
        if name in given and kind is not Kind.STRINGS:
            raise Fault(f"duplicate flag specified: --{name}", flag.offset)
        if kind is Kind.BOOLEAN:
            if equals and not value:
                raise Fault(f"missing a value on flag: --{name}", flag.offset)
            if value.lower() not in _BOOLEANS:
                raise Fault(f"expecting boolean value for flag --{name}, not: {value}", flag.offset)
            value = _BOOLEANS[value.lower()]
        elif not equals:
            raise Fault(f"missing a value on flag: --{name}", flag.offset)
        given.setdefault(name, []).append(value)
        offsets.setdefault(name, flag.offset)
    return Flags(given, offsets)
