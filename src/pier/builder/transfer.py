"""The build cache as documents and blobs that travel, and as an archive: an OCI image layout.

    index.json -> manifest -> config   `cacheconfig`: what was done, by its keys, and which layers came of it
                           -> layers   the layers' archives, then those of cache mounts

Blocks.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from pier.builder import cache_form, cacheconfig
from pier.builder.cache import CACHE_MOUNT, Cache, Record, new_id
from pier.builder.cache_form import Form
from pier.builder.cacheconfig import CONFIG, CacheConfig, NoCache
from pier.builder.folders import MOUNTS
from pier.builder.ground import Ground
from pier.oci import Descriptor, Digest, Index, Manifest, encode
from pier.oci.document import decode
from pier.oci.manifest import DOCKER_MANIFEST_LIST, OCI_INDEX, OCI_LAYER, OCI_MANIFEST
from pier.storage.content import LAYOUT
from pier.storage.copy_in import copy_in
from pier.storage.folder_driver import make_root
from pier.storage.layout_tar import add_blob, add_document
from pier.storage.stream import CHUNK, Reader
from pier.storage.tar import TarReader
from pier.storage.tar_header import REGULAR
from pier.storage.tar_writer import Sink, TarWriter
from pier.storage.tree_tar import write_tree

MAX_INDEX_BYTES: Final = 1 << 20
REF_NAME: Final = "org.opencontainers.image.ref.name"
PLAIN: Final = Form()


def export(ground: Ground, records: Iterable[Record], out: Sink, form: Form = PLAIN) -> None:
    """Write an archive of these records, cache mounts too. Call it inside `content.keep()`.

    Raises LayerNotFound, ContentNotFound, OSError.
    """
    root, parts = pack(ground, records, form)
    write(ground, root, [root, *parts], out)


def pack(ground: Ground, records: Iterable[Record], form: Form = PLAIN) -> tuple[Descriptor, list[Descriptor]]:
    """The cache of these records, put into the content store: its manifest or index, and the blobs that this names.

    Call it inside `content.keep()`. Raises LayerNotFound, ContentNotFound, OSError.
    """
    known = [record for record in records if record.keys]
    mounts = {record.id: _mount_archive(ground, record.folder) for record in known if record.folder}
    layers = cacheconfig.Layers(cache_form.archives(ground, form))
    document = cacheconfig.describe(known, layers, {id: blob.digest for id, blob in mounts.items()})
    config = ground.content.put(encode(document), CONFIG)
    parts = list({blob.digest: blob for blob in (*layers.blobs.values(), *mounts.values())}.values())
    root: Manifest | Index
    if form.image_manifest:
        root = Manifest(schema_version=2, media_type=OCI_MANIFEST, config=config, layers=parts)
    else:
        kind = OCI_INDEX if form.oci else DOCKER_MANIFEST_LIST
        root = Index(schema_version=2, media_type=kind, manifests=[*parts, config])
    return ground.content.put(encode(root), root.media_type), [config, *parts]


def _mount_archive(ground: Ground, folder: str) -> Descriptor:
    fd = os.open(os.path.join(ground.data_dir, folder), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with ground.content.ingest() as writer:
            write_tree(fd, TarWriter(writer))
            return writer.commit(OCI_LAYER)
    finally:
        os.close(fd)


def write(ground: Ground, root: Descriptor, blobs: Iterable[Descriptor], out: Sink, tag: str = "") -> None:
    """Write blobs as an OCI image layout, whose index names `root`, by a tag or by none."""
    archive = TarWriter(out)
    if tag:
        root = msgspec.structs.replace(root, annotations={REF_NAME: tag})
    index = encode(Index(schema_version=2, media_type=OCI_INDEX, manifests=[root]))
    add_document(archive, "oci-layout", LAYOUT)
    add_document(archive, "index.json", index)
    for blob in blobs:
        add_blob(archive, ground.content, blob)
    archive.finish()


# --- coming in


def receive(ground: Ground, archive: Reader) -> Descriptor:
    """Take an archive's blobs into the content store; its manifest. Call it inside `content.keep()`.

    Raises NoCache, BadArchive, ContentMismatch, MalformedDocument, OSError.
    """
    reader, index = TarReader(archive), None
    for entry in reader:
        name = entry.name.decode("utf-8", "replace").removeprefix("./")
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
    if not index.manifests:
        raise NoCache(reason="its index names no manifest")
    return index.manifests[-1]


def mounts_of(config: CacheConfig) -> list[tuple[str, str, Digest]]:
    """(key, folder below the builder's, archive) of a document's cache mounts."""
    return [
        (record.digest, f"{MOUNTS}/{Digest.of(record.digest.encode()).hex[:32]}", record.pier.mount)
        for record in config.records
        if record.pier is not None and record.pier.mount is not None
    ]


def remember_mounts(ground: Ground, cache: Cache, config: CacheConfig) -> int:
    """Add a document's cache mounts to the cache, unless it knows them; how many are new. On the loop's thread."""
    fresh = [(key, folder) for key, folder, _ in mounts_of(config) if not cache.has(key)]
    created = {record.digest: record.pier.created_ns for record in config.records if record.pier}
    described = {record.digest: record.pier.description for record in config.records if record.pier}
    for key, folder in fresh:
        record = Record(id=new_id(), keys=[key], type=CACHE_MOUNT, created_ns=created[key], folder=folder)
        record.description, record.used_ns = described[key], ground.clock_ns()
        cache.put(record)
    return len(fresh)


def fill_mounts(ground: Ground, mounts: Sequence[tuple[str, str, Digest]]) -> None:
    """Unpack the cache mounts that are not there yet. Raises BadArchive, OSError."""
    for _, folder, archive in mounts:
        path = os.path.join(ground.data_dir, folder)
        if os.path.isdir(path):
            continue
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        fresh = f"{path}.new"
        make_root(fresh, None)
        fd = os.open(fresh, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with ground.content.open(archive) as reader:
                copy_in(reader, fd, owners=lambda uid, gid: (uid, gid))
        finally:
            os.close(fd)
        os.rename(fresh, path)
