"""Heredocs: `<<EOF`, `<<-EOF`, `<<"EOF"`, `3<<EOF` (Dockerfile reference, "Here-Documents"; POSIX XCU 2.7.4)."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from pier.builder.dockerfile.shell import BadWord, Lexer

_START: Final = re.compile(r"(\d*)<<(-?)([^<]*)")
_LEADING_TABS: Final = re.compile(r"^\t+", re.MULTILINE)
_NAME: Final = Lexer(keep_unset=True)
_RAW_NAME: Final = Lexer(keep_unset=True, raw_quotes=True)
_LINE: Final = Lexer(keep_unset=True, raw_quotes=True, raw_escapes=True)


class Heredoc(msgspec.Struct, frozen=True):
    name: str
    """The word that ends it."""
    expand: bool
    """Variables are put in: no part of the name was quoted."""
    chomp: bool
    """`<<-`: tabs at the beginning of lines are taken away."""
    file_descriptor: int = 0
    content: str = ""
    """As written, tabs and all."""

    @property
    def text(self) -> str:
        """What a file or a shell gets of it."""
        return chomped(self.content) if self.chomp else self.content


def chomped(content: str) -> str:
    return _LEADING_TABS.sub("", content)


def parse_heredoc(word: str) -> Heredoc | None:
    """A heredoc's start without its content; None where the word is none."""
    match = _START.fullmatch(word)
    if not match or not match[3]:
        return None
    try:
        names, raw_names = _NAME.expand(match[3], {}).words, _RAW_NAME.expand(match[3], {}).words
    except BadWord:
        return None
    if len(names) != 1 or len(raw_names) != 1:
        return None
    quotes = [name.count("'") + name.count('"') for name in (names[0], raw_names[0])]
    descriptor = int(match[1]) if match[1] and len(match[1]) < 10 else 0
    return Heredoc(names[0], expand=quotes[0] == quotes[1], chomp=bool(match[2]), file_descriptor=descriptor)


def heredocs_of(line: str) -> list[Heredoc]:
    """The heredocs that a line starts, in the order in which their bodies follow it."""
    if "<<" not in line:
        return []
    try:
        words = _LINE.expand(line, {}).words
    except BadWord:
        return []
    return [heredoc for heredoc in map(parse_heredoc, words) if heredoc]
