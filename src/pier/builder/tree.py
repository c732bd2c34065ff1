"""Results of build steps: file trees as stacks of layers, or as a folder that a client's files were put into."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

from pier.oci import Descriptor, Digest, chain_ids


class LayerRef(msgspec.Struct, frozen=True, omit_defaults=True):
    """One layer of a tree."""

    diff_id: Digest
    blob: Descriptor | None = None
    """The layer's archive as it came, with an image; None: made of the layer's tree when somebody wants it."""
    created_ns: int = 0
    """When the step ran that made it; 0: not known."""


class Tree(msgspec.Struct, frozen=True):
    """Layers over one another, the base first; none: an empty tree. They are unpacked when a step has given this."""

    layers: tuple[LayerRef, ...] = ()

    @property
    def diff_ids(self) -> list[Digest]:
        return [layer.diff_id for layer in self.layers]

    @property
    def chain(self) -> list[Digest]:
        """Chain ids, the base first: the layers' names among the snapshots."""
        return chain_ids(self.diff_ids)

    @property
    def key(self) -> str:
        """What the tree is, by its content."""
        return str(self.chain[-1]) if self.layers else "scratch"

    def with_layer(self, layer: LayerRef | None) -> Tree:
        """The tree with one layer more; None: the same."""
        return self if layer is None else Tree((*self.layers, layer))


SCRATCH: Final = Tree()


@dataclass(frozen=True, slots=True)
class Folder:
    """Files of a client in a directory of the builder's, for as long as the build runs."""

    path: str
    key: str
    """Digest of the content."""


Result = Tree | Folder
