"""An image as the services see it: configuration, layers, names; read from the content store."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from pier.errors import NotFound, PierError
from pier.oci import (
    Descriptor,
    Digest,
    ImageConfig,
    Manifest,
    Platform,
    Reference,
    chain_ids,
    decode_image_config,
    decode_manifest,
    host_platform,
)
from pier.oci.document import MalformedDocument
from pier.oci.image_config import MAX_CONFIG_BYTES
from pier.oci.manifest import MAX_INDEX_DEPTH, MAX_MANIFEST_BYTES
from pier.oci.platform import rank
from pier.storage import ContentStore

SHORT_ID: Final = 12


class NoSuchImage(NotFound):
    """No such image: {reference}"""


@dataclass(frozen=True, slots=True)
class Image:
    """One image of one platform, and what else its name stands for."""

    id: Digest
    """Digest of the configuration."""
    config: ImageConfig
    layers: list[Digest]
    """Chain ids, the base first."""
    manifest: Descriptor
    """The manifest that names configuration and layers."""
    root: Descriptor
    """What a further name of it points at: the manifest, or the index it came with."""
    content: frozenset[Digest]
    """Every blob that belongs to it: manifests, indexes above them, configurations, compressed layers."""
    roots: frozenset[Digest]
    """Entries of the content store's index that are this image."""
    tags: tuple[str, ...] = ()
    """Full names with a tag, `docker.io/library/busybox:latest`, sorted."""
    digests: tuple[str, ...] = ()
    """Full names with a digest, as it was pulled, sorted."""
    others: tuple[Image, ...] = ()
    """The same image for other platforms, as far as they are here."""

    @property
    def names(self) -> tuple[str, ...]:
        """All names that refer to it."""
        return self.tags + self.digests

    @property
    def repo_tags(self) -> list[str]:
        """Docker's short form: `busybox:latest`."""
        return [familiar(name) for name in self.tags]

    @property
    def repo_digests(self) -> list[str]:
        """Docker's short form: `busybox@sha256:…`."""
        return [familiar(name) for name in self.digests]

    @property
    def platforms(self) -> tuple[Image, ...]:
        """It and the others."""
        return (self, *self.others)

    @property
    def all_layers(self) -> list[Digest]:
        """Chain ids of it and of the others."""
        return [chain_id for image in self.platforms for chain_id in image.layers]

    def for_platform(self, wanted: Platform) -> Image | None:
        """Of it and the others the one that serves `wanted` best; None where none does."""
        ranks = [(rank(one.config.platform.normalised(), wanted), one) for one in self.platforms]
        return min(((how, one) for how, one in ranks if how is not None), key=lambda pair: pair[0], default=(0, None))[
            1
        ]

    @property
    def labels(self) -> dict[str, str]:
        return self.config.config.labels


@lru_cache(maxsize=4096)
def familiar(name: str) -> str:
    """The short form of a full name: `docker.io/library/busybox:latest` -> `busybox:latest`."""
    return Reference.parse(name, default_tag=None).familiar


def is_digest_name(name: str) -> bool:
    """`…/busybox@sha256:…`: names content, not a tag that moves."""
    return "@" in name


@dataclass(frozen=True, slots=True)
class Entry:
    """What an entry of the store's index turned out to be."""

    image: Image
    absent: frozenset[Digest] = frozenset()
    """Manifests of an index that are not here: with one of them the entry is another."""

    def holds(self, store: ContentStore) -> bool:
        """Is it still so? One platform more or less makes it another."""
        here = (one.manifest.digest for one in self.image.platforms)
        return all(map(store.has, here)) and not any(map(store.has, self.absent))


def read_entry(store: ContentStore, root: Descriptor) -> Entry:
    """The image behind an entry of the store's index: a manifest, or those of an index that are here.

    Of an index the image for this host stands for all; without one that which was pulled last (the entry's platform),
    else the first. Raises ContentNotFound, ContentMismatch, MalformedDocument.
    """
    walk = _Walk(store)
    walk.take(root)
    if not walk.images:
        raise walk.failure or MalformedDocument(what=f"index {root.digest}", reason=f"no image for {host_platform()}")
    best = min(walk.images, key=lambda image: _preference(image, root.platform))
    content = frozenset(walk.content)
    whole = [replace(image, content=content, root=root, roots=frozenset([root.digest])) for image in walk.images]
    image = whole[walk.images.index(best)]
    others = tuple(other for other in whole if other.id != image.id)
    return Entry(replace(image, others=others), frozenset(walk.absent))


def _preference(image: Image, pulled: Platform | None) -> tuple[int, bool]:
    how = rank(image.config.platform.normalised(), host_platform())
    return (how if how is not None else 1000, image.config.platform.normalised() != pulled)


class _Walk:
    """Everything below one entry that is here."""

    def __init__(self, store: ContentStore) -> None:
        self._store = store
        self.images: list[Image] = []
        self.content: set[Digest] = set()
        self.absent: set[Digest] = set()
        self.failure: PierError | None = None

    def take(self, descriptor: Descriptor, depth: int = 0) -> None:
        raw = self._store.read(descriptor.digest, limit_bytes=MAX_MANIFEST_BYTES)
        document = decode_manifest(raw, media_type=descriptor.media_type, what=f"manifest {descriptor.digest}")
        self.content.add(descriptor.digest)
        if isinstance(document, Manifest):
            self.content |= {document.config.digest, *(layer.digest for layer in document.layers)}
            if is_image(descriptor):
                self.images.append(_image(self._store, descriptor, document))
        elif depth == MAX_INDEX_DEPTH:
            what = f"index {descriptor.digest}"
            raise MalformedDocument(what=what, reason=f"indexes nested more than {MAX_INDEX_DEPTH} deep")
        else:
            for child in document.manifests:
                self._take_child(child, depth + 1)

    def _take_child(self, child: Descriptor, depth: int) -> None:
        """One platform that is damaged or missing does not spoil the others."""
        if not self._store.has(child.digest):
            self.absent.add(child.digest)
            return
        try:
            self.take(child, depth)
        except PierError as error:
            self.failure = self.failure or error


def is_image(descriptor: Descriptor) -> bool:
    """Builders put attestations into an index as manifests for the platform `unknown/unknown`."""
    return descriptor.platform is None or descriptor.platform.os != "unknown"


def _image(store: ContentStore, descriptor: Descriptor, manifest: Manifest) -> Image:
    what = f"configuration of {descriptor.digest}"
    raw = store.read(manifest.config.digest, limit_bytes=MAX_CONFIG_BYTES)
    config = decode_image_config(raw, what=what)
    check_layer_count(manifest, config, what)
    return Image(
        id=Digest(manifest.config.digest),
        config=config,
        layers=chain_ids(config.rootfs.diff_ids),
        manifest=descriptor,
        root=descriptor,
        content=frozenset(),
        roots=frozenset(),
    )


def check_layer_count(manifest: Manifest, config: ImageConfig, what: str) -> None:
    """Raise MalformedDocument unless every layer has its diff_id."""
    layers, diff_ids = len(manifest.layers), len(config.rootfs.diff_ids)
    if layers != diff_ids:
        raise MalformedDocument(what=what, reason=f"{diff_ids} diff_ids for {layers} layers")
