"""What a name in a registry means here: through indexes to one manifest, its configuration, and the layers to fetch.

The documents go through the content store, verified; nothing points at them yet.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

import msgspec

from pier.distribution import Repository
from pier.distribution.blocking import in_thread
from pier.errors import InvalidParameter, NotFound
from pier.images.attestations import attestations_of
from pier.images.image import check_layer_count
from pier.oci import (
    Descriptor,
    Digest,
    ImageConfig,
    Index,
    MalformedDocument,
    Manifest,
    Platform,
    chain_ids,
    decode_image_config,
    decode_manifest,
)
from pier.oci.image_config import MAX_CONFIG_BYTES
from pier.oci.manifest import (
    CONFIG_TYPES,
    MAX_INDEX_DEPTH,
    MAX_MANIFEST_BYTES,
    SCHEMA1_TYPES,
    SchemaOneManifest,
    choose,
    media_type_of,
)
from pier.storage.content import ContentStore
from pier.storage.errors import ContentMismatch
from pier.storage.snapshots import Snapshotter

# Some registries of old stored configurations without a type of their own.
_CONFIG_TYPES: Final = CONFIG_TYPES | {"application/octet-stream"}


class NoMatchingManifest(NotFound):
    """no matching manifest for {platform} in the manifest list entries"""

    remedy = "{name} is there for {available}; choose one with --platform"


class UnsupportedArtifact(InvalidParameter):
    """{name}: unsupported media type {media_type}"""

    remedy = "it is not a container image"


class UnsupportedOS(InvalidParameter):
    """image operating system "{os}" cannot be used on this platform: operating system is not supported"""


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of the image that is pulled."""

    descriptor: Descriptor
    diff_id: Digest
    chain_id: Digest
    parent: Digest | None
    stored: bool
    """Is its blob in the content store?"""
    unpacked: bool
    """Is it among the snapshots?"""

    @property
    def id(self) -> str:
        return self.descriptor.digest.short


@dataclass(frozen=True, slots=True)
class Found:
    """The image that a name turned out to mean on the wanted platform."""

    descriptor: Descriptor
    """Of the manifest, with the platform that its configuration says."""
    manifest: Manifest
    manifest_bytes: bytes
    config: ImageConfig
    top: Descriptor
    """What the name points at, the manifest or an index, with the platform of this image."""
    indexes: list[tuple[Descriptor, bytes]]
    """The indexes on the way to it, the outermost first."""
    attestations: list[Descriptor] = field(default_factory=list)
    """What its index has of attestations for it."""


class _Unwatched:
    """A download that nobody is told about."""

    def received(self, offset: int) -> None: ...
    def retrying(self, delay_s: float) -> None: ...
    def verifying(self) -> None: ...


async def find(repository: Repository, content: ContentStore, top: Descriptor, wanted: Platform) -> Found:
    """From what the registry answered for the name (`top`) to one image for `wanted`.

    What is in the store already is not fetched.

    Raises SchemaOneManifest, NoMatchingManifest, UnsupportedArtifact, UnsupportedOS, MalformedDocument, RegistryError,
    ContentMismatch.
    """
    if top.media_type in SCHEMA1_TYPES:  # its digest is that of a part of it: there is nothing to verify it by
        raise SchemaOneManifest(what=repository.reference.familiar)
    descriptor, indexes = top, list[tuple[Descriptor, bytes]]()
    attestations: list[Descriptor] = []
    name = repository.reference.familiar_name
    for _ in range(MAX_INDEX_DEPTH + 1):
        data = await _manifest_bytes(repository, content, descriptor)
        what = f"manifest {descriptor.digest} of {name}"
        document = decode_manifest(data, media_type=descriptor.media_type, what=what)
        if isinstance(document, Manifest):
            found = await _found(repository, content, descriptor, document, data)
            if not indexes:
                return found
            outermost = msgspec.structs.replace(indexes[0][0], platform=found.descriptor.platform)
            return replace(found, top=outermost, indexes=indexes, attestations=attestations)
        kind = media_type_of(document, descriptor.media_type)
        indexes.append((Descriptor(kind, descriptor.digest, len(data)), data))
        chosen = choose(document, wanted)
        if chosen is None:
            raise NoMatchingManifest(platform=wanted, name=name, available=_platforms(document))
        descriptor, attestations = chosen, attestations_of(document, chosen.digest)
    raise MalformedDocument(what=name, reason=f"more than {MAX_INDEX_DEPTH} indexes in a row")


async def _found(
    repository: Repository, content: ContentStore, descriptor: Descriptor, manifest: Manifest, data: bytes
) -> Found:
    if manifest.config.media_type not in _CONFIG_TYPES:
        raise UnsupportedArtifact(name=repository.reference.familiar, media_type=manifest.config.media_type)
    config = await _config(repository, content, manifest)
    media_type = media_type_of(manifest, descriptor.media_type)
    described = Descriptor(media_type, descriptor.digest, len(data), platform=config.platform.normalised())
    return Found(described, manifest, data, config, described, [])


async def _manifest_bytes(repository: Repository, content: ContentStore, descriptor: Descriptor) -> bytes:
    """From the store where it is there: an image that is up to date costs one request."""
    if await has_blob(content, descriptor):
        return await in_thread(content.read, descriptor.digest, limit_bytes=MAX_MANIFEST_BYTES)
    return await repository.manifest(descriptor)


async def _config(repository: Repository, content: ContentStore, manifest: Manifest) -> ImageConfig:
    """The image's configuration, fetched into the store."""
    descriptor = manifest.config
    what = f"configuration {descriptor.digest} of {repository.reference.familiar_name}"
    if descriptor.size > MAX_CONFIG_BYTES:
        raise MalformedDocument(what=what, reason=f"{descriptor.size} bytes, more than the {MAX_CONFIG_BYTES} allowed")
    if not await has_blob(content, descriptor):
        await repository.download(descriptor, content, _Unwatched())
    data = await in_thread(content.read, descriptor.digest, limit_bytes=MAX_CONFIG_BYTES)
    config = decode_image_config(data, what=what)
    if config.os not in ("linux", ""):
        raise UnsupportedOS(os=config.os)
    check_layer_count(manifest, config, what)
    return config


async def plan_layers(content: ContentStore, snapshots: Snapshotter, found: Found) -> list[Layer]:
    """The image's layers, the base first, with what is here of each. Raises ContentMismatch."""
    layers: list[Layer] = []
    parent: Digest | None = None
    diff_ids = found.config.rootfs.diff_ids
    for descriptor, diff_id, chain_id in zip(found.manifest.layers, diff_ids, chain_ids(diff_ids), strict=True):
        stored = await has_blob(content, descriptor)
        unpacked = await in_thread(snapshots.has_layer, chain_id)
        layers.append(Layer(descriptor, diff_id, chain_id, parent, stored, unpacked))
        parent = chain_id
    return layers


async def has_blob(content: ContentStore, descriptor: Descriptor) -> bool:
    """Is the blob in the store? Raises ContentMismatch where its size is not the one that the descriptor says."""
    if not await in_thread(content.has, descriptor.digest):
        return False
    size = await in_thread(content.size, descriptor.digest)
    if size != descriptor.size:
        raise ContentMismatch(digest=descriptor.digest, reason=f"{size} bytes, not {descriptor.size}")
    return True


def _platforms(index: Index) -> str:
    names = sorted({str(entry.platform) for entry in index.manifests if entry.platform and entry.platform.os})
    return ", ".join(name for name in names if name != "unknown/unknown")[:500] or "no platform"
