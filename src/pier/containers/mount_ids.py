"""Whose the files of a bind mount are shown to be (mount_setattr(2), "ID-mapped mounts"), in podman's words.

`idmap`: with the ids of the container's user namespace, what is root's on disk is root's inside. `idmap=uids=D-S-N`: N
ids of the disk from D on are shown as those from S on, which are the host's, and with `@` before them the container's;
`#` stands between several, `;` before `gids=…`. Files of other owners are nobody's, and cannot be made.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from pier.errors import InvalidParameter
from pier.storage.ids import Extent, IdMap

WORD = "idmap"
ID_END = 2**32 - 1
"""(uid_t) -1 is no id."""
PIECES_MAX = 340
"""Of one map: UID_GID_MAP_MAX_EXTENTS of the kernel."""

_PIECE = re.compile(r"(@?)(\d{1,10})-(\d{1,10})-(\d{1,10})", re.ASCII)
_EVERYTHING = [{"containerID": 0, "hostID": 0, "size": ID_END}]


class InvalidIdMap(InvalidParameter):
    """invalid idmap {text!r}: {reason}"""

    remedy = "written as idmap=uids=DISK-SHOWN-COUNT;gids=DISK-SHOWN-COUNT, several with # between, @ for ids inside"


class Piece(NamedTuple):
    """`size` ids of the disk from `disk` on, shown as those from `shown` on."""

    disk: int
    shown: int
    size: int
    inside: bool
    """`shown` is the container's id, not the host's."""


class MountIds(NamedTuple):
    """The map of one mount; an empty part is that of the container."""

    uids: tuple[Piece, ...] = ()
    gids: tuple[Piece, ...] = ()

    @property
    def as_the_container(self) -> bool:
        """Whether it is the container's own map, so that there must be one."""
        return not self.uids and not self.gids

    def oci(self, id_map: IdMap | None) -> dict[str, list[dict[str, int]]]:
        """The mount's `uidMappings` and `gidMappings`; `id_map` is the container's. Raises InvalidIdMap."""
        if self.as_the_container:
            return {}
        own = (id_map.uids, id_map.gids) if id_map is not None else (None, None)
        return {
            f"{kind}Mappings": _oci(pieces, extents)
            for kind, pieces, extents in zip(("uid", "gid"), self, own, strict=True)
        }


def parse(value: str) -> MountIds | None:
    """What stands behind `idmap=`, or `true`; None for `false`. Raises InvalidIdMap."""
    if value in ("true", "false", "1", "0"):
        return MountIds() if value in ("true", "1") else None
    parts: dict[str, tuple[Piece, ...]] = {}
    for part in value.split(";"):
        kind, _, text = part.partition("=")
        if kind not in ("uids", "gids") or kind in parts:
            raise InvalidIdMap(text=value[:200], reason=f"{part[:80]!r} is neither uids=… nor gids=…")
        parts[kind] = _pieces(text, value)
    return MountIds(**parts)


def _pieces(text: str, value: str) -> tuple[Piece, ...]:
    words = text.split("#")
    if len(words) > PIECES_MAX:
        raise InvalidIdMap(text=value[:200], reason=f"{len(words)} pieces, the kernel takes {PIECES_MAX}")
    pieces: list[Piece] = []
    for word in words:
        found = _PIECE.fullmatch(word)
        if found is None:
            raise InvalidIdMap(text=value[:200], reason=f"{word[:80]!r} is not three numbers with dashes")
        inside, disk, shown, count = found[1] == "@", *map(int, found.groups()[1:])
        if not count or disk + count > ID_END or shown + count > ID_END:
            raise InvalidIdMap(text=value[:200], reason=f"{word!r} has no ids, or such as do not exist")
        for other in pieces:
            if _overlap(disk, count, other.disk, other.size) or _overlap(shown, count, other.shown, other.size):
                raise InvalidIdMap(text=value[:200], reason=f"{word!r} says again what a piece before it says")
        pieces.append(Piece(disk, shown, count, inside))
    return tuple(pieces)


def _overlap(first: int, count: int, other: int, other_count: int) -> bool:
    return first < other + other_count and other < first + count


def _oci(pieces: tuple[Piece, ...], own: list[Extent] | None) -> list[dict[str, int]]:
    if not pieces:
        if own is None:
            return _EVERYTHING
        return [{"containerID": item.inside, "hostID": item.outside, "size": item.size} for item in own]
    return [
        {"containerID": piece.disk, "hostID": _on_host(piece, own), "size": piece.size}  # OCI's words for disk, shown
        for piece in pieces
    ]


def _on_host(piece: Piece, own: list[Extent] | None) -> int:
    if own is None or not piece.inside:
        return piece.shown
    for item in own:
        if item.inside <= piece.shown and piece.shown + piece.size <= item.inside + item.size:
            return item.outside + piece.shown - item.inside
    text = f"@{piece.disk}-{piece.shown}-{piece.size}"
    raise InvalidIdMap(text=text, reason="the container's user namespace has no such ids in one piece")
