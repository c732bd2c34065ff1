"""The files of users and groups as data: passwd(5), group(5)."""

from __future__ import annotations

from typing import NamedTuple

ID_MAX = 2**31 - 1


class Passwd(NamedTuple):
    name: str
    uid: int
    gid: int
    home: str


class Group(NamedTuple):
    name: str
    gid: int
    members: list[str]


def parse_passwd(text: str) -> list[Passwd]:
    """Entries of passwd(5); lines that are not entries are passed over."""
    entries = []
    for line in text.split("\n"):
        fields = line.strip().split(":")
        if len(fields) >= 6 and not line.lstrip().startswith("#"):
            uid, gid = number(fields[2]), number(fields[3])
            if uid is not None and gid is not None:
                entries.append(Passwd(fields[0], uid, gid, fields[5]))
    return entries


def parse_group(text: str) -> list[Group]:
    """Entries of group(5)."""
    entries = []
    for line in text.split("\n"):
        fields = line.strip().split(":")
        if len(fields) >= 4 and not line.lstrip().startswith("#"):
            gid = number(fields[2])
            if gid is not None:
                entries.append(Group(fields[0], gid, [name for name in fields[3].split(",") if name]))
    return entries


def number(text: str) -> int | None:
    """A uid or gid in range; None for anything else. Only ASCII digits count, `isdigit` alone would take others."""
    if not text.isascii() or not text.isdigit() or len(text) > 10:
        return None
    value = int(text)
    return value if value <= ID_MAX else None
