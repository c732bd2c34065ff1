"""What a container keeps in places that are declared as data (`VOLUME`), and that goes with it (trap 28)."""

from __future__ import annotations

import os

from pier.containers.inherited import mounts_of
from pier.containers.record import Record
from pier.containers.spec_mounts import tmpfs_mounts
from pier.containers.world import World
from pier.errors import Conflict
from pier.kernel.paths import closing, open_in_root
from pier.oci.digest import Digest
from pier.storage.trees import tree_size

WORTH_A_WORD_BYTES = 1_000_000


class HoldsData(Conflict):
    """cannot remove container "{ref}": {held} would be lost: declared as data, and kept in the container's own layer"""

    remedy = (
        "`pier volume from {ref}:{path} VOLUME` keeps it in a volume, `pier commit {ref} IMAGE` in an image, "
        "`pier rm --force {ref}` removes it all the same; the next time mount something there: `-v DIR:{path}`"
    )


def declared(record: Record) -> list[str]:
    """The places declared as data on which nothing is mounted, so that what is written there is in the layer."""
    mounted = {mount.target for mount in (*mounts_of(record), *tmpfs_mounts(record.host_config))}
    places = {os.path.normpath(path) for path in record.config.volumes or ()}
    return sorted(places - mounted)


def held(world: World, record: Record) -> dict[str, int]:
    """Place -> bytes that the container has there beyond its image, if worth a word. Blocking. Raises OSError."""
    places = declared(record)
    if not places:
        return {}
    layers = [Digest(layer) for layer in record.layers]
    with world.snapshots.view(record.id, layers) as own, world.snapshots.layer_view(layers) as image:
        found = {path: _size(own, path) - _size(image, path) for path in places}
    return {path: size for path, size in found.items() if size > WORTH_A_WORD_BYTES}


def _size(tree: int, path: str) -> int:
    try:
        with closing(open_in_root(tree, path, os.O_PATH | os.O_DIRECTORY)) as fd:
            return tree_size(f"/proc/self/fd/{fd}/.")
    except OSError:
        return 0


def refuse(world: World, record: Record, ref: str) -> None:
    """Raises HoldsData where there is something to lose. Blocking."""
    found = held(world, record)
    if found:
        text = ", ".join(f"{size / 1e6:.1f} MB in {path}" for path, size in found.items())
        raise HoldsData(ref=ref, held=text, path=next(iter(found)))
