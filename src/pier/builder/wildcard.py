"""Names with `*`, `?` and `[…]` as Go's filepath.Match reads them, and what they match in a tree."""

from __future__ import annotations

import os
import re
import stat
from functools import lru_cache

from pier.builder.keys import Selection
from pier.builder.patterns import BadPattern
from pier.kernel.paths import closing, open_in_root

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def has_wildcards(text: str) -> bool:
    """Whether a path is a pattern."""
    return bool(re.search(r"(?<!\\)(?:\\\\)*[*?\[]", text))


@lru_cache(maxsize=512)
def compiled(pattern: str) -> re.Pattern[str]:
    """The regular expression of a pattern for one name; `*` and `?` match no slash. Raises BadPattern."""
    out: list[str] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*":
            if not out or out[-1] != "[^/]*":  # one after the other match no more than one, and take longer
                out.append("[^/]*")
        elif char == "?":
            out.append("[^/]")
        elif char == "\\":
            if at == len(pattern):
                raise BadPattern(pattern=pattern, reason="syntax error")
            out.append(re.escape(pattern[at]))
            at += 1
        elif char == "[":
            text, at = _class(pattern, at)
            out.append(text)
        else:
            out.append(re.escape(char))
    return re.compile("".join(out), re.DOTALL)


def _class(pattern: str, at: int) -> tuple[str, int]:
    """A bracket expression from behind its `[`: the same for `re`, and where it ends."""
    negated = pattern.startswith("^", at)
    at += negated
    ranges: list[str] = []
    while True:
        if pattern.startswith("]", at) and ranges:
            return f"(?!/)[{'^' if negated else ''}{''.join(ranges)}]", at + 1
        low, at = _class_char(pattern, at)
        high = low
        if pattern.startswith("-", at):
            high, at = _class_char(pattern, at + 1)
        if low <= high:
            ranges.append(f"{re.escape(low)}-{re.escape(high)}")
        else:
            raise BadPattern(pattern=pattern, reason="syntax error")


def _class_char(pattern: str, at: int) -> tuple[str, int]:
    if at >= len(pattern) or pattern[at] in "-]":
        raise BadPattern(pattern=pattern, reason="syntax error")
    if pattern[at] == "\\":
        at += 1
        if at >= len(pattern):
            raise BadPattern(pattern=pattern, reason="syntax error")
    return pattern[at], at + 1


def matches(root_fd: int, selection: Selection) -> list[str]:
    """The paths below a root that a selection names, in order; no wildcard: the path itself, there or not.

    Raises BadPattern, OSError (a part before the first wildcard that is not there).
    """
    path = clean(selection.path)
    if not selection.wildcards or not has_wildcards(path):
        return [unescaped(path) if selection.wildcards else path]
    parts = path.strip("/").split("/")
    first = next(index for index, part in enumerate(parts) if has_wildcards(part))
    found = ["/" + "/".join(map(unescaped, parts[:first]))]
    for index, part in enumerate(parts[first:], first):
        found = [match for place in found for match in _below(root_fd, place, part, last=index == len(parts) - 1)]
    return found


def _below(root_fd: int, place: str, pattern: str, *, last: bool) -> list[str]:
    shape = compiled(pattern)
    try:
        fd = open_in_root(root_fd, place, _DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return []
    with closing(fd):
        names = [name for name in sorted(os.listdir(fd)) if shape.fullmatch(name)]
        if not last:
            names = [name for name in names if _is_directory(fd, name)]
    return [f"{place.rstrip('/')}/{name}" for name in names]


def _is_directory(fd: int, name: str) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode)


def unescaped(part: str) -> str:
    """A pattern without wildcards as the name it stands for."""
    return re.sub(r"\\(.)", r"\1", part, flags=re.DOTALL)


def clean(path: str) -> str:
    """A path from the root, without `.`, `..` and empty parts; a slash at its end stays."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts) + ("/" if parts and path.endswith(("/", "/.")) else "")
