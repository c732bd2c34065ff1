"""MergeOp and DiffOp: layers over one another, and what one tree has that another has not."""

from __future__ import annotations

from collections.abc import Sequence

from pier.builder import layers
from pier.builder.graph import Diff, Merge
from pier.builder.ground import Ground
from pier.builder.solver import Work
from pier.builder.tree import SCRATCH, Result, Tree
from pier.oci.manifest import OCI_LAYER
from pier.storage import tree_diff
from pier.storage.tar_writer import TarWriter


class MergeSteps:
    """The executor of Merge operations: no file is read, where the layers are unpacked in that order already."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground

    async def __call__(self, work: Work) -> Sequence[Tree]:
        assert isinstance(work.vertex.op, Merge)
        inputs = [work.inputs[index] if index >= 0 else SCRATCH for index in work.vertex.op.inputs]
        return [await self._ground.in_thread(merged, self._ground, inputs)]


class DiffSteps:
    """The executor of Diff operations."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground

    async def __call__(self, work: Work) -> Sequence[Tree]:
        op = work.vertex.op
        assert isinstance(op, Diff)
        lower, upper = (work.inputs[index] if index >= 0 else SCRATCH for index in (op.lower, op.upper))
        return [await self._ground.in_thread(difference, self._ground, lower, upper)]


def merged(ground: Ground, inputs: Sequence[Result]) -> Tree:
    """The inputs' layers over one another. Blocks. Raises LayerNotFound, BadArchive, OSError."""
    trees = [layers.as_tree(ground, each) for each in inputs]
    result = trees[0] if trees else SCRATCH
    for tree in trees[1:]:
        result = _on_top(ground, result, tree, 0)
    return result


def difference(ground: Ground, lower: Result, upper: Result) -> Tree:
    """The layers of `upper` over `lower` where it is built on that; else one layer with what differs. Blocks."""
    below, above = layers.as_tree(ground, lower), layers.as_tree(ground, upper)
    if above.layers[: len(below.layers)] == below.layers or above.diff_ids[: len(below.layers)] == below.diff_ids:
        return _on_top(ground, SCRATCH, above, len(below.layers))
    return flattened(ground, SCRATCH, above, below)


def flattened(ground: Ground, base: Tree, tree: Tree, below: Tree | None = None) -> Tree:
    """`base` and one layer with what `tree` has that `below` (None: `base`) has not. Blocks."""
    with (
        layers.shown(ground, base if below is None else below) as old,
        layers.shown(ground, tree) as new,
        ground.content.ingest() as writer,
    ):
        if not tree_diff.write_layer(old, new, TarWriter(writer)).entries:
            return base
        return layers.unpacked(ground, base, writer.commit(OCI_LAYER))


def _on_top(ground: Ground, base: Tree, tree: Tree, first: int) -> Tree:
    """The layers of `tree` from number `first` on, over `base`."""
    chain = tree.chain
    for index, layer in enumerate(tree.layers[first:], first):
        base = layers.stack(ground, base, layer, chain[index - 1] if index else None)
    return base
