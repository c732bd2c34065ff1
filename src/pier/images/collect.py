"""What no image needs any more, found by mark and sweep over the content store and the layers. Blocks."""

from __future__ import annotations

import logging

from pier.images.catalog import Catalog, read_catalog
from pier.oci import Digest
from pier.storage import ContentStore, Snapshotter

log = logging.getLogger(__name__)


def collect(store: ContentStore, snapshots: Snapshotter, before: Catalog) -> set[Digest] | None:
    """Delete unreachable blobs and layers; returns the chain ids of the layers, None where it was not the moment.

    Loads and pulls go on meanwhile: what they have met is spared by their leases, and `Leases.take_spared` says that
    it was. Nothing is deleted while an image is damaged: what belongs to that one cannot be told.
    """
    with store.exclusive():
        catalog = read_catalog(store, before)
        if catalog.damaged:
            log.warning("nothing is cleaned up while %d images are damaged", len(catalog.damaged))
            return None
        images = catalog.images.values()
        store.sweep(digest for image in images for digest in image.content)
        wanted = {chain_id for image in images for chain_id in image.all_layers}
        return snapshots.sweep_layers(wanted | store.recipes.layers())
