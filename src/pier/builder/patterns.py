"""Path patterns of `.dockerignore`, `COPY --exclude` and LLB's include and exclude lists: Docker's rules.

`*` and `?` stop at slashes, `**` does not, `[a-z]` is a class, a backslash takes the next character as it is, and `!`
takes back what patterns before it have matched. A pattern that matches a folder matches what is below it. Order counts:
the last pattern that matches decides.

A context may have ten million paths, so patterns are gathered into groups between changes of `!`, and each group asks
sets and one regular expression instead of each pattern. Standard library only: the command line packs contexts by it.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from itertools import groupby
from typing import Final, NamedTuple

from pier.errors import InvalidParameter

MAX_PATTERNS: Final = 100_000
MAX_BACKTRACKING: Final = 3
"""Stars of one pattern that a regular expression may try against each other."""
_LITERAL: Final = re.compile(r"[^*?\[\]\\]+")


class BadPattern(InvalidParameter):
    """invalid pattern {pattern!r}: {reason}"""


class Wild(Enum):
    """The parts of a pattern that are no plain character, each as the regular expression that it means."""

    CHARACTER = "[^/]"
    NAME = "[^/]*"
    FOLDERS = "(?:.*/)?"
    ALL = ".*"


class CharacterClass(NamedTuple):
    regex: str


Token = Wild | CharacterClass | str
_REPEATING: Final = (Wild.NAME, Wild.FOLDERS, Wild.ALL)


class Pattern(NamedTuple):
    text: str
    """Cleaned, without `!`."""
    negated: bool
    tokens: tuple[Token, ...]

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Raises BadPattern."""
        negated = text.startswith("!")
        cleaned = clean(text.removeprefix("!"))
        if negated and text == "!":
            raise BadPattern(pattern=text, reason="! takes back nothing")
        return cls(cleaned, negated, tuple(tokens_of(cleaned)))

    def compiled(self) -> Compiled:
        """What asks whether the pattern matches a whole path."""
        if sum(token in _REPEATING for token in self.tokens) > MAX_BACKTRACKING:
            return _Walk(self.tokens)
        return re.compile(regex_of(self.tokens))


class Verdicts(NamedTuple):
    """What a walk knows of a folder when it looks at what is in it."""

    matched: tuple[bool, ...] = ()
    """Per pattern: whether it matches the folder or one above it."""
    groups: tuple[bool, ...] = ()
    """Per group: whether any of its patterns does."""


ROOT: Final = Verdicts()


class PatternMatcher:
    """Whether paths match. Paths are relative, with slashes, without `.`, `..` or a slash at either end."""

    def __init__(self, patterns: Iterable[str]) -> None:
        """Raises BadPattern. Empty patterns are left out."""
        self.patterns = [Pattern.parse(text) for text in map(str.strip, patterns) if text]
        if len(self.patterns) > MAX_PATTERNS:
            raise BadPattern(pattern="…", reason=f"there are more than {MAX_PATTERNS} patterns")
        self._compiled = [pattern.compiled() for pattern in self.patterns]
        self._groups: list[_Group] = []
        for negated, members in groupby(enumerate(self.patterns), key=lambda each: each[1].negated):
            numbered = list(members)
            self._groups.append(_Group(negated, numbered[0][0], [pattern for _, pattern in numbered]))

    def __bool__(self) -> bool:
        return bool(self.patterns)

    @property
    def takes_back(self) -> bool:
        """Whether something below a matching folder may not match: such a folder has to be looked into."""
        return any(pattern.negated for pattern in self.patterns)

    def may_take_back_below(self, folder: str) -> bool:
        """Whether a `!` pattern could match something below a folder; False: the folder can be left out whole."""
        return any(_reaches_below(pattern.text, folder) for pattern in self.patterns if pattern.negated)

    def matches(self, path: str) -> bool:
        """Whether a path matches, all that is above it considered."""
        verdicts = ROOT
        at = path.find("/")
        while at >= 0:
            _, verdicts = self.folder(path[:at], verdicts)
            at = path.find("/", at + 1)
        return self.file(path, verdicts)

    def file(self, path: str, above: Verdicts = ROOT) -> bool:
        """Whether a path matches; `above`: the verdicts on its folder."""
        matched = False
        known = above.groups
        for number, group in enumerate(self._groups):
            if group.negated == matched and ((known and known[number]) or group.matches(path)):
                matched = not matched
        return matched

    def folder(self, path: str, above: Verdicts = ROOT) -> tuple[bool, Verdicts]:
        """(whether a folder matches, the verdicts for what is in it)."""
        matched = False
        found = [False] * len(self.patterns)
        for number, pattern in enumerate(self.patterns):
            if above.matched and above.matched[number]:
                found[number] = True
            elif pattern.negated == matched:
                found[number] = bool(self._compiled[number].fullmatch(path))
            if found[number]:
                matched = not pattern.negated
        groups = tuple(any(found[group.first : group.first + group.size]) for group in self._groups)
        return matched, Verdicts(tuple(found), groups)


class _Group:
    """Consecutive patterns of one kind, asked all at once."""

    __slots__ = ("_endings", "_exact", "_names", "_regex", "_walks", "first", "negated", "size")

    def __init__(self, negated: bool, first: int, patterns: Sequence[Pattern]) -> None:
        self.negated = negated
        self.first = first
        self.size = len(patterns)
        exact, names, endings, others = set(), set(), set(), []
        self._walks: list[_Walk] = []
        for pattern in patterns:
            text = pattern.text
            below = text.removeprefix("**/")
            if _LITERAL.fullmatch(text):
                exact.add(text)
            elif below != text and "/" not in below and _LITERAL.fullmatch(below):
                names.add(below)
            elif below.startswith("*") and below != text and "/" not in below and _LITERAL.fullmatch(below[1:]):
                endings.add(below[1:])
            elif isinstance(compiled := pattern.compiled(), _Walk):
                self._walks.append(compiled)
            else:
                others.append(compiled.pattern)
        self._exact = frozenset(exact)
        self._names = frozenset(names)
        self._endings = tuple(endings)
        self._regex = re.compile("|".join(f"(?:{regex})" for regex in others)) if others else None

    def matches(self, path: str) -> bool:
        return (
            path in self._exact
            or (bool(self._names) and path[path.rfind("/") + 1 :] in self._names)
            or (bool(self._endings) and path.endswith(self._endings))
            or (self._regex is not None and self._regex.fullmatch(path) is not None)
            or any(walk.fullmatch(path) for walk in self._walks)
        )


class _Walk:
    """A pattern of many stars, walked through with all possibilities side by side.

    A regular expression could take its length to the power of the stars; contexts come from strangers, too.
    """

    __slots__ = ("_accepts", "_tokens")

    def __init__(self, tokens: Sequence[Token]) -> None:
        self._tokens = tokens
        self._accepts = [re.compile(token.regex) if isinstance(token, CharacterClass) else None for token in tokens]

    def fullmatch(self, path: str) -> bool:
        # state 2n: the first n tokens have matched; 2n+1: inside the folders of token n
        states = self._with_empty({0})
        for char in path:
            states = self._with_empty({after for state in states for after in self._step(state, char)})
            if not states:
                return False
        return 2 * len(self._tokens) in states

    def _with_empty(self, states: set[int]) -> set[int]:
        """What repeats may be there no time at all."""
        waiting = list(states)
        while waiting:
            state = waiting.pop()
            number, inside = divmod(state, 2)
            if inside or number == len(self._tokens) or self._tokens[number] not in _REPEATING:
                continue
            if state + 2 not in states:
                states.add(state + 2)
                waiting.append(state + 2)
        return states

    def _step(self, state: int, char: str) -> Iterator[int]:
        number = state // 2
        if number == len(self._tokens):
            return
        token = self._tokens[number]
        if token is Wild.FOLDERS:
            if char != "\n":
                yield 2 * number + 1
            if char == "/":
                yield 2 * number + 2
        elif token is Wild.ALL:
            if char != "\n":
                yield state
        elif token is Wild.NAME:
            if char != "/":
                yield state
        elif self._accepts_one(number, token, char):
            yield state + 2

    def _accepts_one(self, number: int, token: Token, char: str) -> bool:
        accepts = self._accepts[number]
        if accepts is not None:
            return accepts.match(char) is not None
        return char != "/" if token is Wild.CHARACTER else token == char


Compiled = re.Pattern[str] | _Walk


def clean(text: str) -> str:
    """The shortest spelling of a pattern: no `.`, no doubled slashes, none at its end, `..` only at its beginning."""
    cleaned = posixpath.normpath(text)
    return cleaned[1:] if cleaned.startswith("//") else cleaned


def tokens_of(pattern: str) -> list[Token]:
    """Raises BadPattern."""
    tokens: list[Token] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        token: Token = char
        if char == "*" and pattern.startswith("*", at):
            while pattern.startswith("*", at):
                at += 1
            slash = pattern.startswith("/", at)
            at += slash
            first = len(tokens) == 0
            # `**file` is any path that ends so; elsewhere `**` stands for whole folders even without its slash
            token = Wild.ALL if at == len(pattern) or (first and not slash) else Wild.FOLDERS
        elif char == "*":
            token = Wild.NAME
        elif char == "?":
            token = Wild.CHARACTER
        elif char == "[":
            token, at = _character_class(pattern, at)
        elif char == "\\":
            if at == len(pattern):
                raise BadPattern(pattern=pattern, reason="a backslash at its end")
            token = pattern[at]
            at += 1
        if not (tokens and tokens[-1] == token and token in _REPEATING):
            tokens.append(token)
    return tokens


def regex_of(tokens: Sequence[Token]) -> str:
    """The regular expression that whole paths have to match."""
    return "".join(
        token.value
        if isinstance(token, Wild)
        else token.regex
        if isinstance(token, CharacterClass)
        else re.escape(token)
        for token in tokens
    )


def _character_class(pattern: str, at: int) -> tuple[CharacterClass, int]:
    """(a class whose `[` has been read, where it ends)."""
    negated = pattern.startswith("^", at)
    at += negated
    ranges: list[str] = []
    while not (pattern.startswith("]", at) and ranges):
        low, at = _class_character(pattern, at)
        high = low
        if pattern.startswith("-", at):
            high, at = _class_character(pattern, at + 1)
        if low <= high:
            ranges.append(f"{re.escape(low)}-{re.escape(high)}")
        else:
            ranges.append("")
    inside = "".join(ranges)
    if not inside:
        return CharacterClass("[\\s\\S]" if negated else "(?!)"), at + 1
    return CharacterClass(f"[{'^' * negated}{inside}]"), at + 1


def _class_character(pattern: str, at: int) -> tuple[str, int]:
    char = pattern[at : at + 1]
    if char in ("", "-", "]"):
        raise BadPattern(pattern=pattern, reason="a class that is not closed or has an odd range")
    if char == "\\":
        at += 1
        char = pattern[at : at + 1]
    if not char:
        raise BadPattern(pattern=pattern, reason="a class that is not closed")
    return char, at + 1


def _reaches_below(pattern: str, folder: str) -> bool:
    """Whether a pattern could match a path below a folder, going by its literal beginning alone."""
    wild = re.search(r"[*?\[\\]", pattern)
    literal = pattern if wild is None else pattern[: wild.start()]
    inside = folder + "/"
    if wild is None:
        return literal.startswith(inside)
    return literal.startswith(inside) or inside.startswith(literal)
