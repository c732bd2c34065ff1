"""Is the store whole? What names reach is there and is what its digest says, and nothing else is lying about.

Read only, for `system check` and for tests after a kill or a full disk. A daemon that runs may be looked at too: what
it is writing at the moment is not taken for damage, but what it deletes meanwhile may be.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import msgspec

from pier.errors import PierError
from pier.oci import Descriptor, Digest, Index, Manifest, chain_ids, decode_image_config, decode_manifest
from pier.oci.image_config import MAX_CONFIG_BYTES
from pier.oci.manifest import CONFIG_TYPES, MAX_INDEX_DEPTH, MAX_MANIFEST_BYTES
from pier.storage.content import LAYOUT, ContentStore
from pier.storage.snapshots import Snapshotter
from pier.storage.stream import CHUNK

_HEX: Final = re.compile(r"[0-9a-f]{64,128}")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong."""

    where: str
    """The blob, name, layer or container."""
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


def verify(content: ContentStore, snapshots: Snapshotter, *, deep: bool = True) -> list[Problem]:
    """Everything that is wrong, nothing if all is well; without `deep` blobs are looked at, not read."""
    found = [*_layout(content), *_blobs(content, deep=deep)]
    for root in content.roots():
        found += _reachable(content, snapshots, root, 0)
    return [*found, *_layers(snapshots), *_claims(snapshots)]


def leftovers(content: ContentStore, root_dir: str) -> list[str]:
    """What writes and removals that were cut have left; `root_dir` is the snapshot driver's.

    Nothing after a start that has had time to clean up, but for downloads that can go on, which are not listed.
    """
    folders = [os.path.join(content.root, "ingest"), *(os.path.join(root_dir, name) for name in ("partial", "trash"))]
    paths = [os.path.join(folder, name) for folder in folders for name in os.listdir(folder)]
    return [path for path in paths if not path.endswith(".part")]


def _layout(content: ContentStore) -> Iterator[Problem]:
    try:
        with open(os.path.join(content.root, "oci-layout"), "rb") as file:
            if msgspec.json.decode(file.read(1024)) != msgspec.json.decode(LAYOUT):
                yield Problem("oci-layout", "not that of an OCI image layout 1.0.0")
        with open(os.path.join(content.root, "index.json"), "rb") as file:
            index = msgspec.json.decode(file.read(), type=Index, dec_hook=lambda _, text: Digest(text))
    except (OSError, msgspec.MsgspecError, PierError) as error:
        yield Problem("index.json", str(error))
        return
    if index.manifests != content.roots():
        yield Problem("index.json", "not what the daemon has in memory")


def _blobs(content: ContentStore, *, deep: bool) -> Iterator[Problem]:
    folder = os.path.join(content.root, "blobs")
    for algorithm in os.listdir(folder):
        for name in os.listdir(os.path.join(folder, algorithm)):
            if not _HEX.fullmatch(name):
                yield Problem(f"{algorithm}/{name}", "no blob")
            elif deep:
                yield from _blob(content, Digest(f"{algorithm}:{name}"))
    for digest in content.recipes.all() - content.stored():
        if content.recipes.usable(digest) is None:
            yield Problem(digest, "its recipe cannot be followed: the layer it needs is not there")
        elif deep:
            yield from _blob(content, digest)


def _blob(content: ContentStore, digest: Digest) -> Iterator[Problem]:
    try:
        with content.open(digest) as reader:
            while reader.read(CHUNK):
                pass
    except (PierError, OSError) as error:
        yield Problem(digest, str(error))


def _reachable(content: ContentStore, snapshots: Snapshotter, entry: Descriptor, depth: int) -> Iterator[Problem]:
    """What is below one manifest or index."""
    try:
        raw = content.read(entry.digest, limit_bytes=MAX_MANIFEST_BYTES)
        document = decode_manifest(raw, media_type=entry.media_type, what=entry.digest)
    except (PierError, OSError) as error:
        yield Problem(entry.digest, str(error))
        return
    if len(raw) != entry.size:
        yield Problem(entry.digest, f"{len(raw)} bytes, not the {entry.size} of its descriptor")
    if isinstance(document, Manifest):
        yield from _image(content, snapshots, entry, document)
    elif depth == MAX_INDEX_DEPTH:
        yield Problem(entry.digest, f"indexes nested more than {MAX_INDEX_DEPTH} deep")
    else:
        for child in document.manifests:
            if content.has(child.digest):  # other platforms need not be here
                yield from _reachable(content, snapshots, child, depth + 1)


def _image(content: ContentStore, snapshots: Snapshotter, entry: Descriptor, manifest: Manifest) -> Iterator[Problem]:
    for part in (manifest.config, *manifest.layers):
        try:
            size = content.size(part.digest)
        except PierError as error:
            yield Problem(entry.digest, str(error))
            continue
        if size != part.size:
            yield Problem(part.digest, f"{size} bytes, not the {part.size} of its descriptor")
    if manifest.config.media_type not in CONFIG_TYPES:
        return  # an artifact: nothing of it is unpacked
    try:
        raw = content.read(manifest.config.digest, limit_bytes=MAX_CONFIG_BYTES)
        config = decode_image_config(raw, what=manifest.config.digest)
    except (PierError, OSError) as error:
        yield Problem(manifest.config.digest, str(error))
        return
    for chain_id in chain_ids(config.rootfs.diff_ids):
        if not snapshots.has_layer(chain_id):
            yield Problem(entry.digest, f"its layer {chain_id} is not unpacked")


def _layers(snapshots: Snapshotter) -> Iterator[Problem]:
    for chain_id in snapshots.layers():
        try:
            snapshots.layer_size(chain_id)
            os.close(snapshots.open_layer(chain_id))
        except (PierError, OSError, msgspec.MsgspecError) as error:
            yield Problem(f"layer {chain_id}", str(error))


def _claims(snapshots: Snapshotter) -> Iterator[Problem]:
    for container_id, layers in snapshots.claims().items():
        if layers is None:
            yield Problem(f"container {container_id}", "the record of its layers is unreadable")
            continue
        for chain_id in layers:
            if not snapshots.has_layer(chain_id):
                yield Problem(f"container {container_id}", f"its layer {chain_id} is not there")
