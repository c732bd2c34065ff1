"""A cache from elsewhere, as a build uses it: asked for a step by its key, it brings the layers only of what it knows.

What comes in is as trusted as an image: blobs and layers are verified by their digests, and a step is only found by
keys that are digests over all that went into it; whoever uses a cache believes its maker about what steps come to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pier.builder.cache import Cache, Record
from pier.builder.cacheconfig import CacheConfig, NoCache, results
from pier.builder.ground import Ground
from pier.builder.tree import LayerRef, Tree
from pier.errors import PierError, first_of
from pier.model.time import parse_rfc3339
from pier.oci import Descriptor, Digest, chain_ids
from pier.oci.digest import hasher
from pier.oci.manifest import OCI_LAYER
from pier.storage.compression import decompressed
from pier.storage.stream import CHUNK, Reader


class Blobs(Protocol):
    """Where a cache's blobs are."""

    async def fetch(self, blob: Descriptor) -> None:
        """Put a blob into the content store, verified. Raises PierError, OSError."""
        ...


@dataclass(eq=False, slots=True)
class ImportedCache:
    """One cache; used on the event loop's thread, inside `content.keep()`."""

    config: CacheConfig
    """Checked."""
    blobs: Blobs
    ground: Ground
    cache: Cache
    """The builder's own, to which is added what is used."""
    unpacking: asyncio.Lock
    """The builder's: one layer at a time is unpacked of all imported caches."""
    failed: Callable[[str], None]
    """Told why it cannot be used any longer."""
    proven: set[tuple[Digest, Digest]]
    """The builder's: (blob, diff_id) of archives whose content is known to be that."""
    _numbers: dict[str, int] = field(default_factory=dict)
    """Key -> number of the record."""
    _taken: dict[int, str] = field(default_factory=dict)
    """Number of a record -> id of the builder's own that it has become."""
    _taking: asyncio.Lock = field(default_factory=asyncio.Lock)
    _broken: bool = False

    def __post_init__(self) -> None:
        for number, record in enumerate(self.config.records):
            if record.pier is not None and record.pier.mount is None and (record.layers or record.chains):
                for key in record.keys:
                    self._numbers.setdefault(key, number)

    @property
    def steps(self) -> int:
        """How many there are that this builder can find."""
        return len(set(self._numbers.values()))

    async def take(self, key: str) -> Record | None:
        """The record of a step, its layers unpacked here; None: it is not known, or its layers cannot be had."""
        number = self._numbers.get(key)
        if number is None or self._broken:
            return None
        try:
            return await self._record(number)
        except (PierError, OSError) as error:
            if not self._broken:
                self._broken = True
                self.failed(error.message if isinstance(error, PierError) else str(error))
            return None

    async def take_all(self) -> int:
        """Take every record; returns how many are new. Raises PierError, OSError."""
        fresh = [
            number
            for number in sorted(set(self._numbers.values()))
            if not any(self.cache.has(key) for key in self.config.records[number].keys)
        ]
        for number in fresh:
            await self._record(number)
        self._link()
        return len(fresh)

    async def complete(self, wanted: Callable[[Sequence[Digest]], bool]) -> None:
        """Take what the taken records stand on as well, where `wanted` says so of their stacks of layers' chain ids.

        Without it a build that had found its last step would know nothing of the others when it is sent on.
        """
        waiting = list(self._taken)
        while waiting:
            for number in self.config.records[waiting.pop()].below:
                record = self.config.records[number]
                if number in self._taken or record.pier is None or self._numbers.get(record.digest) != number:
                    continue
                stacks = (chain_ids(self._diff_ids(layers)) for layers in results(self.config, record))
                if all(map(wanted, stacks)) and await self.take(record.digest):
                    waiting.append(number)
        self._link()

    def _link(self) -> None:
        """Let the records that were made know what they stand on."""
        for number, id in self._taken.items():
            below = [self._taken[each] for each in self.config.records[number].below if each in self._taken]
            if below and id in self.cache.records:
                self.cache.stands_on(self.cache.records[id], below)

    async def _record(self, number: int) -> Record:
        async with self._taking:
            own = self.cache.records.get(self._taken.get(number, ""))
            if own is None:
                own = await self._made(number)
                self._taken[number] = own.id
        return own

    async def _made(self, number: int) -> Record:
        record = self.config.records[number]
        facts = record.pier
        assert facts is not None
        for key in record.keys:
            if self.cache.has(key) and (known := self.cache.find(key)):
                return known
        stacks = results(self.config, record)
        gaps = [*facts.gaps, *([] for _ in stacks)]
        trees = [Tree(await self._layers(layers), tuple(gaps[at])) for at, layers in enumerate(stacks)]
        return self.cache.add(record.keys, trees, [], type=facts.type, description=facts.description)

    async def _layers(self, numbers: Sequence[int]) -> tuple[LayerRef, ...]:
        """Fetch and unpack a stack of layers."""
        blobs = [self._blob(number) for number in numbers]
        try:
            async with asyncio.TaskGroup() as group:
                for blob in {blob.digest: blob for blob in blobs}.values():
                    if not await self.ground.in_thread(self.ground.content.has, blob.digest):
                        group.create_task(self.blobs.fetch(blob))
        except BaseExceptionGroup as errors:
            raise first_of(errors) from None
        diff_ids = self._diff_ids(numbers)
        async with self.unpacking:
            await self.ground.in_thread(self._unpack, blobs, diff_ids)
        facts = [self.config.layers[number].annotations for number in numbers]
        times = [parse_rfc3339(each.created_at) if each.created_at else 0 for each in facts]
        return tuple(LayerRef(*row) for row in zip(diff_ids, blobs, times, strict=True))

    def _unpack(self, blobs: Sequence[Descriptor], diff_ids: Sequence[Digest]) -> None:
        """Of a layer that is here already, prove that the archive is its own: images will have it."""
        parent: Digest | None = None
        for blob, diff_id, chain_id in zip(blobs, diff_ids, chain_ids(diff_ids), strict=True):
            is_here = self.ground.snapshots.has_layer(chain_id)
            if not is_here or (blob.digest != diff_id and (blob.digest, diff_id) not in self.proven):
                with self.ground.content.open(blob.digest, blob.size) as reader:
                    if is_here:
                        _prove(reader, blob.digest, diff_id)
                    else:
                        self.ground.snapshots.unpack(chain_id, parent, reader)
            self.proven.add((blob.digest, diff_id))
            parent = chain_id

    def _blob(self, number: int) -> Descriptor:
        layer = self.config.layers[number]
        kind = layer.annotations.media_type or OCI_LAYER
        return Descriptor(media_type=kind, digest=layer.blob, size=layer.annotations.size)

    def _diff_ids(self, numbers: Sequence[int]) -> list[Digest]:
        return [Digest(self.config.layers[number].annotations.diff_id) for number in numbers]


def _prove(blob: Reader, digest: Digest, diff_id: Digest) -> None:
    """Raises NoCache for an archive whose content is not what it is said to be, BadArchive."""
    _, plain = decompressed(blob)
    state = hasher(diff_id.algorithm)
    while data := plain.read(CHUNK):
        state.update(data)
    if (found := Digest.finish(state)) != diff_id:
        raise NoCache(reason=f"layer {digest} is said to be {diff_id}, and is {found}")


class Here:
    """Blobs that are in the content store already, or nowhere."""

    async def fetch(self, blob: Descriptor) -> None:
        raise NoCache(reason=f"layer {blob.digest} is missing")
