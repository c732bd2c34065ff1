"""Caches elsewhere: at registries, in images, in archives, in clients' folders; offered to builds, and made of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from pier.builder import cacheconfig, transfer
from pier.builder.cache import Cache, Record
from pier.builder.cache_form import Form
from pier.builder.cacheconfig import CONFIG, MAX_DOCUMENT_BYTES, CacheConfig, CacheLayer, LayerFacts, NoCache
from pier.builder.ground import Ground
from pier.builder.imported import Blobs, Here, ImportedCache
from pier.builder.progress import Warned
from pier.builder.solver import Build
from pier.builder.tree import Tree
from pier.distribution import Credentials, Repository
from pier.images.image import Image
from pier.oci import Descriptor, Digest, Manifest, Reference, decode_manifest
from pier.oci.image_config import MAX_CONFIG_BYTES
from pier.oci.manifest import CONFIG_TYPES, MANIFEST_TYPES, MAX_MANIFEST_BYTES, Index
from pier.storage.outflow import outflow
from pier.storage.threads import fed

IMAGES_MAX: Final = 16
"""Of one name: platforms whose images are asked for a cache."""
FOREIGN: Final = "it was made by another builder, whose keys of steps are others"


class Origin(Blobs, Protocol):
    """Where a cache is: its documents, and its layers."""

    async def manifest(self, descriptor: Descriptor) -> bytes: ...
    async def document(self, descriptor: Descriptor, limit_bytes: int) -> bytes:
        """A blob into memory, verified. Raises PierError."""
        ...


class _Unwatched:
    """A download that nobody is told about."""

    def received(self, offset: int) -> None: ...
    def retrying(self, delay_s: float) -> None: ...
    def verifying(self) -> None: ...


@dataclass(frozen=True, slots=True)
class AtRegistry:
    """One name at a registry."""

    repository: Repository
    ground: Ground

    async def manifest(self, descriptor: Descriptor) -> bytes:
        return await self.repository.manifest(descriptor)

    async def document(self, descriptor: Descriptor, limit_bytes: int) -> bytes:
        return await self.repository.small_blob(descriptor, limit_bytes=limit_bytes)

    async def fetch(self, blob: Descriptor) -> None:
        await self.repository.download(blob, self.ground.content, _Unwatched())


class InStore(Here):
    """What the content store has."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground

    async def manifest(self, descriptor: Descriptor) -> bytes:
        return await self.document(descriptor, MAX_MANIFEST_BYTES)

    async def document(self, descriptor: Descriptor, limit_bytes: int) -> bytes:
        content = self._ground.content
        return await self._ground.in_thread(lambda: content.read(descriptor.digest, limit_bytes=limit_bytes))


@dataclass(eq=False, slots=True)
class Caches:
    """One per daemon."""

    ground: Ground
    cache: Cache
    _unpacking: asyncio.Lock = field(default_factory=asyncio.Lock)
    _proven: set[tuple[Digest, Digest]] = field(default_factory=set)

    # --- coming in

    async def offer(self, build: Build, name: str, origin: Origin, top: Descriptor) -> int:
        """Let a build use what is at `top`; returns how many steps it has, whoever's. Raises NoCache, PierError.

        The layers come over when a step is found, and as far as they are not here.
        """
        configs = await read_at(origin, top)
        found = [self._imported(build, name, config, origin) for config in configs]
        records = sum(len(config.records) for config in configs)
        if records and not any(each.steps for each in found):
            build.say(Warned(None, f"the cache of {name} is of no use here: {FOREIGN}"))
        build.offers += found
        return records

    def _imported(self, build: Build, name: str, config: CacheConfig, blobs: Blobs) -> ImportedCache:
        def failed(reason: str) -> None:
            build.say(Warned(None, f"the cache of {name} is not used any further: {reason}"))

        return ImportedCache(config, blobs, self.ground, self.cache, self._unpacking, failed, self._proven)

    async def offer_registry(self, build: Build, name: Reference) -> int:
        """Raises as `offer`."""
        auth = await build.session.auth(name.domain)
        credentials = Credentials.from_auth_config(dict(auth) if auth else None)
        repository = self.ground.registries.repository(name, credentials)
        return await self.offer(build, name.familiar, AtRegistry(repository, self.ground), await repository.resolve())

    async def offer_image(self, build: Build, name: Reference) -> int:
        """The cache that an image here carries. Raises NoSuchImage, and as `offer`."""
        image: Image = await self.ground.images.get(str(name))
        return await self.offer(build, name.familiar, InStore(self.ground), image.manifest)

    async def import_archive(self, source: AsyncIterator[bytes]) -> tuple[int, int]:
        """Take in what `export_archive`, or a cache of the type `local`, has: (records that are new, all in it).

        Raises NoCache, BadArchive, ContentMismatch, MalformedDocument.
        """
        ground = self.ground
        async with ground.images.transfer(sweep=True):
            async with fed(source, name="build cache archive") as feed:
                top = await ground.in_thread(transfer.receive, ground, feed)
            added = records = 0
            for config in await read_at(InStore(ground), top):
                imported = ImportedCache(
                    config, Here(), ground, self.cache, self._unpacking, lambda _: None, self._proven
                )
                await ground.in_thread(transfer.fill_mounts, ground, transfer.mounts_of(config))
                added += await imported.take_all() + transfer.remember_mounts(ground, self.cache, config)
                records += len(config.records)
            await self.cache.flush()
        return added, records

    # --- going out

    async def records_of(self, build: Build, trees: Sequence[Tree], *, everything: bool) -> list[Record]:
        """The records that a build stands on, the oldest first: all, or those whose layers its results have."""
        theirs = {chain_id for tree in trees for chain_id in tree.chain}

        def wanted(chain: Sequence[Digest]) -> bool:
            return everything or theirs.issuperset(chain)

        for offer in build.offers:
            if isinstance(offer, ImportedCache):
                await offer.complete(wanted)
        found: dict[str, Record] = {}
        waiting = list(build.records.values())
        while waiting:
            record = waiting.pop()
            if record.id not in found:
                found[record.id] = record
                waiting += [self.cache.records[id] for id in record.parents if id in self.cache.records]
        chosen = [each for each in found.values() if all(wanted(tree.chain) for tree in each.results)]
        return sorted(chosen, key=lambda record: (record.created_ns, record.id))

    async def pack(
        self, build: Build, trees: Sequence[Tree], form: Form, *, everything: bool
    ) -> tuple[Descriptor, list[Descriptor]]:
        """The cache of a build in the content store: (manifest or index, what it names). Raises PierError, OSError."""
        records = await self.records_of(build, trees, everything=everything)
        return await self.ground.in_thread(transfer.pack, self.ground, records, form)

    async def push(
        self, build: Build, name: Reference, trees: Sequence[Tree], form: Form, *, everything: bool
    ) -> Descriptor:
        """Send a build's cache to a registry; what stands there then. Raises PierError."""
        async with self.ground.images.transfer(sweep=True):
            root, _ = await self.pack(build, trees, form, everything=everything)
            auth = await build.session.auth(name.domain)
            await self.ground.images.pusher.push_artifact(name, root, auth=dict(auth) if auth else None)
        return root

    def export_archive(
        self, records: Sequence[Record] | None = None, form: Form = transfer.PLAIN
    ) -> AsyncIterator[bytes]:
        """Records, or the whole cache with its mounts, as an archive that `import_archive` takes on another machine."""
        ground = self.ground
        chosen = sorted(self.cache.records.values() if records is None else records, key=lambda one: one.created_ns)

        async def chunks() -> AsyncIterator[bytes]:
            async with ground.images.transfer(sweep=True):
                async for chunk in outflow(lambda out: transfer.export(ground, chosen, out, form), name="build-cache"):
                    yield chunk

        return chunks()


async def read_at(origin: Origin, top: Descriptor) -> list[CacheConfig]:
    """The documents of a cache, or those that the images of a name carry. Raises NoCache, PierError."""
    what = f"cache manifest {top.digest}"
    document = decode_manifest(await origin.manifest(top), media_type=top.media_type, what=what)
    if isinstance(document, Manifest):
        return await _read_manifest(origin, document)
    config = next((each for each in document.manifests if each.media_type == CONFIG), None)
    if config is not None:
        return [_with_sizes(cacheconfig.read(await origin.document(config, MAX_DOCUMENT_BYTES)), document)]
    found = []
    for each in [each for each in document.manifests if each.media_type in MANIFEST_TYPES][:IMAGES_MAX]:
        child = decode_manifest(await origin.manifest(each), media_type=each.media_type, what=what)
        assert isinstance(child, Manifest)
        found += await _read_manifest(origin, child)
    return found


async def _read_manifest(origin: Origin, manifest: Manifest) -> list[CacheConfig]:
    if manifest.config.media_type == CONFIG:
        return [_with_sizes(cacheconfig.read(await origin.document(manifest.config, MAX_DOCUMENT_BYTES)), manifest)]
    if manifest.config.media_type not in CONFIG_TYPES:
        raise NoCache(reason=f"it is {manifest.config.media_type}")
    raw = await origin.document(manifest.config, MAX_CONFIG_BYTES)
    found = cacheconfig.read_inline(raw, manifest.layers)
    return [found] if found is not None else []


def _with_sizes(config: CacheConfig, document: Manifest | Index) -> CacheConfig:
    """The manifest is the authority on what its blobs are; a layer that it does not name is refused. Raises NoCache."""
    listed = document.layers if isinstance(document, Manifest) else document.manifests
    blobs = {blob.digest: blob for blob in listed}
    layers = []
    for layer in config.layers:
        blob = blobs.get(layer.blob)
        if blob is None:
            raise NoCache(reason=f"its manifest does not name layer {layer.blob}")
        said = layer.annotations
        facts = LayerFacts(blob.media_type, said.diff_id, blob.size, said.created_at)
        layers.append(CacheLayer(layer.blob, layer.parent, facts))
    return CacheConfig(layers, config.records)
