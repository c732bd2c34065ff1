"""An image as the services see it: configuration, layers, names; read from the content store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pier.errors import NotFound
from pier.oci import (
    Descriptor,
    Digest,
    ImageConfig,
    Index,
    Manifest,
    Reference,
    chain_ids,
    decode_image_config,
    decode_manifest,
    host_platform,
)
from pier.oci.document import MalformedDocument
from pier.oci.image_config import MAX_CONFIG_BYTES
from pier.oci.manifest import MAX_INDEX_DEPTH, MAX_MANIFEST_BYTES, choose
from pier.storage import ContentStore

SHORT_ID: Final = 12


class NoSuchImage(NotFound):
    """No such image: {reference}"""


@dataclass(frozen=True, slots=True)
class Image:
    """One image of one platform."""

    id: Digest
    """Digest of the configuration."""
    config: ImageConfig
    layers: list[Digest]
    """Chain ids, the base first."""
    manifest: Descriptor
    """The manifest that names configuration and layers."""
    content: frozenset[Digest]
    """Every blob that belongs to it: manifests, indexes above them, configuration, compressed layers."""
    roots: frozenset[Digest]
    """Entries of the content store's index that are this image."""
    tags: tuple[str, ...] = ()
    """Full names with a tag, `docker.io/library/busybox:latest`, sorted."""
    digests: tuple[str, ...] = ()
    """Full names with a digest, as it was pulled, sorted."""

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
    def labels(self) -> dict[str, str]:
        return self.config.config.labels


def familiar(name: str) -> str:
    """The short form of a full name: `docker.io/library/busybox:latest` -> `busybox:latest`."""
    return Reference.parse(name, default_tag=None).familiar


def is_digest_name(name: str) -> bool:
    """`…/busybox@sha256:…`: names content, not a tag that moves."""
    return "@" in name


def read_image(store: ContentStore, root: Descriptor) -> Image:
    """The image behind an entry of the store's index: the manifest itself, or the best one of an index for this host.

    Raises ContentNotFound, ContentMismatch, MalformedDocument.
    """
    path = resolve_manifest(store, root)
    descriptor, manifest = path[-1]
    assert isinstance(manifest, Manifest)
    what = f"configuration of {root.digest}"
    raw = store.read(manifest.config.digest, limit_bytes=MAX_CONFIG_BYTES)
    config = decode_image_config(raw, what=what)
    check_layer_count(manifest, config, what)
    blobs = [manifest.config.digest, *(layer.digest for layer in manifest.layers), *(step.digest for step, _ in path)]
    return Image(
        id=Digest(manifest.config.digest),
        config=config,
        layers=chain_ids(config.rootfs.diff_ids),
        manifest=descriptor,
        content=frozenset(blobs),
        roots=frozenset([root.digest]),
    )


def resolve_manifest(store: ContentStore, root: Descriptor) -> list[tuple[Descriptor, Manifest | Index]]:
    """The way from an index entry to the manifest for this host: indexes first, the manifest last."""
    path: list[tuple[Descriptor, Manifest | Index]] = []
    descriptor = root
    while len(path) <= MAX_INDEX_DEPTH:
        raw = store.read(descriptor.digest, limit_bytes=MAX_MANIFEST_BYTES)
        document = decode_manifest(raw, media_type=descriptor.media_type, what=f"manifest {descriptor.digest}")
        path.append((descriptor, document))
        if isinstance(document, Manifest):
            return path
        chosen = _chosen(store, document)
        if chosen is None:
            raise MalformedDocument(what=f"index {descriptor.digest}", reason=f"no image for {host_platform()}")
        descriptor = chosen
    raise MalformedDocument(what=f"index {root.digest}", reason=f"indexes nested more than {MAX_INDEX_DEPTH} deep")


def _chosen(store: ContentStore, index: Index) -> Descriptor | None:
    """The entry for this host, else the only one whose manifest is here: an image pulled for another platform."""
    best = choose(index, host_platform())
    if best is not None and store.has(best.digest):
        return best
    present = [entry for entry in index.manifests if store.has(entry.digest)]
    return present[0] if len(present) == 1 else best


def check_layer_count(manifest: Manifest, config: ImageConfig, what: str) -> None:
    """Raise MalformedDocument unless every layer has its diff_id."""
    layers, diff_ids = len(manifest.layers), len(config.rootfs.diff_ids)
    if layers != diff_ids:
        raise MalformedDocument(what=what, reason=f"{diff_ids} diff_ids for {layers} layers")
