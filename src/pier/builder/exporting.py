"""What becomes of a result: an image in the store, an archive of it, or its files."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import msgspec

from pier.builder import cacheconfig, layers
from pier.builder.cache import Record
from pier.builder.compressing import PLAIN, Compression, compressed
from pier.builder.ground import Ground
from pier.builder.steps.combining import flattened
from pier.builder.tree import SCRATCH, Tree
from pier.images.commit import docker_form, oci_form
from pier.model.time import rfc3339_nano
from pier.oci import Descriptor, Digest, ImageConfig, Manifest, encode
from pier.oci.image_config import History, RootFS
from pier.oci.manifest import (
    DOCKER_CONFIG,
    DOCKER_MANIFEST,
    DOCKER_MANIFEST_LIST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    Index,
)
from pier.storage.stream import Reader
from pier.storage.tar import TarReader
from pier.storage.tar_header import NS, REGULAR
from pier.storage.tar_writer import TarWriter


@dataclass(frozen=True, slots=True)
class ImageWish:
    """An image to be made of a tree."""

    tree: Tree
    config: ImageConfig
    """Of the frontend: everything but `rootfs`, and the times of its history's steps."""
    annotations: Mapping[str, str] = field(default_factory=dict)
    """Of the manifest."""
    epoch_s: int | None = None
    """SOURCE_DATE_EPOCH: when the image was made, and the latest time its new layers have. None: now, as they are."""
    rewrite_timestamps: bool = True
    squash_from: int | None = None
    """The layers from this number on become one."""
    cached: Sequence[Record] = ()
    """Steps that the image is to tell of, so that it is a cache: those whose layers it has then."""
    oci_types: bool = True
    """OCI's media types, not Docker's."""
    compression: Compression = field(default_factory=Compression)
    """Of the layers."""


@dataclass(frozen=True, slots=True)
class MadeImage:
    """An image whose parts are in the store; no name or index points at it yet."""

    id: Digest
    manifest: Descriptor
    config: ImageConfig


def make_image(ground: Ground, wish: ImageWish) -> MadeImage:
    """Put an image's parts into the store. Blocks; call it inside `content.keep()`. Raises PierError, OSError."""
    tree = wish.tree
    if wish.squash_from is not None:
        tree = squashed(ground, tree, wish.squash_from)
    if wish.epoch_s is not None and wish.rewrite_timestamps:
        tree = clamped(ground, tree, wish.epoch_s * NS)
    with ThreadPoolExecutor(1, thread_name_prefix="flush") as beside:
        flushed = beside.submit(ground.snapshots.flush)  # the disk writes while the archives are hashed
        blobs = list(archives(ground, tree))
        flushed.result()  # before a name points at it
    now_ns = wish.epoch_s * NS if wish.epoch_s is not None else ground.clock_ns()
    config = completed(wish.config, tree, rfc3339_nano(now_ns), one_time=wish.epoch_s is not None)
    document = cacheconfig.with_inline(encode(config), wish.cached, tree)
    stored = ground.content.put(document, OCI_CONFIG if wish.oci_types else DOCKER_CONFIG)
    parts = _compressed(ground, [oci_form(blob) for blob in blobs], tree.diff_ids, wish.compression)
    kind = OCI_MANIFEST if wish.oci_types else DOCKER_MANIFEST
    manifest = Manifest(
        schema_version=2,
        media_type=kind,
        config=stored,
        layers=parts if wish.oci_types else [docker_form(part) for part in parts],
        annotations=dict(wish.annotations),
    )
    return MadeImage(stored.digest, ground.content.put(encode(manifest), kind), config)


def _compressed(
    ground: Ground, blobs: Sequence[Descriptor], diff_ids: Sequence[Digest], wanted: Compression
) -> list[Descriptor]:
    """Layers side by side; where none is to be compressed that costs nothing."""
    if wanted.kind == PLAIN and not wanted.force:
        return list(blobs)
    with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="compress") as threads:
        return list(threads.map(lambda blob, diff_id: compressed(ground, blob, diff_id, wanted), blobs, diff_ids))


def make_index(
    ground: Ground, manifests: Sequence[Descriptor], *, annotations: Mapping[str, str], oci_types: bool = True
) -> Descriptor:
    """Put the index of several platforms' manifests into the store. Blocks; call it inside `content.keep()`."""
    kind = OCI_INDEX if oci_types else DOCKER_MANIFEST_LIST
    index = Index(schema_version=2, media_type=kind, manifests=list(manifests), annotations=dict(annotations))
    return ground.content.put(encode(index), kind)


def archives(ground: Ground, tree: Tree) -> Iterator[Descriptor]:
    """The layers' archives in the store, the base first."""
    parent: Digest | None = None
    for layer, chain_id in zip(tree.layers, tree.chain, strict=True):
        yield layers.blob_of(ground, layer, chain_id, parent)
        parent = chain_id


def completed(config: ImageConfig, tree: Tree, now: str, *, one_time: bool) -> ImageConfig:
    """The configuration with its layers, with a history that has a step for each of them, and with times.

    A new step has the time of its layer; one without a layer that of the layer before it, or of the first new one. The
    image has the time of its last step, so that one that is built again of the cache is the same (BuildKit's rule).
    `one_time`: all that is new has the time `now`.
    """
    slots = iter(tree.slots)
    dated: list[tuple[History, str]] = []
    for step in config.history:
        layer = None if step.empty_layer else next(slots, None)
        made = rfc3339_nano(layer.created_ns) if layer and layer.created_ns else ""
        dated.append((msgspec.structs.replace(step, empty_layer=layer is None), step.created or made))
    for layer in slots:
        if layer is not None:
            made = rfc3339_nano(layer.created_ns) if layer.created_ns else now
            dated.append((History(comment="buildkit.exporter.image.v0"), made))
    latest = next((made for step, made in dated if made and not step.created and not step.empty_layer), now)
    finished = []
    for step, made in dated:
        if not step.created:
            latest = made or latest
        time = now if one_time and not step.created else step.created or latest
        finished.append(msgspec.structs.replace(step, created=time))
    return msgspec.structs.replace(
        config,
        created=finished[-1].created if finished else now,
        rootfs=RootFS(diff_ids=list(tree.diff_ids)),
        history=finished,
    )


def clamped(ground: Ground, tree: Tree, latest_ns: int) -> Tree:
    """The tree with no file of its new layers later than `latest_ns`; layers that came with images stay."""
    result = SCRATCH
    for layer, chain_id, parent in zip(tree.layers, tree.chain, [None, *tree.chain], strict=False):
        if not layer.created_ns:
            result = layers.stack(ground, result, layer, parent)
            continue
        blob = layers.blob_of(ground, layer, chain_id, parent)
        with ground.content.open(blob.digest) as archive, ground.content.ingest() as writer:
            if not _clamp(archive, TarWriter(writer), latest_ns):
                result = layers.stack(ground, result, layer, parent)
                continue
            result = layers.unpacked(ground, result, writer.commit(OCI_LAYER))
    return result


def _clamp(archive: Reader, out: TarWriter, latest_ns: int) -> bool:
    """Copy an archive with bounded times; False: there was nothing to bound."""
    reader = TarReader(archive)
    changed = False
    for entry in reader:
        late = entry.mtime_ns > latest_ns
        changed = changed or late
        out.add(dataclasses.replace(entry, mtime_ns=latest_ns) if late else entry)
        if entry.type == REGULAR:
            while data := reader.read(1 << 18):
                out.content(data)
            out.end_content()
    out.finish()
    return changed


def squashed(ground: Ground, tree: Tree, first: int) -> Tree:
    """The layers from number `first` on as one."""
    if len(tree.layers) - first < 2:
        return tree
    base = Tree(tree.layers[:first])
    return flattened(ground, base, tree)
