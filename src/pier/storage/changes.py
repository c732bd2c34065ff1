"""What a container changed, as data: one line a path, as `docker diff` shows it."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Kind(enum.IntEnum):
    """The numbers of the Engine API's `GET /containers/{id}/changes`."""

    MODIFIED = 0
    ADDED = 1
    DELETED = 2


@dataclass(frozen=True, slots=True, order=True)
class Change:
    """One path of a container's root that is not as the image has it."""

    path: bytes
    """From the root, with a slash in front."""
    kind: Kind


@dataclass(frozen=True, slots=True)
class Diffed:
    """A layer archive that was written."""

    size_bytes: int
    """File contents and links' targets, as Docker counts a layer's size."""
    entries: int
    skipped: tuple[bytes, ...] = ()
    """Sockets, which no archive can hold; a hundred at most, from the root, without a slash in front."""
    plain: bool = True
    """Whether the tree that was read holds what the archive says and no more, but for mount points."""
