"""Results of build steps: file trees as stacks of layers, or as a folder that a client's files were put into."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from pier.builder.entries import Entry
from pier.oci import Descriptor, Digest, chain_ids


class LayerRef(msgspec.Struct, frozen=True, omit_defaults=True):
    """One layer of a tree."""

    diff_id: Digest
    blob: Descriptor | None = None
    """The layer's archive as it came, with an image; None: made of the layer's tree when somebody wants it."""
    created_ns: int = 0
    """When the step ran that made it; 0: not known."""


class Tree(msgspec.Struct, frozen=True, omit_defaults=True):
    """Layers over one another, the base first; none: an empty tree. They are unpacked when a step has given this."""

    layers: tuple[LayerRef, ...] = ()
    gaps: tuple[int, ...] = ()
    """For each step that has changed nothing: how many layers there were then. Histories tell of such steps."""

    @property
    def slots(self) -> list[LayerRef | None]:
        """The steps that might have made a layer, in order; None: it has not."""
        found: list[LayerRef | None] = []
        for number in range(len(self.layers) + 1):
            found += [None] * self.gaps.count(number)
            found += self.layers[number : number + 1]
        return found

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
        """The tree after a step that has made a layer, or none."""
        if layer is None:
            return Tree(self.layers, (*self.gaps, len(self.layers)))
        return Tree((*self.layers, layer), self.gaps)


SCRATCH: Final = Tree()


@dataclass(frozen=True, slots=True)
class Folder:
    """Files of a client in a directory of the builder's, for as long as the build runs."""

    path: str
    key: str
    """Digest of the content."""
    received_bytes: int = 0
    """What came over from the client for this build."""
    contents: Callable[[], Mapping[str, tuple[Entry, str]]] | None = field(default=None, compare=False, repr=False)
    """What is known of the files: path -> (file, sha256 of its content in hexadecimal). Blocking."""


Result = Tree | Folder
