"""Writable trees over results, and the layers that become of them. Blocks."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from pier.builder.ground import Ground
from pier.builder.tree import Folder, LayerRef, Result, Tree
from pier.kernel.mounts import VOLATILE, mount_overlay
from pier.kernel.paths import closing
from pier.oci import Descriptor, Digest, chain_ids
from pier.oci.digest import hasher
from pier.oci.manifest import OCI_LAYER
from pier.runtime.request import OverlayRoot
from pier.storage.folder_driver import LayerNotFound, LayerRecord
from pier.storage.ids import IdMap
from pier.storage.snapshots import Root
from pier.storage.tar_writer import TarWriter
from pier.storage.tree_tar import write_tree
from pier.storage.trees import remove_tree

PREFIX: Final = "build-"
"""How the writable trees of steps are called among those of containers."""


FRESH_BYTES: Final = 32 << 20
FRESH_LAYERS: Final = 4
"""Archives that stay in memory until the builds have ended, and how large they may be."""


class Hashing:
    """A sink that keeps the digest, and the bytes too while they are few."""

    def __init__(self) -> None:
        self._state = hasher()
        self._size = 0
        self.pieces: list[bytes] | None = []
        """What was written; None: more than FRESH_BYTES."""

    def write(self, data: bytes | bytearray | memoryview, /) -> int:
        self._state.update(data)
        self._size += len(data)
        if self._size > FRESH_BYTES:
            self.pieces = None
        if self.pieces is not None:
            self.pieces.append(bytes(data))
        return len(data)

    def finish(self) -> Digest:
        return Digest.finish(self._state)


def begin(ground: Ground, base: Tree, id_map: IdMap | None = None) -> tuple[str, Root]:
    """A writable tree over `base`: its name, and what the runtime mounts; with `id_map` for a user namespace.

    It does not wait for the disk: a layer is flushed when an image has it (`Snapshotter.flush`). Raises LayerNotFound,
    OSError.
    """
    name = PREFIX + secrets.token_hex(12)
    root = ground.snapshots.prepare(name, base.chain, id_map=id_map)
    return name, replace(root, volatile=True) if isinstance(root, OverlayRoot) else root


def drop(ground: Ground, name: str) -> None:
    """Throw a writable tree away; one that has become a layer is no error."""
    ground.snapshots.remove(name)


def mounted(root: OverlayRoot) -> int:
    """A detached mount of a writable tree, which may have been mounted before and is no more. Raises OSError."""
    with closing(os.open(root.work, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as work:
        remove_tree(work, VOLATILE.encode())
    return mount_overlay(root.lower, root.upper, root.work, volatile=root.volatile)


@contextlib.contextmanager
def opened(root: Root) -> Iterator[int]:
    """A descriptor of a writable tree, mounted nowhere, while the block runs."""
    if isinstance(root, OverlayRoot):
        mount_fd = mounted(root)
        try:
            fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mount_fd)
        finally:
            os.close(mount_fd)
    else:
        fd = os.open(root.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def shown(ground: Ground, result: Result) -> Iterator[int]:
    """A descriptor of a result's tree, to be read, while the block runs."""
    if isinstance(result, Folder):
        fd = os.open(result.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            yield fd
        finally:
            os.close(fd)
        return
    with ground.snapshots.layer_view(result.chain) as fd:
        yield fd


def seal(ground: Ground, name: str, base: Tree) -> Tree:
    """Make a layer of what was changed in a writable tree, which nothing writes to any more; it is gone then.

    Nothing changed: the same tree again. Raises TreeTooDeep, OSError.
    """
    snapshots, chain = ground.snapshots, base.chain
    try:
        archive = Hashing()
        diffed = snapshots.diff(name, chain, archive)
        if not diffed.entries:
            return base.with_layer(None)
        diff_id = archive.finish()
        chain_id = chain_ids([*base.diff_ids, diff_id])[-1]
        if diffed.plain and snapshots.adopt(name, chain, chain_id, LayerRecord(str(diff_id), diffed.size_bytes)):
            if archive.pieces is not None:
                _keep_fresh(ground, diff_id, archive.pieces)
            return base.with_layer(LayerRef(diff_id, None, ground.clock_ns()))
        with ground.content.ingest() as writer:
            snapshots.diff(name, chain, writer)
            blob = writer.commit(OCI_LAYER)
        return unpacked(ground, base, blob)
    finally:
        drop(ground, name)


def _keep_fresh(ground: Ground, diff_id: Digest, pieces: list[bytes]) -> None:
    """Most layers are wanted by an image a moment after they were made: small ones need not be read again then."""
    ground.fresh[diff_id] = pieces
    for older in list(ground.fresh)[:-FRESH_LAYERS]:
        ground.fresh.pop(older, None)


def stack(ground: Ground, base: Tree, layer: LayerRef, parent: Digest | None) -> Tree:
    """Put a layer that exists somewhere, over `parent`, over another tree."""
    chain_id = chain_ids([*base.diff_ids, layer.diff_id])[-1]
    if not ground.snapshots.has_layer(chain_id):
        blob = blob_of(ground, layer, chain_id_over(parent, layer.diff_id), parent)
        _unpack(ground, base, blob, chain_id)
    return base.with_layer(layer)


def chain_id_over(parent: Digest | None, diff_id: Digest) -> Digest:
    """The name of a layer over what is called `parent`."""
    return Digest.of(f"{parent} {diff_id}".encode()) if parent else diff_id


def blob_of(ground: Ground, layer: LayerRef, chain_id: Digest, parent: Digest | None) -> Descriptor:
    """A layer's archive in the content store, made of its tree where it is not there.

    Of a tree of any size it is a recipe, by which the archive is made again when somebody asks for it. Raises
    LayerNotFound, OSError.
    """
    if layer.blob is not None:
        return layer.blob
    if ground.content.has(layer.diff_id):
        return Descriptor(media_type=OCI_LAYER, digest=layer.diff_id, size=ground.content.size(layer.diff_id))
    pieces = ground.fresh.pop(layer.diff_id, None)
    recipes = ground.content.recipes
    if pieces is None and recipes.record(
        layer.diff_id, chain_id, lambda sink: ground.snapshots.archive(chain_id, parent, sink)
    ):
        return Descriptor(media_type=OCI_LAYER, digest=layer.diff_id, size=ground.content.size(layer.diff_id))
    with ground.content.ingest(expected=layer.diff_id) as writer:
        if pieces is None:
            ground.snapshots.archive(chain_id, parent, writer)
        for piece in pieces or ():
            writer.write(piece)
        return writer.commit(OCI_LAYER)


def from_folder(ground: Ground, folder: Folder) -> Tree:
    """A client's files as a layer, for steps that change them."""
    with shown(ground, folder) as fd:
        return from_directory(ground, fd)


def from_directory(ground: Ground, fd: int) -> Tree:
    """What is below a descriptor as a tree of one layer."""
    with ground.content.ingest() as writer:
        write_tree(fd, TarWriter(writer))
        blob = writer.commit(OCI_LAYER)
    return unpacked(ground, Tree(), blob)


def unpacked(ground: Ground, base: Tree, blob: Descriptor) -> Tree:
    """A tree with one layer more, a plain archive in the content store."""
    _unpack(ground, base, blob, chain_ids([*base.diff_ids, blob.digest])[-1])
    return base.with_layer(LayerRef(blob.digest, blob, ground.clock_ns()))


def _unpack(ground: Ground, base: Tree, blob: Descriptor, chain_id: Digest) -> None:
    if not ground.snapshots.has_layer(chain_id):
        with ground.content.open(blob.digest) as reader:
            ground.snapshots.unpack(chain_id, base.chain[-1] if base.layers else None, reader)


def as_tree(ground: Ground, result: Result) -> Tree:
    """A result that a step changes."""
    return from_folder(ground, result) if isinstance(result, Folder) else result


__all__ = ["LayerNotFound"]
