"""The build cache from one machine to another: an archive that is an OCI image layout with one artifact.

    index.json -> manifest -> config   CacheDocument: what was done, by its keys, and which layers came of it
                           -> layers   the layers' archives, then those of cache mounts

What comes in is as trusted as an image: a layer is verified by its digest, and a step is only found by keys that are
digests over all that went into it; whoever imports a cache believes its maker about what those steps come to. Blocks.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from pier.builder import layers
from pier.builder.cache import CACHE_MOUNT, Cache, Record, new_id
from pier.builder.ground import Ground
from pier.builder.tree import LayerRef, Tree
from pier.errors import InvalidParameter
from pier.oci import Descriptor, Digest, Index, Manifest, chain_ids, decode_manifest, encode
from pier.oci.document import decode
from pier.oci.manifest import MAX_MANIFEST_BYTES, OCI_INDEX, OCI_LAYER, OCI_MANIFEST
from pier.storage.content import LAYOUT
from pier.storage.copy_in import copy_in
from pier.storage.folder_driver import make_root
from pier.storage.layout_tar import add_blob, add_document
from pier.storage.stream import CHUNK, Reader
from pier.storage.tar import TarReader
from pier.storage.tar_header import REGULAR
from pier.storage.tar_writer import Sink, TarWriter
from pier.storage.tree_tar import write_tree

ARTIFACT: Final = "application/vnd.pier.buildcache.v1"
CONFIG: Final = "application/vnd.pier.buildcache.config.v1+json"
MAX_CONFIG_BYTES: Final = 64 << 20
MAX_INDEX_BYTES: Final = 1 << 20


class NoCache(InvalidParameter):
    """the archive has no build cache in it: {reason}"""


class Done(msgspec.Struct, omit_defaults=True):
    """One step, or one cache mount, as it travels."""

    keys: list[str]
    results: list[list[Digest]] = msgspec.field(default_factory=list)
    """diff_ids of each output's layers."""
    gaps: list[list[int]] = msgspec.field(default_factory=list)
    type: str = "regular"
    description: str = ""
    created_ns: int = 0
    mount: Digest | None = None
    """Of a cache mount: the archive of its files."""


class CacheDocument(msgspec.Struct):
    """The artifact's configuration."""

    records: list[Done]
    layers: dict[str, Descriptor]
    """diff_id -> archive."""


def export(ground: Ground, records: Iterable[Record], out: Sink) -> None:
    """Write an archive of these records. Call it inside `content.keep()`.

    Raises LayerNotFound, ContentNotFound, OSError.
    """
    root, parts = pack(ground, records)
    _write(ground, root, [root, *parts], out)


def pack(ground: Ground, records: Iterable[Record]) -> tuple[Descriptor, list[Descriptor]]:
    """The artifact of these records, put into the content store: its manifest, and the blobs that it names.

    Call it inside `content.keep()`. Raises LayerNotFound, ContentNotFound, OSError.
    """
    done: list[Done] = []
    blobs: dict[str, Descriptor] = {}
    mounts: list[Descriptor] = []
    for record in records:
        if record.folder:
            mounts.append(_mount_archive(ground, record.folder))
            entry = Done(record.keys, type=record.type, description=record.description, mount=mounts[-1].digest)
        else:
            for tree in record.results:
                blobs.update(_archives(ground, tree))
            results = [list(tree.diff_ids) for tree in record.results]
            gaps = [list(tree.gaps) for tree in record.results]
            entry = Done(record.keys, results, gaps, record.type, record.description)
        entry.created_ns = record.created_ns
        done.append(entry)
    config = ground.content.put(encode(CacheDocument(done, blobs)), CONFIG)
    parts = list({blob.digest: blob for blob in (*blobs.values(), *mounts)}.values())
    manifest = Manifest(schema_version=2, media_type=OCI_MANIFEST, artifact_type=ARTIFACT, config=config, layers=parts)
    return ground.content.put(encode(manifest), OCI_MANIFEST), [config, *parts]


def _archives(ground: Ground, tree: Tree) -> Mapping[str, Descriptor]:
    parents: list[Digest | None] = [None, *tree.chain]
    rows = zip(tree.layers, tree.chain, parents, strict=False)
    return {str(layer.diff_id): layers.blob_of(ground, layer, chain_id, parent) for layer, chain_id, parent in rows}


def _mount_archive(ground: Ground, folder: str) -> Descriptor:
    fd = os.open(os.path.join(ground.data_dir, folder), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with ground.content.ingest() as writer:
            write_tree(fd, TarWriter(writer))
            return writer.commit(OCI_LAYER)
    finally:
        os.close(fd)


def _write(ground: Ground, root: Descriptor, blobs: Iterable[Descriptor], out: Sink) -> None:
    archive = TarWriter(out)
    index = encode(Index(schema_version=2, media_type=OCI_INDEX, manifests=[root]))
    add_document(archive, "oci-layout", LAYOUT)
    add_document(archive, "index.json", index)
    for blob in blobs:
        add_blob(archive, ground.content, blob)
    archive.finish()


# --- coming in


def receive(ground: Ground, archive: Reader) -> CacheDocument:
    """Take an archive into the stores, its layers unpacked; what it says was done. Call it inside `content.keep()`.

    Raises NoCache, BadArchive, ContentMismatch, MalformedDocument, OSError.
    """
    index = _take_blobs(ground, archive)
    root = next((each for each in index.manifests if each.media_type == OCI_MANIFEST), None)
    if root is None:
        raise NoCache(reason="its index names no manifest")
    return admit(ground, manifest_of(ground.content.read(root.digest, limit_bytes=MAX_MANIFEST_BYTES)))


def manifest_of(raw: bytes) -> Manifest:
    """The artifact's manifest. Raises NoCache, MalformedDocument."""
    manifest = decode_manifest(raw, media_type=OCI_MANIFEST, what="manifest of a build cache")
    if not isinstance(manifest, Manifest) or manifest.config.media_type != CONFIG:
        raise NoCache(reason="it is an image")
    return manifest


def admit(ground: Ground, manifest: Manifest) -> CacheDocument:
    """What an artifact says was done; its blobs are here, its layers are unpacked. Call it inside `content.keep()`.

    Raises NoCache, BadArchive, ContentMismatch, ContentNotFound, MalformedDocument, OSError.
    """
    text = ground.content.read(manifest.config.digest, limit_bytes=MAX_CONFIG_BYTES)
    document = decode(text, CacheDocument, what="build cache", limit_bytes=MAX_CONFIG_BYTES)
    for done in document.records:
        for diff_ids in done.results:
            _unpack(ground, document, diff_ids)
    return document


def _take_blobs(ground: Ground, archive: Reader) -> Index:
    reader, index = TarReader(archive), None
    for entry in reader:
        name = entry.name.decode("utf-8", "replace")
        if name == "index.json":
            data = reader.read(MAX_INDEX_BYTES)
            index = decode(data, Index, what="index of a build cache", limit_bytes=MAX_INDEX_BYTES)
        elif name.startswith("blobs/") and entry.type == REGULAR:
            digest = Digest(name.removeprefix("blobs/").replace("/", ":", 1))
            with ground.content.ingest(expected=digest, size=entry.size) as writer:
                while data := reader.read(CHUNK):
                    writer.write(data)
                writer.commit()
    if index is None:
        raise NoCache(reason="it has no index.json")
    return index


def _unpack(ground: Ground, document: CacheDocument, diff_ids: list[Digest]) -> None:
    parent: Digest | None = None
    for diff_id, chain_id in zip(diff_ids, chain_ids(diff_ids), strict=True):
        if not ground.snapshots.has_layer(chain_id):
            blob = document.layers.get(str(diff_id))
            if blob is None:
                raise NoCache(reason=f"layer {diff_id} is missing")
            with ground.content.open(blob.digest, blob.size) as reader:
                ground.snapshots.unpack(chain_id, parent, reader)
        parent = chain_id


def remember(ground: Ground, cache: Cache, document: CacheDocument) -> int:
    """Add what was done to the cache, unless it knows it; returns how many records are new. On the loop's thread."""
    added = 0
    for done in document.records:
        if not done.keys or any(cache.has(key) for key in done.keys):
            continue
        added += 1
        if done.mount is not None:
            folder = f"mounts/{Digest.of(done.keys[0].encode()).hex[:32]}"
            record = Record(id=new_id(), keys=list(done.keys), type=CACHE_MOUNT, created_ns=done.created_ns)
            record.description, record.folder, record.used_ns = done.description, folder, ground.clock_ns()
            cache.put(record)
            continue
        trees = [_tree(document, done, number) for number in range(len(done.results))]
        cache.add(done.keys, trees, [], type=done.type, description=done.description)
    return added


def _tree(document: CacheDocument, done: Done, number: int) -> Tree:
    stack = tuple(LayerRef(diff_id, document.layers[str(diff_id)], done.created_ns) for diff_id in done.results[number])
    return Tree(stack, tuple(done.gaps[number]) if number < len(done.gaps) else ())


def fill_mounts(ground: Ground, document: CacheDocument) -> None:
    """Unpack the cache mounts that are not there yet. Raises BadArchive, OSError."""
    for done in document.records:
        if done.mount is None or not done.keys:
            continue
        path = os.path.join(ground.data_dir, "mounts", Digest.of(done.keys[0].encode()).hex[:32])
        if os.path.isdir(path):
            continue
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        fresh = f"{path}.new"
        make_root(fresh, None)
        fd = os.open(fresh, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with ground.content.open(done.mount) as reader:
                copy_in(reader, fd, owners=lambda uid, gid: (uid, gid))
        finally:
            os.close(fd)
        os.rename(fresh, path)
