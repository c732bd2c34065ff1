"""What a service may ask of the state: its records by kind and key, changed in transactions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Put:
    """Make `value` (JSON bytes, opaque here) the record of `kind` under `key`."""

    kind: str
    key: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove the record of `kind` under `key`; one that is not there is no error."""

    kind: str
    key: str


class Store(Protocol):
    """Durable records: `Database` on disk, `MemoryStore` in tests."""

    async def load(self, kind: str) -> dict[str, bytes]:
        """Every record of a kind, by key, in the order of the keys."""
        ...

    async def write(self, *changes: Put | Delete) -> None:
        """Apply the changes in order, all or none; they are durable when this returns."""
        ...
