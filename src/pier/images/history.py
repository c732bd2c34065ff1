"""`docker history`: the steps an image was made in, newest first, each with what its layer takes. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from pier.images.image import Image
from pier.images.listing import created_ns
from pier.model.image import ImageHistoryResponseItem
from pier.model.time import SECOND_NS, BadTime, parse_rfc3339
from pier.oci import Digest
from pier.oci.image_config import History

MISSING: Final = "<missing>"
"""In place of an id, for a step that no image here stands for."""


def history(
    image: Image, ancestors: Sequence[Image], layer_size: Callable[[Digest], int]
) -> list[ImageHistoryResponseItem]:
    """The answer of GET /images/{name}/history.

    `ancestors` are the images that this one was committed from, the nearest first: their last steps carry their ids.
    Layers that the document has no step for come first, without words. `layer_size` gives the bytes of a layer by its
    chain id.
    """
    layers = iter(image.layers)
    steps = image.config.history or [History(created=image.config.created) for _ in image.layers]
    rows = [_step(step, None if step.empty_layer else next(layers, None), layer_size) for step in steps]
    rows += [ImageHistoryResponseItem(size=layer_size(chain_id), id=MISSING) for chain_id in layers]
    if not rows:
        rows = [ImageHistoryResponseItem(created=created_ns(image) // SECOND_NS)]
    for owner, row in _owners(image, ancestors, len(rows)):
        rows[row].id, rows[row].tags = str(owner.id), owner.repo_tags or None
    return rows[::-1]


def _step(step: History, chain_id: Digest | None, layer_size: Callable[[Digest], int]) -> ImageHistoryResponseItem:
    return ImageHistoryResponseItem(
        comment=step.comment,
        created=_seconds(step.created),
        created_by=step.created_by,
        id=MISSING,
        size=layer_size(chain_id) if chain_id is not None else 0,
    )


def _owners(image: Image, ancestors: Sequence[Image], count: int) -> Iterator[tuple[Image, int]]:
    """Each image with the index of its last step, among `count` steps the oldest first."""
    yield image, count - 1
    for ancestor in ancestors:
        steps = len(ancestor.config.history) or len(ancestor.layers)
        if 0 < steps < count:
            yield ancestor, steps - 1


def _seconds(text: str) -> int:
    """A step's time; 0 where it has none, or nonsense."""
    try:
        return parse_rfc3339(text) // SECOND_NS if text else 0
    except BadTime:
        return 0
