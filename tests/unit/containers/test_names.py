"""How a reference finds its container."""

from __future__ import annotations

import pytest

from pier.containers.names import AmbiguousPrefix, NoSuchContainer, find

WEB, DATABASE = "ab" + 62 * "0", "ac" + 62 * "0"


@pytest.mark.parametrize(
    ("ref", "id"), [(WEB, WEB), ("web", WEB), ("/web", WEB), ("ab", WEB), ("ac0", DATABASE), ("ac", DATABASE)]
)
def test_find(ref: str, id: str) -> None:
    assert find(ref, (WEB, DATABASE), {"web": WEB}) == id


def test_find_an_ambiguous_beginning() -> None:
    with pytest.raises(AmbiguousPrefix):
        find("a", (WEB, DATABASE), {})


@pytest.mark.parametrize("ref", ["", "nope", "b", "making"])
def test_find_nothing(ref: str) -> None:
    """`making` is reserved for a container that is not written yet."""
    with pytest.raises(NoSuchContainer):
        find(ref, (WEB, DATABASE), {"web": WEB, "making": 64 * "f"})
