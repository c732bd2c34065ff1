"""Save: images as an archive that every engine loads: an OCI image layout with Docker's tables beside it.

    oci-layout, index.json    image-spec, image-layout.md; names as annotations
    manifest.json             Docker's own table since 1.10
    repositories              names -> last layer, as Docker still writes it
    blobs/sha256/<hex>        manifests, configurations, layers

Blobs are what the store holds, bit for bit: an image keeps its digest, layers their compression. The tables come first,
layers in the order they are stacked, times are 0: the same images give the same bytes, and a reader needs no second
pass. All of it blocks; call it inside `ContentStore.keep()`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from pier.errors import NotFound
from pier.images.catalog import Catalog
from pier.images.delete import named
from pier.images.image import Image, familiar, is_digest_name, read_entry
from pier.images.push_plan import make_plan
from pier.oci import Descriptor, Digest, Index, InvalidReference, Manifest, Platform, Reference, decode_manifest, encode
from pier.oci.manifest import MAX_MANIFEST_BYTES, OCI_INDEX
from pier.storage import ContentStore
from pier.storage.content import FULL_NAME, LAYOUT, REF_NAME
from pier.storage.errors import ContentNotFound
from pier.storage.layout_tar import add_blob, add_document, add_folder, blob_name
from pier.storage.tar_writer import Sink, TarWriter


class NoExportTarget(NotFound):
    """no suitable export target found for platform {wanted}"""

    remedy = "{name} is here for {available}"


@dataclass(frozen=True, slots=True)
class Chosen:
    """A manifest or index to be saved, the names it is asked for by, and the image that stands for it."""

    root: Descriptor
    names: tuple[str, ...]
    """Full names with a tag."""
    image: Image


@dataclass(slots=True)
class SavePlan:
    """Everything that goes into the archive."""

    documents: dict[str, bytes] = field(default_factory=dict)
    """Name in the archive -> content."""
    blobs: dict[Digest, Descriptor] = field(default_factory=dict)
    """In the order they are written."""
    images: list[Image] = field(default_factory=list)
    """Each once, for events."""


def choose_images(store: ContentStore, catalog: Catalog, refs: Iterable[str], wanted: Platform | None) -> list[Chosen]:
    """What users mean by names and ids: a name without a tag is all tags of its repository.

    Raises NoSuchImage, InvalidReference, NoExportTarget, ContentNotFound, MalformedDocument.
    """
    tags = store.tags()
    found: dict[Digest, tuple[Descriptor, dict[str, None], str]] = {}
    for ref in refs:
        for root, name in _meant(catalog, tags, ref):
            _, names, _ = found.setdefault(root.digest, (root, {}, ref))
            if name and not is_digest_name(name):
                names[name] = None
    return [_for_platform(store, root, tuple(names), ref, wanted) for root, names, ref in found.values()]


def _meant(catalog: Catalog, tags: dict[str, Descriptor], ref: str) -> list[tuple[Descriptor, str]]:
    """(what is saved, the name it is asked for by, empty for an id) of one word of the user's."""
    try:
        reference = Reference.parse(ref, default_tag=None)
    except InvalidReference:
        image = catalog.get(ref)
    else:
        every = [name for name in tags if name.startswith(f"{reference.name}:")]
        if not reference.suffix and every:
            return [(tags[name], name) for name in every]
        image = catalog.get(ref)
        name = named(image, ref)
        if name in tags:
            return [(tags[name], name)]
    return [(image.root if image.id in catalog.images else image.manifest, "")]


def _for_platform(
    store: ContentStore, root: Descriptor, names: tuple[str, ...], ref: str, wanted: Platform | None
) -> Chosen:
    image = read_entry(store, root).image
    if wanted is None:
        return Chosen(root, names, image)
    best = image.for_platform(wanted)
    if best is None:
        available = ", ".join(str(one.config.platform.normalised()) for one in image.platforms)
        raise NoExportTarget(wanted=wanted, name=ref, available=available)
    return Chosen(best.manifest, names, best)


def plan_save(store: ContentStore, chosen: Iterable[Chosen]) -> SavePlan:
    """Everything below the chosen roots; of an index whatever of it is here. Raises ContentNotFound."""
    plan = SavePlan()
    entries: list[Descriptor] = []
    saved: dict[Digest, dict[str, Any]] = {}
    repositories: dict[str, dict[str, str]] = {}
    for item in chosen:
        entries += _index_entries(item)
        manifest = _manifest(store, item.image.manifest)
        for part in (manifest.config, *manifest.layers):
            if not store.has(part.digest):
                raise ContentNotFound(digest=part.digest)
        _gather(store, plan, item.root)
        if item.image.id not in saved:
            saved[item.image.id] = _saved_image(item.image, manifest)
            plan.images.append(item.image)
        row = saved[item.image.id]
        short = [familiar(name) for name in item.names]
        row["RepoTags"] = [*(row["RepoTags"] or ()), *short] or None
        for name in item.names if manifest.layers else ():
            reference = Reference.parse(name)
            repository = repositories.setdefault(reference.familiar_name, {})
            repository[reference.tag or ""] = manifest.layers[-1].digest.hex
    plan.documents = {
        "oci-layout": LAYOUT,
        "index.json": encode(Index(schema_version=2, media_type=OCI_INDEX, manifests=entries)),
        "manifest.json": msgspec.json.encode(list(saved.values())),
    }
    if repositories:
        plan.documents["repositories"] = msgspec.json.encode(repositories)
    return plan


def plan_layout(
    store: ContentStore, root: Descriptor, names: Sequence[Reference], *, docker_table: bool = False
) -> SavePlan:
    """An OCI image layout of one root under names that it need not have here; its annotations stand in the index.

    `docker_table`: with `manifest.json`, for an image of one platform. Raises ContentNotFound, MalformedDocument.
    """
    plan = SavePlan()
    _gather(store, plan, root)
    named = [root.annotations | {FULL_NAME: str(name), REF_NAME: name.tag or ""} for name in names] or [
        root.annotations
    ]
    entries = [msgspec.structs.replace(root, annotations=annotations) for annotations in named]
    index = Index(schema_version=2, media_type=OCI_INDEX, manifests=entries)
    plan.documents = {"oci-layout": LAYOUT, "index.json": encode(index)}
    if docker_table:
        row = _saved_image(read_entry(store, root).image, _manifest(store, root))
        row["RepoTags"] = [name.familiar for name in names] or None
        plan.documents["manifest.json"] = msgspec.json.encode([row])
    return plan


def _index_entries(item: Chosen) -> list[Descriptor]:
    """One entry a name, one without names for an image that was asked for by its id."""
    bare = Descriptor(item.root.media_type, item.root.digest, item.root.size)
    named = [{FULL_NAME: name, REF_NAME: Reference.parse(name).tag or ""} for name in item.names]
    return [msgspec.structs.replace(bare, annotations=annotations) for annotations in named] or [bare]


def _manifest(store: ContentStore, descriptor: Descriptor) -> Manifest:
    raw = store.read(descriptor.digest, limit_bytes=MAX_MANIFEST_BYTES)
    manifest = decode_manifest(raw, media_type=descriptor.media_type, what=f"manifest {descriptor.digest}")
    assert isinstance(manifest, Manifest)
    return manifest


def _saved_image(image: Image, manifest: Manifest) -> dict[str, Any]:
    """An element of manifest.json."""
    return {
        "Config": blob_name(image.id),
        "RepoTags": None,
        "Layers": [blob_name(layer.digest) for layer in manifest.layers],
        "LayerSources": {
            str(diff_id): {"mediaType": layer.media_type, "size": layer.size, "digest": str(layer.digest)}
            for diff_id, layer in zip(image.config.rootfs.diff_ids, manifest.layers, strict=True)
        },
    }


def _gather(store: ContentStore, plan: SavePlan, root: Descriptor) -> None:
    """Manifests from the outside in, then configurations and layers; what is not here is left out."""
    below = make_plan(store, root, root.digest)
    parts = [part.descriptor for part in below.parts if store.has(part.descriptor.digest)]
    for one in (root, *(child for child, _ in reversed(below.children)), *parts):
        plan.blobs.setdefault(one.digest, one)


def write_archive(store: ContentStore, plan: SavePlan, sink: Sink) -> None:
    """Write the archive; every blob is verified as it goes. Raises ContentNotFound, ContentMismatch."""
    for digest in plan.blobs:
        store.size(digest)  # which the lease of the caller has met then, and keeps to the end
    out = TarWriter(sink)
    for name, data in plan.documents.items():
        add_document(out, name, data)
    folders = {f"blobs/{digest.algorithm}/" for digest in map(Digest, plan.blobs)}
    for folder in ("blobs/", *sorted(folders)) if folders else ():
        add_folder(out, folder)
    for blob in plan.blobs.values():
        add_blob(out, store, blob)
    out.finish()
