"""A store without a disk, for tests."""

from __future__ import annotations

from pier.state.store import Delete, Put


class MemoryStore:
    """The `Store` protocol over a dict of (kind, key)."""

    def __init__(self, *records: Put) -> None:
        self.records = {(put.kind, put.key): put.value for put in records}

    async def load(self, kind: str) -> dict[str, bytes]:
        return {key: value for (of, key), value in sorted(self.records.items()) if of == kind}

    async def write(self, *changes: Put | Delete) -> None:
        for change in changes:
            match change:
                case Put(kind, key, value):
                    self.records[kind, key] = value
                case Delete(kind, key):
                    self.records.pop((kind, key), None)
