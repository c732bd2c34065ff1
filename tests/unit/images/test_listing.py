"""The list's filters and rows."""

from __future__ import annotations

import pytest

from pier.images.image import Image
from pier.images.listing import BadPattern, Listed, reference_matches, summaries
from pier.images.progress import advance, bar
from pier.model.filters import Filters, UnknownFilter
from pier.oci import Descriptor, Digest, ImageConfig, Reference, RunConfig
from pier.oci.image_config import RootFS


def image(number: int, *tags: str, labels: dict[str, str] | None = None) -> Image:
    digest = Digest(f"sha256:{number:064x}")
    created = f"2024-01-0{number}T00:00:00Z" if number else ""
    config = ImageConfig(
        created=created, architecture="amd64", os="linux", rootfs=RootFS(), config=RunConfig(labels=labels or {})
    )
    target = Descriptor(media_type="", digest=digest, size=0)
    return Image(digest, config, [], target, target, frozenset(), frozenset(), tags=tags)


IMAGES = [
    image(1, "docker.io/library/old:1"),
    image(2, "docker.io/library/new:1", "docker.io/user/new:2", labels={"a": "b"}),
    image(3),
    image(0, "localhost:5000/x/y:latest", labels={"a": "c"}),
]


def find(text: str) -> Image:
    return next(item for item in IMAGES if any(Reference.parse(text) == Reference.parse(tag) for tag in item.tags))


def rows(**terms: tuple[str, ...]) -> list[list[str]]:
    listed = [Listed(item, 10, 0) for item in IMAGES]
    return [row.repo_tags for row in summaries(listed, Filters(terms), find)]


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        ({}, [[], ["new:1", "user/new:2"], ["old:1"], ["localhost:5000/x/y:latest"]]),
        ({"dangling": ("true",)}, [[]]),
        ({"dangling": ("0",)}, [["new:1", "user/new:2"], ["old:1"], ["localhost:5000/x/y:latest"]]),
        ({"label": ("a",)}, [["new:1", "user/new:2"], ["localhost:5000/x/y:latest"]]),
        ({"label": ("a=b",)}, [["new:1", "user/new:2"]]),
        ({"label!": ("a",)}, [[], ["old:1"]]),
        ({"before": ("new:1",)}, [["old:1"], ["localhost:5000/x/y:latest"]]),
        ({"since": ("old:1",)}, [[], ["new:1", "user/new:2"]]),
        ({"until": ("2024-01-02T00:00:00Z",)}, [["old:1"], ["localhost:5000/x/y:latest"]]),
        ({"reference": ("new",)}, [["new:1"]]),
        ({"reference": ("*/new",)}, [["user/new:2"]]),
        ({"reference": ("*:1",)}, [["new:1"], ["old:1"]]),
        ({"reference": ("nothing",)}, []),
    ],
)
def test_filters(terms: dict[str, tuple[str, ...]], expected: list[list[str]]) -> None:
    assert rows(**terms) == expected


def test_a_pattern_that_is_none_is_refused() -> None:
    with pytest.raises(BadPattern, match="syntax error in pattern"):
        rows(reference=("[",))


def test_unknown_filters_are_refused() -> None:
    with pytest.raises(UnknownFilter, match="invalid filter 'colour'"):
        rows(colour=("red",))


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [("b*", True), ("busybox:l[a-c]test", True), ("b?sybox", True), ("*/busybox", False), ("busybox:1", False)],
)
def test_reference_patterns(pattern: str, matches: bool) -> None:
    assert reference_matches(Reference.parse("busybox"), pattern) is matches


def test_progress_as_docker_shows_it() -> None:
    assert bar(32768, 2293760) == "[>" + 50 * " " + "]  32.77kB/2.294MB"
    assert bar(2293760, 2293760) == "[" + 50 * "=" + ">]  2.294MB/2.294MB"
    assert advance("Loading layer", "daa642960fe7", 5, 10) == {
        "status": "Loading layer",
        "progressDetail": {"current": 5, "total": 10},
        "progress": "[" + 25 * "=" + ">" + 25 * " " + "]       5B/10B",
        "id": "daa642960fe7",
    }
