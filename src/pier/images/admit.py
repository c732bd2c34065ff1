"""A manifest whose blobs are all in the content store becomes an image: checked against its configuration, unpacked.

Shared by load, import and pull. Blocks; call it in a thread, inside `ContentStore.keep()`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from pier.images.image import check_layer_count
from pier.images.progress import Counted
from pier.oci import Descriptor, Digest, ImageConfig, Manifest, chain_ids, decode_image_config
from pier.oci.digest import hasher
from pier.oci.image_config import MAX_CONFIG_BYTES
from pier.storage import ContentStore, Snapshotter
from pier.storage.compression import decompressed
from pier.storage.errors import ContentMismatch
from pier.storage.stream import CHUNK

LayerProgress = Callable[[Digest, int, int], None]
"""Called with diff_id, bytes read of the blob, bytes of the blob."""


def admit(
    store: ContentStore, snapshots: Snapshotter, manifest: Manifest, *, what: str, progress: LayerProgress | None = None
) -> ImageConfig:
    """Verify an image's parts and unpack the layers that are not there yet; returns its configuration.

    `what` names the image in messages. Raises MalformedDocument, ContentNotFound, ContentMismatch, BadArchive.
    """
    config = decode_image_config(store.read(manifest.config.digest, limit_bytes=MAX_CONFIG_BYTES), what=what)
    check_layer_count(manifest, config, what)
    for part in (manifest.config, *manifest.layers):
        check_size(store, part)
    parent: Digest | None = None
    diff_ids = config.rootfs.diff_ids
    for layer, diff_id, chain_id in zip(manifest.layers, diff_ids, chain_ids(diff_ids), strict=True):
        if snapshots.has_layer(chain_id):
            check_diff_id(store, layer, diff_id)
        else:
            report = partial(progress, diff_id) if progress else _silent
            with store.open(layer.digest) as reader:
                snapshots.unpack(chain_id, parent, Counted(reader, layer.size, report))
        parent = chain_id
    return config


def check_size(store: ContentStore, part: Descriptor) -> None:
    """Raise ContentMismatch where a blob is not as long as its descriptor says, ContentNotFound where it is missing."""
    found = store.size(part.digest)
    if found != part.size:
        raise ContentMismatch(digest=part.digest, reason=f"{found} bytes, not the {part.size} of its descriptor")


def _silent(_current: int, _total: int) -> None:
    pass


def check_diff_id(store: ContentStore, layer: Descriptor, diff_id: Digest) -> None:
    """Raise ContentMismatch unless a blob unpacks to `diff_id`: that the layer is there already vouches for no blob."""
    if layer.digest == diff_id:
        return
    with store.open(layer.digest) as reader:
        _, plain = decompressed(reader)
        state = hasher(diff_id.algorithm)
        while data := plain.read(CHUNK):
            state.update(data)
    found = Digest.finish(state)
    if found != diff_id:
        raise ContentMismatch(digest=layer.digest, reason=f"it unpacks to {found}, not {diff_id}")
