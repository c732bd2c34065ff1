"""Load: images from an archive, in the form of `docker save` (manifest.json) or an OCI image layout (index.json).

Read once, front to back, in bounded memory, compressed or not; every blob's digest and size is verified. Blocks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Annotated, Final

import msgspec

from pier.errors import NotFound
from pier.images import progress
from pier.images.admit import admit
from pier.images.archive import Blob, Contents, NotAnImageArchive, SavedImage, descriptor, take_in
from pier.images.image import Image, check_layer_count, familiar, is_image, read_entry
from pier.images.load_v1 import convert
from pier.oci import (
    Descriptor,
    Digest,
    ImageConfig,
    Index,
    InvalidReference,
    Manifest,
    Platform,
    Reference,
    decode_image_config,
    decode_manifest,
    encode,
)
from pier.oci.document import decode
from pier.oci.image_config import MAX_CONFIG_BYTES
from pier.oci.manifest import MAX_MANIFEST_BYTES, OCI_CONFIG, OCI_LAYER, OCI_MANIFEST
from pier.storage import ContentStore, Snapshotter
from pier.storage.compression import decompressed, kind_of
from pier.storage.content import FULL_NAME, REF_NAME
from pier.storage.errors import ContentNotFound
from pier.storage.stream import ReadAhead, Reader
from pier.storage.threads import Report

MAX_IMAGES: Final = 10_000
_LAYER_SUFFIX: Final = {"": "", "gzip": "+gzip", "zstd": "+zstd"}


class PlatformNotLoaded(NotFound):
    """requested platform ({wanted}) not found in the archive"""

    remedy = "it holds {available}"


class _Saved(msgspec.Struct):
    images: Annotated[list[SavedImage], msgspec.Meta(max_length=MAX_IMAGES)]


@dataclass(frozen=True, slots=True)
class Loaded:
    """An image that is now complete in the store, though no name points at it yet."""

    id: Digest
    """Of the image that stands for all platforms of it."""
    root: Descriptor
    """What its names are to point at: a manifest, or an index."""
    names: tuple[str, ...]
    """Full names that the archive gives it."""


@dataclass(slots=True)
class _Found:
    """Something that the archive lists."""

    root: Descriptor
    image: Image
    names: dict[str, None]

    @property
    def images(self) -> tuple[Image, ...]:
        return (self.image, *self.image.others)


def load(
    stream: Reader,
    store: ContentStore,
    snapshots: Snapshotter,
    report: Report,
    *,
    quiet: bool,
    wanted: Platform | None = None,
) -> list[Loaded]:
    """Take all images of an archive in, or those of one platform; call it inside `store.keep()`.

    Raises BadArchive and its kinds, MalformedDocument, ContentMismatch, ContentNotFound, InvalidReference,
    RootFilesystemArchive, PlatformNotLoaded.
    """
    _, plain = decompressed(stream)
    with ReadAhead(plain) as ahead:
        contents = take_in(ahead, store)
        ahead.finish()
    found = _listed(contents, store)
    if not found:
        raise NotAnImageArchive(reason="it lists no image")
    chosen = found if wanted is None else _of_platform(found, wanted)

    def tell(diff_id: Digest, current: int, total: int) -> None:
        if not quiet:
            report(progress.advance("Loading layer", diff_id.short, current, total))

    for one in chosen:
        for image in one.images:
            manifest = _document(store, image.manifest)
            assert isinstance(manifest, Manifest)
            admit(store, snapshots, manifest, what=f"image {image.id}", progress=tell)
    return [Loaded(one.image.id, one.root, tuple(one.names)) for one in chosen]


def _of_platform(found: Iterable[_Found], wanted: Platform) -> list[_Found]:
    """That platform of each image that has it. Raises PlatformNotLoaded where none has."""
    chosen, available = [], []
    for one in found:
        image = one.image.for_platform(wanted)
        if image is not None:
            chosen.append(_Found(_bare(image.manifest), replace(image, others=()), one.names))
        what = next((familiar(name) for name in one.names), one.image.id.short)
        available += [f"{what} for {image.config.platform.normalised()}" for image in one.images]
    if not chosen:
        raise PlatformNotLoaded(wanted=wanted, available=", ".join(available[:20]))
    return chosen


# --- tables of contents


def _listed(contents: Contents, store: ContentStore) -> list[_Found]:
    """What the archive's tables say; Docker since version 25 writes both, and they must not contradict each other.

    Where there are both, index.json says which manifests there are, and manifest.json may name things it does not.
    """
    found: dict[Digest, _Found] = {}
    is_saved = "manifest.json" in contents.documents
    if "index.json" in contents.documents:
        _take_index(contents, store, found, lenient=is_saved)
    if is_saved:
        _take_saved(contents, store, found)
    elif "index.json" not in contents.documents:
        for saved in convert(contents, store):
            _take_saved_image(contents, store, found, saved)
    _check_names(found.values())
    return list(found.values())


def _check_names(found: Iterable[_Found]) -> None:
    """A name is of one image, or the tables lie (attack 11)."""
    owners: dict[str, _Found] = {}
    for one in found:
        for name in one.names:
            other = owners.setdefault(name, one)
            if other.image.id != one.image.id:
                raise NotAnImageArchive(
                    reason=f"it gives {familiar(name)} to two images, {other.image.id.short} and {one.image.id.short}"
                )


# --- index.json


def _take_index(contents: Contents, store: ContentStore, found: dict[Digest, _Found], *, lenient: bool) -> None:
    """The entries of an OCI image layout; `lenient` passes over what is not in the archive."""
    for entry in _index(contents).manifests:
        if not is_image(entry):
            continue
        try:
            image = _read(store, entry)
        except ContentNotFound:
            if lenient:
                continue
            raise
        one = found.setdefault(entry.digest, _Found(image.root, image, {}))
        name = layout_name(entry.annotations)
        if name:
            one.names[name] = None


def _read(store: ContentStore, entry: Descriptor) -> Image:
    """The image behind an entry; sizes are checked, for an entry may lie about them."""
    document = _document(store, entry)
    kind = document.media_type or entry.media_type
    return read_entry(store, _bare(msgspec.structs.replace(entry, media_type=kind))).image


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


def _index(contents: Contents) -> Index:
    index = decode_manifest(contents.documents["index.json"], media_type="", what="index.json")
    if not isinstance(index, Index):
        raise NotAnImageArchive(reason="index.json is no index")
    return index


# --- manifest.json


def _take_saved(contents: Contents, store: ContentStore, found: dict[Digest, _Found]) -> None:
    wrapped = b'{"images":' + contents.documents["manifest.json"] + b"}"
    for saved in decode(wrapped, _Saved, what="manifest.json", limit_bytes=MAX_MANIFEST_BYTES * 2).images:
        _take_saved_image(contents, store, found, saved)


def _take_saved_image(contents: Contents, store: ContentStore, found: dict[Digest, _Found], saved: SavedImage) -> None:
    """Names for an image that the index has, which keeps its manifest and digest; else a manifest is written."""
    config = contents.find(saved.config)
    names = dict.fromkeys(str(Reference.parse(tag)) for tag in saved.repo_tags)
    known = [one for one in found.values() if any(image.id == config.digest for image in one.images)]
    if not known:
        image = _read(store, _put_manifest(contents, store, saved, config))
        known = [found.setdefault(image.root.digest, _Found(image.root, image, {}))]
    taken = {name for one in known for name in one.names}
    known[0].names.update((name, None) for name in names if name not in taken)


def _put_manifest(contents: Contents, store: ContentStore, saved: SavedImage, config: Blob) -> Descriptor:
    """Write the manifest that such an archive lacks."""
    layers = [_layer_descriptor(contents.find(name), name) for name in saved.layers]
    manifest = Manifest(schema_version=2, media_type=OCI_MANIFEST, config=descriptor(config, OCI_CONFIG), layers=layers)
    check_layer_count(manifest, _config(store, config.digest), saved.config[:200])
    return store.put(encode(manifest), OCI_MANIFEST)


def _layer_descriptor(blob: Blob, name: str) -> Descriptor:
    suffix = _LAYER_SUFFIX.get(kind_of(blob.head))
    if suffix is None:
        raise NotAnImageArchive(reason=f"layer {name[:200]!r} is neither a plain, a gzip nor a zstd archive")
    return descriptor(blob, OCI_LAYER + suffix)


# --- both


def _document(store: ContentStore, entry: Descriptor) -> Manifest | Index:
    raw = store.read(entry.digest, limit_bytes=MAX_MANIFEST_BYTES)
    if len(raw) != entry.size:
        raise NotAnImageArchive(reason=f"{entry.digest} has {len(raw)} bytes, not {entry.size}")
    return decode_manifest(raw, media_type=entry.media_type, what=f"manifest {entry.digest}")


def _config(store: ContentStore, digest: Digest) -> ImageConfig:
    raw = store.read(digest, limit_bytes=MAX_CONFIG_BYTES)
    return decode_image_config(raw, what=f"configuration {digest}")


def _bare(entry: Descriptor) -> Descriptor:
    """Type, digest and size alone: an archive's annotations are not ours."""
    return Descriptor(media_type=entry.media_type or OCI_MANIFEST, digest=entry.digest, size=entry.size)
