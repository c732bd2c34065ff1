"""Clients' files on this side, kept from build to build so that only what has changed is sent again.

    <folder>/tree     the files
    <folder>/index    what is in there: path -> (file, sha256 of its content), msgpack
    <folder>/key      the key of that, and sha256 of the client's listing where that is one piece

Both are taken away before the tree is touched and written when the tree is whole again, so a tree without an index is
half of something and begun anew. A tree is one build's at a time: a second build with the same files gets a copy of its
own, which goes when it is done. Those that are kept are records of the build cache, shown and pruned with the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec

from pier.builder import folders
from pier.builder.cache import LOCAL, Cache, Record, new_id
from pier.builder.entries import Entry, tree_key
from pier.builder.folders import SYNCED
from pier.storage.durable import write_file

Index = dict[str, tuple[Entry, str]]
"""Path -> (file, sha256 of its content in hexadecimal; empty where it has none)."""
IDLE_MAX: Final = 16
"""Trees that are kept for builds to come; the one that was used longest ago goes first."""

_decoder = msgspec.msgpack.Decoder(Index)


@dataclass(slots=True)
class Context:
    """One client's files, while a build has them."""

    folder: str
    record: Record | None = None
    """None: it goes when the build is done with it."""
    release: Callable[[], None] = lambda: None
    """The record is not this build's any more."""
    _index: Index | None = None
    _key: str = ""

    @property
    def index(self) -> Index:
        """What the tree has. Blocking, the first time."""
        if self._index is None:
            self._index = _read(os.path.join(self.folder, "index")) if os.path.isdir(self.tree) else {}
        return self._index

    @property
    def tree(self) -> str:
        return os.path.join(self.folder, "tree")

    @property
    def key(self) -> str:
        """Of the content. Blocking, the first time."""
        if not self._key:
            self._key, _ = self._noted()
        if not self._key:
            self._key = tree_key((path, entry, content) for path, (entry, content) in self.index.items())
        return self._key

    @property
    def size_bytes(self) -> int | None:
        """Of the files; None: they are those that were here before."""
        return None if self._index is None else sum(entry.size_bytes for entry, _ in self._index.values())

    def open(self) -> None:
        """Blocking."""
        os.makedirs(self.folder, mode=0o700, exist_ok=True)

    def is_listed(self, digest: str) -> bool:
        """Whether the tree is what a listing of that digest says. Blocking."""
        return os.path.isdir(self.tree) and self._noted()[1] == digest

    def _noted(self) -> tuple[str, str]:
        """(key, sha256 of the listing) of a tree that is whole; empty: not known."""
        try:
            with open(os.path.join(self.folder, "key"), encoding="ascii") as file:
                key, _, listing = file.read(1000).partition(" ")
        except (OSError, ValueError):
            return "", ""
        return key, listing

    def begin(self) -> None:
        """The tree will change now. Blocking."""
        _, self._key = self.index, ""
        for name in ("key", "index"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(self.folder, name))
        if not self.index:
            shutil.rmtree(self.tree, ignore_errors=True)
        os.makedirs(self.tree, mode=0o755, exist_ok=True)

    def finish(self, index: Index, listing: str = "") -> None:
        """The tree is what `index` says, and a listing of that digest. Blocking."""
        self._index, self._key = index, ""
        if self.record is not None:
            write_file(os.path.join(self.folder, "index"), msgspec.msgpack.encode(index), durable=False)
            write_file(os.path.join(self.folder, "key"), f"{self.key} {listing}".encode(), durable=False)


class Contexts:
    """All of a daemon. Touched on the event loop's thread.

    Their records have no keys: no step is found by them, and caches that travel leave them out.
    """

    def __init__(self, data_dir: str, cache: Cache) -> None:
        """`data_dir`: the builder's (`Ground.data_dir`)."""
        self._data_dir, self._cache = data_dir, cache

    async def take(self, origin: str, name: str = "context") -> Context:
        """Files for a build whose client calls them `origin` (host, folder and name of its own); `name` is the last
        of these. Raises OSError."""
        record = self._record(origin, name) if origin else None
        place = record.folder if record is not None else f"{SYNCED}/once-{secrets.token_hex(8)}"
        context = Context(os.path.join(self._data_dir, place), record)
        if record is not None:
            context.release = self._cache.use(record.id)
        try:
            await asyncio.to_thread(context.open)
        except BaseException:
            context.release()
            raise
        return context

    def _record(self, origin: str, name: str) -> Record | None:
        """That of the files, which may be new; None: another build has them."""
        prefix = f"{SYNCED}/{hashlib.sha256(origin.encode()).hexdigest()[:32]}-"
        for record in self._cache.records.values():
            if record.folder.startswith(prefix):
                return None if record.id in self._cache.in_use else record
        now = self._cache.clock_ns()
        record = Record(id=new_id(), type=LOCAL, description=f"local source for {name}", created_ns=now, used_ns=now)
        record.folder = f"{prefix}{secrets.token_hex(4)}"  # of its own: a pruned one's may still be on its way out
        self._cache.put(record)
        return record

    async def give_back(self, context: Context) -> None:
        """A build is done with it."""
        record = context.record
        if record is None:
            await asyncio.to_thread(shutil.rmtree, context.folder, ignore_errors=True)
            return
        record.used_ns, record.uses = self._cache.clock_ns(), record.uses + 1
        if (size := context.size_bytes) is not None:
            record.size_bytes = size
        context.release()
        self._cache.put(record)
        await self._sweep()

    async def _sweep(self) -> None:
        """Bring down the number of those that no build has."""
        idle = [
            record
            for record in self._cache.records.values()
            if record.folder.startswith(f"{SYNCED}/") and record.id not in self._cache.in_use
        ]
        idle.sort(key=lambda record: record.used_ns)
        for record in idle[: max(0, len(idle) - IDLE_MAX)]:
            self._cache.drop(record.id)
            await asyncio.to_thread(folders.remove, self._data_dir, record.folder)


def _read(path: str) -> Index:
    try:
        with open(path, "rb") as file:
            return _decoder.decode(file.read())
    except (FileNotFoundError, msgspec.DecodeError):
        return {}
