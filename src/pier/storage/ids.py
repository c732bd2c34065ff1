"""The ids of a container's user namespace, as its files on disk have them (user_namespaces(7))."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

OVERFLOW_ID = 65534
"""What the kernel shows of an owner who has no id in a user namespace (user_namespaces(7))."""


class Extent(msgspec.Struct, frozen=True):
    """A part of a map: `size` ids from `inside` on are the host's from `outside` on."""

    inside: int
    outside: int
    size: int


class IdMap(msgspec.Struct, frozen=True):
    """The maps of a user namespace."""

    uids: list[Extent]
    gids: list[Extent]

    @property
    def root(self) -> tuple[int, int]:
        """The host's uid and gid of the container's root."""
        return self.outside(0, 0)

    def outside(self, uid: int, gid: int) -> tuple[int, int]:
        """The host's ids for the container's; those that have none become its root's."""
        return _outside(uid, self.uids), _outside(gid, self.gids)

    def inside(self, uid: int, gid: int) -> tuple[int, int]:
        """The container's ids for the host's; those that it does not have are `nobody`'s."""
        return _inside(uid, self.uids), _inside(gid, self.gids)

    def oci(self) -> dict[str, list[dict[str, int]]]:
        """`linux.uidMappings` and `linux.gidMappings`: also what shows the container's ids on disk as the host's."""
        return {
            key: [{"containerID": item.inside, "hostID": item.outside, "size": item.size} for item in extents]
            for key, extents in (("uidMappings", self.uids), ("gidMappings", self.gids))
        }

    def inverse(self) -> IdMap:
        """What shows the host's ids on disk as the container's: a mount's map, no container's."""
        return IdMap(
            *([Extent(item.outside, item.inside, item.size) for item in part] for part in (self.uids, self.gids))
        )


def _inside(number: int, extents: Iterable[Extent]) -> int:
    for item in extents:
        if item.outside <= number < item.outside + item.size:
            return item.inside + number - item.outside
    return OVERFLOW_ID


def _outside(number: int, extents: Iterable[Extent]) -> int:
    found = list(extents)
    for item in found:
        if item.inside <= number < item.inside + item.size:
            return item.outside + number - item.inside
    return found[0].outside
