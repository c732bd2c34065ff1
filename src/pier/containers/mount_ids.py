"""Whose the files of a bind mount are shown to be (mount_setattr(2), "ID-mapped mounts"), in podman's words.

`idmap`: with the ids of the container's user namespace, what is root's on disk is root's inside. `idmap=uids=D-S-N`: N
ids of the disk from D on are shown as those from S on, which are the host's, and with `@` before them the container's;
`#` stands between several, `;` before `gids=…`. Files of other owners are nobody's, and cannot be made.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from pier.containers.subids import ID_END
from pier.errors import InvalidParameter
from pier.storage.ids import Extent, IdMap

WORD = "idmap"
"""(uid_t) -1 is no id."""
PIECES_MAX = 340
"""Of one map: UID_GID_MAP_MAX_EXTENTS of the kernel."""

_PIECE = re.compile(r"(@?)(\d{1,10})-(\d{1,10})-(\d{1,10})", re.ASCII)
_EVERY_ID = IdMap([Extent(0, 0, ID_END)], [Extent(0, 0, ID_END)])


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
        return self.on_disk(id_map).oci()

    def on_disk(self, id_map: IdMap | None) -> IdMap:
        """The host's ids for those on disk; `id_map` is the container's. Raises InvalidIdMap."""
        own = id_map if id_map is not None else _EVERY_ID
        return IdMap(_extents(self.uids, own.uids), _extents(self.gids, own.gids))


def with_room_for_root(id_map: IdMap) -> IdMap:
    """The map of a mount that the host's root can make files in: it gives them their owners afterwards.

    Where the map has no id on disk for root the kernel lets it make none; for that moment it gets the last one.
    """
    last = ID_END - 1
    uids, gids = (
        extents
        if any(item.outside == 0 or item.inside + item.size > last for item in extents)
        else [*extents, Extent(last, 0, 1)]
        for extents in (id_map.uids, id_map.gids)
    )
    return IdMap(uids, gids)


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


def _extents(pieces: tuple[Piece, ...], own: list[Extent]) -> list[Extent]:
    return [
        Extent(piece.disk, _on_host(piece, own) if piece.inside else piece.shown, piece.size) for piece in pieces
    ] or own


def _on_host(piece: Piece, own: list[Extent]) -> int:
    for item in own:
        if item.inside <= piece.shown and piece.shown + piece.size <= item.inside + item.size:
            return item.outside + piece.shown - item.inside
    text = f"@{piece.disk}-{piece.shown}-{piece.size}"
    raise InvalidIdMap(text=text, reason="the container's user namespace has no such ids in one piece")
