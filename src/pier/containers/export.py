"""`docker export`: a container's whole tree as an archive, running or not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from pier.containers.world import Container, World
from pier.errors import Conflict
from pier.oci.digest import Digest
from pier.storage.outflow import outflow
from pier.storage.tar_writer import Sink, TarWriter
from pier.storage.tree_tar import write_tree


class NotExportable(Conflict):
    """You cannot export container {id} which {state}"""


_STATES = {"dead": "is Dead", "removing": "is being removed"}


async def export(world: World, container: Container) -> AsyncIterator[bytes]:
    """The archive in pieces: image and changes, not what is mounted in it. Raises NotExportable, TreeTooDeep."""

    record = container.record
    if record.state.status in _STATES:
        raise NotExportable(id=record.id, state=_STATES[record.state.status])
    layers = [Digest(layer) for layer in record.layers]

    def work(sink: Sink) -> None:
        with world.snapshots.view(container.id, layers) as root_fd:
            write_tree(root_fd, TarWriter(sink))

    async with aclosing(outflow(work, name="export")) as pieces:
        async for piece in pieces:
            yield piece
    world.publish(container, "export")
