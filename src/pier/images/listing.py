"""`docker images`: the list, and its filters. Pure functions over the catalogue."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Final

from pier.errors import InvalidParameter
from pier.images.image import Image, familiar
from pier.model.filters import Filters
from pier.model.image import ImageSummary
from pier.model.time import SECOND_NS, BadTime, parse_moment, parse_rfc3339
from pier.oci import Reference

FILTERS: Final = ("before", "dangling", "label", "label!", "reference", "since", "until")


@dataclass(frozen=True, slots=True)
class Listed:
    """An image with what the list says of it beyond its content."""

    image: Image
    size_bytes: int
    containers: int
    shared_bytes: int = -1
    """Of the layers that other images have too; -1: not counted."""
    parent: Image | None = None
    """What it was committed from."""
    has_children: bool = False
    """Whether others were committed from it: without a name it is then only a step between two images."""


def created_ns(image: Image) -> int:
    """When the image was made; 0 where it does not say, or says nonsense."""
    return _moment_ns(image.config.created)


@lru_cache(maxsize=4096)
def _moment_ns(text: str) -> int:
    try:
        return parse_rfc3339(text) if text else 0
    except BadTime:
        return 0


def summaries(
    listed: Iterable[Listed], filters: Filters, find: Callable[[str], Image], *, all: bool = False
) -> list[ImageSummary]:
    """The rows, the newest first; with `all` also the steps between images. `find` resolves what `before` and `since`
    name.

    Raises UnknownFilter, InvalidFilterValue, NoSuchImage, BadTime.
    """
    filters.validate(FILTERS)
    for pattern in filters.get("reference"):
        check_pattern(pattern)
    chosen = Selection.of(filters, find)
    rows = [(item, summary(item, filters)) for item in listed if chosen.takes(item.image)]
    wanted = [row for item, row in rows if _is_shown(row, filters) and not _is_step(item, row, filters, all=all)]
    return sorted(wanted, key=lambda row: (-row.created, row.id))


@dataclass(frozen=True, slots=True)
class Selection:
    """The filters that look at an image and not at its names."""

    filters: Filters
    before_ns: int | None
    since_ns: int | None

    @classmethod
    def of(cls, filters: Filters, find: Callable[[str], Image]) -> Selection:
        before = [created_ns(find(name)) for name in filters.get("before")]
        before += [parse_moment(text) for text in filters.get("until")]
        since = [created_ns(find(name)) for name in filters.get("since")]
        return cls(filters, min(before, default=None), max(since, default=None))

    def takes(self, image: Image) -> bool:
        made_ns = created_ns(image)
        return (
            (self.before_ns is None or made_ns < self.before_ns)
            and (self.since_ns is None or made_ns > self.since_ns)
            and self.filters.key_values("label", image.labels)
            and self.filters.lacks_key_values("label!", image.labels)
        )


def summary(item: Listed, filters: Filters) -> ImageSummary:
    """One row; with a `reference` filter, only the names that match it."""
    image = item.image
    return ImageSummary(
        id=str(image.id),
        containers=item.containers,
        created=created_ns(image) // SECOND_NS,
        labels=image.labels or None,
        repo_digests=_matching(image.digests, filters),
        repo_tags=_matching(image.tags, filters),
        size=item.size_bytes,
        shared_size=item.shared_bytes,
        parent_id=str(item.parent.id) if item.parent else "",
    )


def _matching(names: Iterable[str], filters: Filters) -> list[str]:
    patterns = filters.get("reference")
    if not patterns:
        return list(map(familiar, names))
    references = [Reference.parse(name, default_tag=None) for name in names]
    return [ref.familiar for ref in references if any(reference_matches(ref, p) for p in patterns)]


def reference_matches(reference: Reference, pattern: str) -> bool:
    """Whether a shell pattern matches the short name, with or without its tag; `*` does not cross a `/`."""
    return any(_glob(text, pattern) for text in (reference.familiar, reference.familiar_name))


class BadPattern(InvalidParameter):
    """syntax error in pattern"""


def check_pattern(pattern: str) -> None:
    """Raise BadPattern for a set that is not closed."""
    if re.search(r"\[[^\]]*$", pattern.replace("\\[", "").replace("\\]", "")):
        raise BadPattern


def _glob(text: str, pattern: str) -> bool:
    parts, patterns = text.split("/"), pattern.replace("[^", "[!").split("/")
    return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))


def _is_shown(row: ImageSummary, filters: Filters) -> bool:
    has_name = bool(row.repo_tags or row.repo_digests)
    if "reference" in filters and not has_name:
        return False
    return "dangling" not in filters or filters.boolean("dangling") is not bool(row.repo_tags)


def _is_step(item: Listed, row: ImageSummary, filters: Filters, *, all: bool) -> bool:
    """Whether an image is left out because it only leads to others: it is shown with `all`, but never as dangling."""
    nameless = not row.repo_tags and not row.repo_digests
    return nameless and item.has_children and (not all or filters.boolean("dangling"))
