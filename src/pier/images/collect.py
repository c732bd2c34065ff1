"""What no image needs any more, found by mark and sweep over the content store and the layers. Blocks."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

from pier.errors import NotFound
from pier.images.catalog import Catalog, read_catalog
from pier.oci import Digest
from pier.storage import ContentStore, Snapshotter

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Collected:
    """What went."""

    layers: frozenset[Digest] = frozenset()
    """Chain ids."""
    bytes: int = 0
    """What the blobs took, and the files of the layers."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What somebody else than an image needs."""

    blobs: frozenset[Digest] = frozenset()
    layers: frozenset[Digest] = frozenset()
    """Chain ids."""


NOTHING: Final = Kept()


def collect(store: ContentStore, snapshots: Snapshotter, before: Catalog, kept: Kept = NOTHING) -> Collected:
    """Delete unreachable blobs and layers.

    Loads and pulls go on meanwhile: what they have met is spared by their leases, and `Leases.take_spared` says that
    it was. Nothing is deleted while an image is damaged: what belongs to that one cannot be told.
    """
    with store.exclusive():
        catalog = read_catalog(store, before)
        if catalog.damaged:
            log.warning("nothing is cleaned up while %d images are damaged", len(catalog.damaged))
            return Collected()
        images = catalog.images.values()
        blobs = store.sweep(kept.blobs.union(*(image.content for image in images)))
        wanted = kept.layers.union(*(image.all_layers for image in images), store.recipes.layers())
        sizes = {chain_id: _size(snapshots, chain_id) for chain_id in snapshots.layers() - wanted}
        layers = snapshots.sweep_layers(wanted)
        return Collected(frozenset(layers), sum(blobs.values()) + sum(sizes.get(layer, 0) for layer in layers))


def _size(snapshots: Snapshotter, chain_id: Digest) -> int:
    try:
        return snapshots.layer_sizes(chain_id)[1]
    except NotFound:  # removed meanwhile
        return 0
