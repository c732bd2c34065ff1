"""Load: images from an archive, in the form of `docker save` (manifest.json) or an OCI image layout (index.json).

Read once, front to back, in bounded memory, compressed or not; every blob's digest and size is verified. Blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec

from pier.images import progress
from pier.images.admit import admit
from pier.images.archive import Blob, Contents, NotAnImageArchive, descriptor, take_in
from pier.images.image import check_layer_count
from pier.images.threads import Report
from pier.oci import (
    Descriptor,
    Digest,
    ImageConfig,
    Index,
    InvalidReference,
    Manifest,
    Reference,
    decode_image_config,
    decode_manifest,
    encode,
    host_platform,
)
from pier.oci.document import decode
from pier.oci.image_config import MAX_CONFIG_BYTES
from pier.oci.manifest import (
    MAX_INDEX_DEPTH,
    MAX_LAYERS,
    MAX_MANIFEST_BYTES,
    OCI_CONFIG,
    OCI_LAYER,
    OCI_MANIFEST,
    choose,
)
from pier.storage import ContentStore, Snapshotter
from pier.storage.compression import decompressed, kind_of
from pier.storage.content import FULL_NAME, REF_NAME
from pier.storage.stream import ReadAhead, Reader

MAX_IMAGES: Final = 10_000
_LAYER_SUFFIX: Final = {"": "", "gzip": "+gzip", "zstd": "+zstd"}


class SavedImage(msgspec.Struct, rename="pascal"):
    """One element of manifest.json; paths are names in the archive."""

    config: str
    layers: Annotated[list[str], msgspec.Meta(max_length=MAX_LAYERS)] = msgspec.field(default_factory=list)
    repo_tags: list[str] = msgspec.field(default_factory=list)


class _Saved(msgspec.Struct):
    images: Annotated[list[SavedImage], msgspec.Meta(max_length=MAX_IMAGES)]


@dataclass(frozen=True, slots=True)
class Loaded:
    """An image that is now complete in the store, though no name points at it yet."""

    id: Digest
    manifest: Descriptor
    names: tuple[str, ...]
    """Full names that the archive gives it."""


def load(stream: Reader, store: ContentStore, snapshots: Snapshotter, report: Report, *, quiet: bool) -> list[Loaded]:
    """Take all images of an archive in; call it inside `store.keep()`.

    Raises BadArchive and its kinds, MalformedDocument, ContentMismatch, InvalidReference, RootFilesystemArchive.
    """
    _, plain = decompressed(stream)
    with ReadAhead(plain) as ahead:
        contents = take_in(ahead, store)
        ahead.finish()
    found = list(_images(contents, store))
    if not found:
        raise NotAnImageArchive(reason="it lists no image")

    def tell(diff_id: Digest, current: int, total: int) -> None:
        if not quiet:
            report(progress.advance("Loading layer", diff_id.short, current, total))

    for image in found:
        manifest = _stored_manifest(store, image.manifest)
        admit(store, snapshots, manifest, what=f"image {image.id}", progress=tell)
    return found


def _images(contents: Contents, store: ContentStore) -> Iterator[Loaded]:
    """What the archive's own table of contents says; `docker save` of version 25 and later writes both tables."""
    if "manifest.json" in contents.documents:
        yield from _saved_images(contents, store)
    elif "index.json" in contents.documents:
        yield from _layout_images(contents, store)
    elif "repositories" in contents.documents:
        raise NotAnImageArchive(reason="it was written by a Docker older than 1.10; load and save it with a newer one")
    else:
        raise NotAnImageArchive(reason="neither manifest.json nor index.json is in it")


# --- docker save


def _saved_images(contents: Contents, store: ContentStore) -> Iterator[Loaded]:
    wrapped = b'{"images":' + contents.documents["manifest.json"] + b"}"
    saved = decode(wrapped, _Saved, what="manifest.json", limit_bytes=MAX_MANIFEST_BYTES * 2).images
    ready_made = _manifests_by_config(contents, store)
    for item in saved:
        config_blob = contents.find(item.config)
        manifest = ready_made.get(config_blob.digest) or _put_manifest(contents, store, item, config_blob)
        names = tuple(dict.fromkeys(str(Reference.parse(tag)) for tag in item.repo_tags))
        yield Loaded(config_blob.digest, manifest, names)


def _put_manifest(contents: Contents, store: ContentStore, item: SavedImage, config_blob: Blob) -> Descriptor:
    """Write the manifest that such an archive lacks."""
    layers = [_layer_descriptor(contents.find(name), name) for name in item.layers]
    manifest = Manifest(
        schema_version=2, media_type=OCI_MANIFEST, config=descriptor(config_blob, OCI_CONFIG), layers=layers
    )
    check_layer_count(manifest, _config(store, config_blob.digest), item.config[:200])
    return store.put(encode(manifest), OCI_MANIFEST)


def _layer_descriptor(blob: Blob, name: str) -> Descriptor:
    suffix = _LAYER_SUFFIX.get(kind_of(blob.head))
    if suffix is None:
        raise NotAnImageArchive(reason=f"layer {name[:200]!r} is neither a plain, a gzip nor a zstd archive")
    return descriptor(blob, OCI_LAYER + suffix)


def _manifests_by_config(contents: Contents, store: ContentStore) -> dict[Digest, Descriptor]:
    """The manifests of the archive's index, if it has one: keeping them keeps the image's digest."""
    if "index.json" not in contents.documents:
        return {}
    found: dict[Digest, Descriptor] = {}
    for entry in _index(contents).manifests:
        if store.has(entry.digest) and entry.media_type not in ("", None):
            document = _document(store, entry)
            if isinstance(document, Manifest) and all(store.has(layer.digest) for layer in document.layers):
                found[document.config.digest] = _bare(entry)
    return found


# --- OCI image layout


def _layout_images(contents: Contents, store: ContentStore) -> Iterator[Loaded]:
    for entry in _index(contents).manifests:
        manifest_descriptor, manifest = _for_this_host(store, entry)
        name = layout_name(entry.annotations)
        yield Loaded(manifest.config.digest, manifest_descriptor, (name,) if name else ())


def layout_name(annotations: dict[str, str]) -> str:
    """The full name that an index entry's annotations give; empty where they give a bare tag or nothing usable."""
    for key in (FULL_NAME, REF_NAME):
        text = annotations.get(key, "")
        if key == REF_NAME and not any(mark in text for mark in "/:@"):
            continue
        try:
            return str(Reference.parse(text))
        except InvalidReference:
            continue
    return ""


def _for_this_host(store: ContentStore, entry: Descriptor) -> tuple[Descriptor, Manifest]:
    current = entry
    for _ in range(MAX_INDEX_DEPTH):
        document = _document(store, current)
        if isinstance(document, Manifest):
            return _bare(current), document
        chosen = choose(document, host_platform())
        if chosen is None:
            raise NotAnImageArchive(reason=f"{entry.digest} has no image for {host_platform()}")
        current = chosen
    raise NotAnImageArchive(reason=f"its indexes are nested more than {MAX_INDEX_DEPTH} deep")


def _index(contents: Contents) -> Index:
    index = decode_manifest(contents.documents["index.json"], media_type="", what="index.json")
    if not isinstance(index, Index):
        raise NotAnImageArchive(reason="index.json is no index")
    return index


def _document(store: ContentStore, entry: Descriptor) -> Manifest | Index:
    raw = store.read(entry.digest, limit_bytes=MAX_MANIFEST_BYTES)
    if len(raw) != entry.size:
        raise NotAnImageArchive(reason=f"{entry.digest} has {len(raw)} bytes, not {entry.size}")
    return decode_manifest(raw, media_type=entry.media_type, what=f"manifest {entry.digest}")


def _stored_manifest(store: ContentStore, entry: Descriptor) -> Manifest:
    document = _document(store, entry)
    assert isinstance(document, Manifest)
    return document


def _config(store: ContentStore, digest: Digest) -> ImageConfig:
    raw = store.read(digest, limit_bytes=MAX_CONFIG_BYTES)
    return decode_image_config(raw, what=f"configuration {digest}")


def _bare(entry: Descriptor) -> Descriptor:
    """Type, digest and size alone: an archive's annotations are not ours."""
    return Descriptor(media_type=entry.media_type or OCI_MANIFEST, digest=entry.digest, size=entry.size)
