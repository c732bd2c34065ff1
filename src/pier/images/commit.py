"""`docker commit`: what a container changed becomes a layer, and its configuration that of a new image. Blocks.

Only what the container changed is read (`Snapshotter.diff`), so a small change of a large image is a small deed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from pier import __version__
from pier.errors import NotFound
from pier.images.image import Image
from pier.images.load import Loaded
from pier.model.time import rfc3339_nano
from pier.oci import Descriptor, Digest, ImageConfig, Manifest, RunConfig, chain_ids, decode_manifest, encode
from pier.oci.image_config import History, RootFS
from pier.oci.manifest import (
    DOCKER_FOREIGN_LAYER,
    DOCKER_LAYER,
    MAX_MANIFEST_BYTES,
    OCI_CONFIG,
    OCI_LAYER,
    OCI_MANIFEST,
)
from pier.storage import ContentStore, Snapshotter
from pier.storage.errors import ContentNotFound

_NONDISTRIBUTABLE: Final = "application/vnd.oci.image.layer.nondistributable.v1.tar"
OCI_FORMS: Final[Mapping[str, str]] = {
    DOCKER_LAYER: f"{OCI_LAYER}+gzip",
    "application/vnd.docker.image.rootfs.diff.tar": OCI_LAYER,
    "application/vnd.docker.image.rootfs.diff.tar.zstd": f"{OCI_LAYER}+zstd",
    DOCKER_FOREIGN_LAYER: f"{_NONDISTRIBUTABLE}+gzip",
}
"""Docker's media types of layers -> OCI's for the same bytes: a manifest does not mix the two."""
DOCKER_FORMS: Final[Mapping[str, str]] = {oci: docker for docker, oci in OCI_FORMS.items()}


class BaseImageGone(NotFound):
    """No such image: {id}"""

    remedy = "container {container} was made from it, and it was removed; `docker export` saves the container's files"


@dataclass(frozen=True, slots=True)
class Commit:
    """What is to become an image."""

    container_id: str
    base: Digest
    """Id of the image that the container was made from."""
    config: RunConfig
    """Of the new image."""
    container_config: dict[str, Any]
    """The container's own, as the Engine API writes it; kept in the image for the record."""
    created_by: str
    """The container's command, for the history."""
    author: str = ""
    comment: str = ""


def commit(asked: Commit, base: Image, store: ContentStore, snapshots: Snapshotter, *, now_ns: int) -> Loaded:
    """Make the image; call it inside `store.keep()`. Raises TreeTooDeep, SnapshotNotFound, ContentNotFound, OSError."""
    raw = store.read(base.manifest.digest, limit_bytes=MAX_MANIFEST_BYTES)
    below = decode_manifest(raw, media_type=base.manifest.media_type, what=f"manifest {base.manifest.digest}")
    assert isinstance(below, Manifest)
    for part in below.layers:
        if not store.has(part.digest):  # and from here on nobody sweeps it, should the base be removed meanwhile
            raise ContentNotFound(digest=part.digest)
    layer = _layer(asked, base, store, snapshots)
    config = store.put(encode(document(asked, base.config, layer, now_ns=now_ns)), OCI_CONFIG)
    layers = [*map(oci_form, below.layers), *([layer] if layer else [])]
    manifest = Manifest(schema_version=2, media_type=OCI_MANIFEST, config=config, layers=layers)
    return Loaded(config.digest, store.put(encode(manifest), OCI_MANIFEST), ())


def _layer(asked: Commit, base: Image, store: ContentStore, snapshots: Snapshotter) -> Descriptor | None:
    """What the container changed, as a plain archive in the store and unpacked; None: it changed nothing."""
    with store.ingest() as writer:
        if not snapshots.diff(asked.container_id, base.layers, writer).entries:
            return None
        layer = writer.commit(OCI_LAYER)
    top = chain_ids([*base.config.rootfs.diff_ids, layer.digest])[-1]
    if not snapshots.has_layer(top):
        with store.open(layer.digest) as blob:
            snapshots.unpack(top, base.layers[-1] if base.layers else None, blob)
    return layer


def document(asked: Commit, base: ImageConfig, layer: Descriptor | None, *, now_ns: int) -> ImageConfig:
    """The configuration of the new image: the base's platform, layers and history, and one step more."""
    created = rfc3339_nano(now_ns)
    step = History(
        created=created,
        author=asked.author,
        created_by=asked.created_by,
        comment=asked.comment,
        empty_layer=layer is None,
    )
    return msgspec.structs.replace(
        base,
        created=created,
        author=asked.author,
        container=asked.container_id,
        container_config=asked.container_config,
        docker_version=__version__,
        config=asked.config,
        rootfs=RootFS(diff_ids=[*base.rootfs.diff_ids, *([layer.digest] if layer else [])]),
        history=[*_complete(base), step],
    )


def _complete(base: ImageConfig) -> list[History]:
    """The base's steps, with one for each of its layers that has none: else the new one would be taken for theirs."""
    told = sum(not step.empty_layer for step in base.history)
    return [*base.history, *(History(created=base.created) for _ in base.rootfs.diff_ids[told:])]


def oci_form(layer: Descriptor) -> Descriptor:
    """A layer's descriptor for a manifest of OCI's."""
    return msgspec.structs.replace(layer, media_type=OCI_FORMS.get(layer.media_type, layer.media_type))


def docker_form(layer: Descriptor) -> Descriptor:
    """A layer's descriptor for a manifest of Docker's; a type that Docker has none for stays."""
    return msgspec.structs.replace(layer, media_type=DOCKER_FORMS.get(layer.media_type, layer.media_type))
