"""Which images were committed from which: Docker's parents and children. Pure; a view of one moment.

An image depends on no other here, since layers are counted by who reaches them. But Docker's clients are shown parents,
are refused the removal of an image that others were made from, and see nameless images between two others go with the
last of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet

from pier.images.image import Image
from pier.oci import Digest
from pier.oci.digest import InvalidDigest


class Family:
    """The images that are here, and what each was committed from."""

    def __init__(self, images: Mapping[Digest, Image], parent_of: Callable[[Digest], str]) -> None:
        """`parent_of` gives the id of the image that one was committed from, here or not; empty: none."""
        self._images = images
        self._parents: dict[Digest, Digest] = {}
        self._children: dict[Digest, set[Digest]] = {}
        for image_id in images:
            parent = _digest(parent_of(image_id))
            if parent is not None and parent in images and parent != image_id:
                self._parents[image_id] = parent
                self._children.setdefault(parent, set()).add(image_id)

    def parent(self, image_id: Digest) -> Image | None:
        parent = self._parents.get(image_id)
        return self._images[parent] if parent is not None else None

    def has_children(self, image_id: Digest, *, but: AbstractSet[Digest] = frozenset()) -> bool:
        """Whether any image but these was committed from it."""
        return bool(self._children.get(image_id, set()) - but)

    def ancestors(self, image_id: Digest) -> list[Image]:
        """What it was committed from, and so on; the nearest first."""
        found: list[Image] = []
        parent = self.parent(image_id)
        while parent is not None and parent not in found:
            found.append(parent)
            parent = self.parent(parent.id)
        return found

    def orphans(
        self, image_id: Digest, is_used: Callable[[Image], bool], *, gone: AbstractSet[Digest] = frozenset()
    ) -> list[Image]:
        """The ancestors that go with an image: nameless, unused, and with no children but it and those in `gone`.

        The nearest first.
        """
        gone = {*gone, image_id}
        found: list[Image] = []
        for ancestor in self.ancestors(image_id):
            if ancestor.names or is_used(ancestor) or self.has_children(ancestor.id, but=gone):
                break
            found.append(ancestor)
            gone.add(ancestor.id)
        return found


def _digest(text: str) -> Digest | None:
    try:
        return Digest(text) if text else None
    except InvalidDigest:
        return None
