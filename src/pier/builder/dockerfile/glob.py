"""The patterns of `${name#pattern}` and its kin (POSIX XCU 2.13 without brackets): `*`, `?` and plain characters.

Matching walks all possibilities side by side, so no pattern takes longer than its length times the value's.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum


class InvalidEscape(ValueError):
    """A backslash before a character that needs none."""


class Wild(Enum):
    ANY = "?"
    STAR = "*"


Token = Wild | str
Glob = Sequence[Token]


def compile_glob(pattern: str) -> list[Token]:
    """The tokens of a pattern; `\\*`, `\\?` and `\\\\` stand for themselves, `\\}` and `\\/` too.

    Raises InvalidEscape for a backslash before anything else.
    """
    tokens: list[Token] = []
    chars = iter(pattern)
    for char in chars:
        if char == "*":
            if not tokens or tokens[-1] is not Wild.STAR:
                tokens.append(Wild.STAR)
        elif char == "?":
            tokens.append(Wild.ANY)
        elif char == "\\":
            following = next(chars, "")
            if following not in ("*", "?", "\\", "}", "/"):
                raise InvalidEscape(f"invalid escape '\\{following}'")
            tokens.append(following)
        else:
            tokens.append(char)
    return tokens


def without_prefix(value: str, glob: Glob, *, longest: bool) -> str:
    """The value without the shortest or longest beginning that matches; wildcards match no line feed."""
    ends = _ends(value, glob, longest=longest)
    return value if ends is None else value[ends:]


def without_suffix(value: str, glob: Glob, *, longest: bool) -> str:
    ends = _ends(value[::-1], glob[::-1], longest=longest)
    return value if ends is None else value[: len(value) - ends]


def replace(value: str, glob: Glob, replacement: str, *, everywhere: bool, limit: int) -> str | None:
    """The value with the first match, or each, replaced; of matches that begin together the longest counts.

    None where the result would have more than `limit` characters.
    """
    made: list[str] = []
    size = len(value)
    at = 0
    while at <= len(value):
        found = _search(value, at, glob)
        if found is None:
            break
        start, end = found
        size += len(replacement)
        if size > limit + len(value):
            return None
        made += [value[at:start], replacement]
        if end == start:
            made.append(value[start : start + 1])
            end += 1
        at = end
        if not everywhere:
            break
    return "".join(made) + value[at:]


def _search(value: str, begin: int, glob: Glob) -> tuple[int, int] | None:
    """(start, end) of the leftmost longest match at or after `begin`."""
    goal = len(glob)
    # starts[i]: where the earliest attempt began that has matched the first i tokens
    starts: dict[int, int] = {}
    best: tuple[int, int] | None = None
    for at in range(begin, len(value) + 1):
        if best is None:
            starts.setdefault(0, at)
        _skip_stars(starts, glob)
        if goal in starts and (best is None or starts[goal] <= best[0]):
            best = (starts[goal], at)
        if best is not None:
            starts = {state: start for state, start in starts.items() if start <= best[0]}
        if at == len(value) or not starts:
            break
        starts = _step(starts, glob, value[at])
    return best


def _ends(value: str, glob: Glob, *, longest: bool) -> int | None:
    """How many characters at the beginning match."""
    goal = len(glob)
    starts = {0: 0}
    found: int | None = None
    for at in range(len(value) + 1):
        _skip_stars(starts, glob)
        if goal in starts:
            found = at
            if not longest:
                break
        if at == len(value) or not starts:
            break
        starts = _step(starts, glob, value[at])
    return found


def _skip_stars(starts: dict[int, int], glob: Glob) -> None:
    """A star may match nothing."""
    for state in sorted(starts):
        following, start = state, starts[state]
        while following < len(glob) and glob[following] is Wild.STAR:
            following += 1
            starts[following] = min(start, starts.get(following, start))


def _step(starts: dict[int, int], glob: Glob, char: str) -> dict[int, int]:
    after: dict[int, int] = {}
    for state, start in starts.items():
        if state == len(glob):
            continue
        token = glob[state]
        if token is Wild.STAR:
            following = state if char != "\n" else None
        elif token is Wild.ANY:
            following = state + 1 if char != "\n" else None
        else:
            following = state + 1 if token == char else None
        if following is not None:
            after[following] = min(start, after.get(following, start))
    return after
