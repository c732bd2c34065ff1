"""`docker image prune`: which images nothing needs, by Docker's filters. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from pier.images.image import Image
from pier.images.listing import created_ns
from pier.model.filters import Filters, pruned_before_ns

FILTERS: Final = ("dangling", "label", "label!", "until")


class Selection:
    """The filters of one request, read once. Raises UnknownFilter, InvalidFilterValue, BadTime, SeveralUntil."""

    def __init__(self, filters: Filters, now_ns: int) -> None:
        filters.validate(FILTERS)
        self._filters = filters
        self._before_ns = pruned_before_ns(filters, now_ns)
        self.dangling_only = filters.boolean("dangling", default=True)
        self.narrowed = any(name in filters for name in FILTERS if name != "dangling")
        """Whether age or labels were asked for."""

    def takes(self, image: Image) -> bool:
        """Whether the image fits; that no container uses it is for others to see."""
        return (
            (not self.dangling_only or not image.tags)
            and (self._before_ns is None or created_ns(image) <= self._before_ns)
            and self._filters.key_values("label", image.labels)
            and self._filters.lacks_key_values("label!", image.labels)
        )


def chosen(images: Iterable[Image], selection: Selection) -> list[Image]:
    """The images that fit, the newest first."""
    return sorted(filter(selection.takes, images), key=lambda image: (-created_ns(image), image.id))
