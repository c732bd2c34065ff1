"""Words of a Dockerfile: quotes, escapes and variables, as BuildKit's frontend reads them (Dockerfile reference,
"Environment replacement"; POSIX XCU 2.6.2 for the modifiers).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from pier.builder.dockerfile import glob
from pier.builder.dockerfile.gotext import SPACE, quote

MAX_SHOWN: Final = 200
"""Characters of a word that a message repeats."""
MAX_DEPTH: Final = 100
"""Of `${a:-${b:-…}}`."""
MAX_RESULT: Final = 1 << 20
"""Characters that variables may add to one word."""
_TOO_LONG: Final = f"variables make it longer than {MAX_RESULT} characters"
_NOT_ALLOWED: Final = {True: "is not allowed to be unset", False: "is not allowed to be empty"}
_PLAIN: Final = re.compile(r"[^$'\"\\`]*+")
"""Words in which nothing can be special."""
_NOT_SPACE: Final = re.compile(rf"[^{SPACE}]+")
_NONE: Final[frozenset[str]] = frozenset()
_SPECIAL_PARAMETERS: Final = "@*#?-$!0"


class BadWord(ValueError):
    """A word that cannot be expanded; the text is the reason."""


class Expansion(msgspec.Struct, frozen=True):
    """What has become of a word."""

    text: str
    words: list[str]
    """The text split at spaces that were not quoted or escaped."""
    matched: frozenset[str]
    """Variables used that there are."""
    unmatched: frozenset[str]
    """Variables used that there are not."""


class Lexer(msgspec.Struct, frozen=True):
    """How words are read. The defaults are those of an instruction's arguments."""

    escape: str = "\\"
    raw_quotes: bool = False
    """Quotes stay in the result."""
    raw_escapes: bool = False
    """Escapes stay in the result."""
    plain_quotes: bool = False
    """Quotes are characters like others (the content of heredocs)."""
    keep_unset: bool = False
    """A variable that is not set stays as it is written."""

    def expand(self, word: str, variables: Mapping[str, str]) -> Expansion:
        """Raises BadWord."""
        if _PLAIN.fullmatch(word):
            return Expansion(word, _NOT_SPACE.findall(word), _NONE, _NONE)
        reading = _Reading(self, word, variables)
        try:
            text, words = reading.until("", raw_escapes=self.raw_escapes)
        except BadWord as fault:
            shown = word if len(word) <= MAX_SHOWN else f"{word[:MAX_SHOWN]}…"
            raise BadWord(f"failed to process {quote(shown)}: {fault}") from None
        return Expansion(text, words, frozenset(reading.matched), frozenset(reading.unmatched))


class _Words:
    """Splits what is read at unquoted spaces; empty words are none."""

    __slots__ = ("_word", "words")

    def __init__(self) -> None:
        self.words: list[str] = []
        self._word: list[str] = []

    def split(self, text: str) -> None:
        for char in text:
            if char in SPACE:
                self.end()
            else:
                self._word.append(char)

    def keep(self, text: str) -> None:
        self._word.append(text)

    def end(self) -> None:
        if word := "".join(self._word):
            self.words.append(word)
        self._word = []


class _Reading:
    """One pass over one word."""

    __slots__ = ("_at", "_depth", "_lexer", "_size", "_text", "_variables", "matched", "unmatched")

    def __init__(self, lexer: Lexer, text: str, variables: Mapping[str, str]) -> None:
        self._lexer = lexer
        self._text = text
        self._variables = variables
        self._at = 0
        self._depth = 0
        self._size = 0
        self.matched: set[str] = set()
        self.unmatched: set[str] = set()

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _next(self) -> str:
        char = self._peek()
        self._at += len(char)
        return char

    def until(self, stop: str, *, raw_escapes: bool) -> tuple[str, list[str]]:
        """(text, words) up to an unquoted `stop`, which is eaten; the empty string is the end."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise BadWord("syntax error: substitutions are nested too deeply")
        made: list[str] = []
        words = _Words()
        while char := self._peek():
            if char == stop:
                self._next()
                break
            text, place = self._piece(char, raw_escapes)
            place(words, text)
            made.append(text)
        else:
            if stop:
                raise BadWord(f"unexpected end of statement while looking for matching {stop}")
        self._depth -= 1
        words.end()
        return "".join(made), words.words

    def _piece(self, char: str, raw_escapes: bool) -> tuple[str, Callable[[_Words, str], None]]:
        if char == "$":
            return self._dollar(), _Words.split
        if char == "'" and not self._lexer.plain_quotes:
            return self._single_quoted(), _Words.keep
        if char == '"' and not self._lexer.plain_quotes:
            return self._double_quoted(raw_escapes), _Words.keep
        self._next()
        if char == self._lexer.escape:
            return (char if raw_escapes else "") + self._next(), _Words.keep
        return char, _Words.split

    def _single_quoted(self) -> str:
        end = self._text.find("'", self._at + 1)
        if end < 0:
            raise BadWord("unexpected end of statement while looking for matching single-quote")
        inside = self._text[self._at + 1 : end]
        self._at = end + 1
        return f"'{inside}'" if self._lexer.raw_quotes else inside

    def _double_quoted(self, raw_escapes: bool) -> str:
        self._next()
        made: list[str] = []
        while (char := self._peek()) != '"':
            if not char:
                raise BadWord("unexpected end of statement while looking for matching double-quote")
            if char == "$":
                made.append(self._dollar())
                continue
            self._next()
            if char == self._lexer.escape:
                if raw_escapes:
                    made.append(char)
                following = self._peek()
                if not following:
                    continue
                if following in ('"', "$", self._lexer.escape):
                    char = self._next()
            made.append(char)
        self._next()
        inside = "".join(made)
        return f'"{inside}"' if self._lexer.raw_quotes else inside

    # --- variables

    def _dollar(self) -> str:
        self._next()
        if self._peek() == "{":
            self._next()
            return self._braced()
        name = self._name()
        if not name:
            return "$"
        value = self._value(name)
        if value is None:
            return f"${name}" if self._lexer.keep_unset else ""
        return value

    def _name(self) -> str:
        start = self._at
        first = self._peek()
        if first.isdecimal():
            while self._peek().isdecimal():
                self._next()
        elif first and first in _SPECIAL_PARAMETERS:
            self._next()
        else:
            while (char := self._peek()) and (char == "_" or char.isalpha() or char.isdecimal()):
                self._next()
        return self._text[start : self._at]

    def _value(self, name: str) -> str | None:
        value = self._variables.get(name)
        (self.unmatched if value is None else self.matched).add(name)
        self._size += len(value or "")
        if self._size > MAX_RESULT:
            raise BadWord(_TOO_LONG)
        return value

    def _braced(self) -> str:
        first = self._peek()
        if not first:
            raise BadWord("syntax error: missing '}'")
        if first in "{}:":
            raise BadWord("syntax error: bad substitution")
        name = self._name()
        operator = self._next()
        if operator == "}":
            value = self._value(name)
            if value is None:
                return f"${{{name}}}" if self._lexer.keep_unset else ""
            return value
        if operator == "/":
            return self._replaced(name)
        colon = operator == ":"
        if colon:
            operator = self._next()
        if not operator:
            raise BadWord("syntax error: missing '}'")
        word = self._inside("}", raw_escapes=operator in "#%")
        value = self._value(name)
        written = ":" * colon + operator
        if value is None and self._lexer.keep_unset:
            return f"${{{name}{written}{word}}}"
        return _modified(name, value, written, word)

    def _inside(self, stop: str, *, raw_escapes: bool) -> str:
        """The text up to `stop`, within braces."""
        try:
            text, _ = self.until(stop, raw_escapes=raw_escapes)
        except BadWord:
            if self._peek():
                raise
            raise BadWord(f"syntax error: missing '{stop}'" + (" in ${}" if stop == "/" else "")) from None
        return text

    def _replaced(self, name: str) -> str:
        everywhere = self._peek() == "/"
        if everywhere:
            self._next()
        pattern = self._inside("/", raw_escapes=True)
        replacement = self._inside("}", raw_escapes=True)
        value = self._value(name)
        if value is None and self._lexer.keep_unset:
            return f"${{{name}/{pattern}/{replacement}}}"
        replaced = glob.replace(value or "", _compiled(pattern), replacement, everywhere=everywhere, limit=MAX_RESULT)
        if replaced is None:
            raise BadWord(_TOO_LONG)
        return replaced


def _modified(name: str, value: str | None, operator: str, word: str) -> str:
    """`${name OPERATOR word}` where the variable has `value`, None meaning unset."""
    missing = value is None or (operator.startswith(":") and not value)
    match operator[-1]:
        case "-":
            return word if missing else value or ""
        case "+":
            return "" if missing else word
        case "?":
            if missing:
                raise BadWord(f"{name}: {word or _NOT_ALLOWED[value is None]}")
            return value or ""
        case "#" | "%":
            return _trimmed(value or "", operator[-1], word)
    raise BadWord(f"unsupported modifier ({operator}) in substitution")


def _trimmed(value: str, operator: str, pattern: str) -> str:
    longest = pattern.startswith(operator)
    tokens = _compiled(pattern[1:] if longest else pattern)
    cut = glob.without_prefix if operator == "#" else glob.without_suffix
    return cut(value, tokens, longest=longest)


def _compiled(pattern: str) -> list[glob.Token]:
    try:
        return glob.compile_glob(pattern)
    except glob.InvalidEscape as fault:
        raise BadWord(f"invalid pattern ({pattern}) in substitution: {fault}") from None
