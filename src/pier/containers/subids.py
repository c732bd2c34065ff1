"""Ranges of subordinate ids and the maps made of them (subuid(5), subgid(5), user_namespaces(7)). Pure, save `read`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pier.errors import PierError
from pier.storage.ids import Extent

SUBUID = "/etc/subuid"
SUBGID = "/etc/subgid"
ID_END = 2**32 - 1
"""The first number that is no id: (uid_t) -1."""
EXTENTS_MAX = 340
"""What the kernel takes in one map (user_namespaces(7))."""
FILE_MAX_BYTES = 4 << 20


class BadSubids(PierError):
    """Cannot parse subuid/gid information: Format not correct for {path} file (line {number}: {line!r})"""

    remedy = "a line is NAME:FIRST:COUNT, all ids below 4294967295"


class NoSubids(PierError):
    """no {kind} ranges found for user "{user}\""""

    remedy = "give it some: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}"


class NoIdsLeft(PierError):
    """no {size} consecutive {kind} ids are left in the ranges of user "{user}\""""

    remedy = "remove containers with --userns=auto, or add a range to {path}"


class Range(NamedTuple):
    """Ids `first` to `first + size - 1` of the host."""

    first: int
    size: int

    @property
    def end(self) -> int:
        return self.first + self.size


def parse(text: str, names: Iterable[str], *, path: str) -> list[Range]:
    """The ranges of the lines that begin with one of `names`, in order of their first id, as Docker reads them.

    Raises BadSubids for a line that is none.
    """
    wanted = frozenset(names)
    found = []
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        parts = line.split(":")
        if len(parts) != 3 or not all(part.isascii() and part.isdigit() and len(part) <= 10 for part in parts[1:]):
            raise BadSubids(path=path, number=number, line=line[:80])
        entry = Range(int(parts[1]), int(parts[2]))
        if entry.end > ID_END:
            raise BadSubids(path=path, number=number, line=line[:80])
        if parts[0] in wanted and entry.size:
            found.append(entry)
    return sorted(found)


def read(path: str, names: Sequence[str], *, kind: str) -> list[Range]:
    """The ranges of a user in a file; `names` are its name and its number. Blocking. Raises BadSubids, NoSubids."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            text = file.read(FILE_MAX_BYTES)
    except OSError:
        text = ""
    found = parse(text, names, path=path)
    if not found:
        raise NoSubids(kind=kind, user=names[0])
    return found


def extents(ranges: Iterable[Range]) -> list[Extent]:
    """The ranges one after the other, from id 0 of the container on; as many as the kernel takes."""
    made: list[Extent] = []
    inside = 0
    for item in list(ranges)[:EXTENTS_MAX]:
        made.append(Extent(inside, item.first, item.size))
        inside += item.size
    return made


def take(size: int, pool: Sequence[Range], used: Iterable[Range]) -> Range | None:
    """The first `size` consecutive ids of `pool` that none of `used` has; None where there are none. Pure."""
    taken = sorted(used)
    for whole in pool:
        start = whole.first
        for item in taken:
            if item.end <= start:
                continue
            if item.first >= start + size:
                break
            start = item.end
        if start + size <= whole.end:
            return Range(start, size)
    return None
