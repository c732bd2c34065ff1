"""What images take on disk: the files of their layers, each counted once, and the blobs in the content store.

Layers never change, so what one takes is read once. Bytes are those on disk where that differs from a file's length
(trap T13).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pier.errors import NotFound
from pier.images.image import Image
from pier.oci import Digest
from pier.storage import ContentStore, Snapshotter


class LayerSizes:
    """Bytes of the files of layers, by chain id; reading one the first time blocks."""

    def __init__(self, snapshots: Snapshotter) -> None:
        self._snapshots = snapshots
        self._known: dict[Digest, tuple[int, int]] = {}

    def of(self, chain_id: Digest) -> int:
        """Their lengths, as Docker counts; a layer that is missing counts nothing."""
        return self._both(chain_id)[0]

    def on_disk(self, chain_id: Digest) -> int:
        """The same without holes."""
        return self._both(chain_id)[1]

    def _both(self, chain_id: Digest) -> tuple[int, int]:
        sizes = self._known.get(chain_id)
        if sizes is None:
            try:
                sizes = self._snapshots.layer_sizes(chain_id)
            except NotFound:
                return 0, 0
            self._known[chain_id] = sizes
        return sizes

    def image(self, image: Image) -> int:
        """All layers of an image."""
        return sum(map(self.of, image.layers))

    def know(self, images: Iterable[Image]) -> bool:
        """Whether nothing has to be read for these."""
        return all(chain_id in self._known for image in images for chain_id in image.layers)

    def forget(self, chain_ids: Iterable[Digest]) -> None:
        """These layers are gone."""
        for chain_id in chain_ids:
            self._known.pop(chain_id, None)


def shared_bytes(images: Iterable[Image], sizes: LayerSizes) -> Mapping[Digest, int]:
    """Image id -> bytes of those of its layers that other images have too."""
    images = list(images)
    owners = Counter(chain_id for image in images for chain_id in set(image.layers))
    return {image.id: sum(sizes.of(layer) for layer in image.layers if owners[layer] > 1) for image in images}


@dataclass(frozen=True, slots=True)
class Usage:
    """All images together, in bytes on disk."""

    layers: int
    """Files of unpacked layers."""
    blobs: int
    """The content store: what is pushed and saved."""
    reclaimable: int
    """Layers and blobs that no container needs."""

    @property
    def total(self) -> int:
        return self.layers + self.blobs


def disk_usage(
    images: Iterable[Image], used: Iterable[Digest], sizes: LayerSizes, content: ContentStore, snapshots: Snapshotter
) -> Usage:
    """Measure; `used` are the ids of images with containers. Blocks.

    All layers count that are here: a container keeps those of its image also when that is gone.
    """
    held = set(used)
    kept = [image for image in images if held & {image.id, *(other.id for other in image.others)}]
    kept_blobs = {blob for image in kept for blob in image.content}
    kept_layers = {layer for layers in snapshots.claims().values() for layer in layers or ()}
    blobs = {blob: content.taken(blob) for blob in content.blobs()}
    layers = {layer: sizes.on_disk(layer) for layer in snapshots.layers()}
    free_layers = sum(size for layer, size in layers.items() if layer not in kept_layers)
    free_blobs = sum(size for blob, size in blobs.items() if blob not in kept_blobs)
    return Usage(sum(layers.values()), sum(blobs.values()), free_layers + free_blobs)
