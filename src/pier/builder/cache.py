"""The build cache: which steps have been done, by their keys, and what came of them. Kept in the state database.

A record points at layers of the snapshots; while it is there, `kept` names them to whoever sweeps. Records are written
a little after the fact, many at once: one that a kill takes away costs a step, never a wrong answer.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from pier.builder.tree import Tree
from pier.images.collect import Kept
from pier.oci import Digest, encode
from pier.state.store import Delete, Put, Store
from pier.storage import ContentStore, Snapshotter

KIND: Final = "build-cache"
WRITE_AFTER_S: Final = 0.5
KEYS_MAX: Final = 64
"""Of one record: each way in which the step was described; the oldest go."""

REGULAR, LOCAL, GIT, CACHE_MOUNT, FRONTEND, INTERNAL = (
    "regular",
    "source.local",
    "source.git.checkout",
    "exec.cachemount",
    "frontend",
    "internal",
)
"""The Engine API's types of build caches."""


class Record(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One step that was done, or one cache mount."""

    id: str
    keys: list[str] = msgspec.field(default_factory=list)
    results: list[Tree] = msgspec.field(default_factory=list)
    """One for each output."""
    own: list[Digest] = msgspec.field(default_factory=list)
    """Chain ids of the layers that the step made: what it takes on the disk."""
    type: str = REGULAR
    description: str = ""
    parents: list[str] = msgspec.field(default_factory=list)
    """Ids of the records it stands on."""
    created_ns: int
    used_ns: int = 0
    uses: int = 0
    folder: str = ""
    """Of a cache mount, and of a client's files: its directory below the builder's (`builder.folders`)."""
    size_bytes: int = 0
    """Of what has a folder, measured after its last use."""


@dataclass(slots=True)
class Cache:
    """All records, in memory and in the store. Touched on the event loop's thread."""

    store: Store
    snapshots: Snapshotter
    content: ContentStore
    clock_ns: Callable[[], int] = time.time_ns
    records: dict[str, Record] = field(default_factory=dict)
    in_use: dict[str, int] = field(default_factory=dict)
    """Id -> builds that stand on it now."""
    _by_key: dict[str, str] = field(default_factory=dict)
    _dirty: set[str] = field(default_factory=set)
    _gone: set[str] = field(default_factory=set)
    _writer: asyncio.Task[None] | None = None

    async def load(self) -> list[str]:
        """Read what earlier daemons wrote; returns what was forgotten because its layers are gone, in words."""
        found = await self.store.load(KIND)
        records = [msgspec.json.decode(data, type=Record, dec_hook=_digest) for data in found.values()]
        there = await asyncio.to_thread(self.snapshots.layers)
        lost = [record for record in records if not all(set(tree.chain) <= there for tree in record.results)]
        for record in records:
            self._take(record)
        for record in lost:
            self.drop(record.id)
        return [f"build cache record {record.id}: its layers are gone" for record in lost]

    def _take(self, record: Record) -> None:
        self.records[record.id] = record
        for key in record.keys:
            self._by_key[key] = record.id

    # --- steps

    def find(self, key: str) -> Record | None:
        """The record of a step, now used once more."""
        record = self.records.get(self._by_key.get(key, ""))
        if record is not None:
            record.used_ns, record.uses = self.clock_ns(), record.uses + 1
            self._changed(record)
        return record

    def has(self, key: str) -> bool:
        """Whether a step is known by the key; it is not used by that."""
        return key in self._by_key

    def known_as(self, record: Record, *keys: str) -> None:
        """The step can be described this way too."""
        for key in keys:
            previous = self.records.get(self._by_key.get(key, ""))
            if previous is record:
                continue
            if previous is not None:
                previous.keys.remove(key)
                self._changed(previous)
            self._by_key[key] = record.id
            record.keys.append(key)
        while len(record.keys) > KEYS_MAX:
            self._by_key.pop(record.keys.pop(0), None)
        self._changed(record)

    def add(
        self,
        keys: Iterable[str],
        results: Sequence[Tree],
        bases: Iterable[Tree],
        *,
        type: str = REGULAR,
        description: str = "",
        parents: Iterable[str] = (),
    ) -> Record:
        """Remember what came of a step over `bases`. The layers are there already."""
        below = {chain_id for tree in bases for chain_id in tree.chain}
        own = [chain_id for tree in results for chain_id in tree.chain if chain_id not in below]
        now = self.clock_ns()
        record = Record(
            id=new_id(),
            results=list(results),
            own=list(dict.fromkeys(own)),
            type=type,
            description=description[:4096],
            parents=list(dict.fromkeys(parents)),
            created_ns=now,
            used_ns=now,
            uses=1,
        )
        self.records[record.id] = record
        self.known_as(record, *keys)
        return record

    def stands_on(self, record: Record, parents: Iterable[str]) -> None:
        """The step was done over these records."""
        known = [id for id in parents if id != record.id and id not in record.parents]
        if known:
            record.parents += known
            self._changed(record)

    def put(self, record: Record) -> None:
        """Add or change a record of another kind."""
        self._take(record)
        self._changed(record)

    def drop(self, id: str) -> None:
        """Forget a record; its layers go with the next sweep, unless others have them too."""
        record = self.records.pop(id, None)
        if record is None:
            return
        for key in record.keys:
            if self._by_key.get(key) == id:
                del self._by_key[key]
        self._dirty.discard(id)
        self._gone.add(id)
        self._schedule()

    def use(self, id: str) -> Callable[[], None]:
        """A build stands on a record: it is not pruned until the function that is returned is called."""
        self.in_use[id] = self.in_use.get(id, 0) + 1

        def release() -> None:
            self.in_use[id] -= 1
            if not self.in_use[id]:
                del self.in_use[id]

        return release

    def size(self, record: Record) -> int:
        """Bytes that a record's own layers take."""
        if record.folder:
            return record.size_bytes
        return sum(self.snapshots.layer_sizes(chain_id)[1] for chain_id in record.own)

    # --- what is kept

    def kept(self) -> Kept:
        """What must not be swept from the stores (`ImageService.kept`)."""
        return Kept(frozenset(self.kept_blobs()), frozenset(self.kept_layers()))

    def kept_layers(self) -> set[Digest]:
        """Chain ids of every layer that a record needs."""
        return {chain_id for record in self.records.values() for tree in record.results for chain_id in tree.chain}

    def kept_blobs(self) -> set[Digest]:
        """The archives of layers that came with images: of what is built on them they are not made again."""
        return {
            layer.blob.digest
            for record in self.records.values()
            for tree in record.results
            for layer in tree.layers
            if layer.blob is not None
        }

    # --- writing

    def _changed(self, record: Record) -> None:
        self._dirty.add(record.id)
        self._schedule()

    def _schedule(self) -> None:
        if self._writer is None or self._writer.done():
            self._writer = asyncio.get_running_loop().create_task(self._write_soon(), name="build cache")

    async def _write_soon(self) -> None:
        await asyncio.sleep(WRITE_AFTER_S)
        await self.flush()

    async def flush(self) -> None:
        """Write every change that waits."""
        while self._dirty or self._gone:
            dirty, self._dirty = self._dirty, set()
            gone, self._gone = self._gone, set()
            puts = [Put(KIND, id, encode(self.records[id])) for id in sorted(dirty) if id in self.records]
            await self.store.write(*puts, *(Delete(KIND, id) for id in sorted(gone)))

    async def close(self) -> None:
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.gather(self._writer, return_exceptions=True)
        await self.flush()


def new_id() -> str:
    """An id as BuildKit's: 25 characters of base 36's look."""
    return base64.b32encode(secrets.token_bytes(16)).decode().lower().rstrip("=")[:25]


def _digest(_: type, text: str) -> Digest:
    return Digest(text)
