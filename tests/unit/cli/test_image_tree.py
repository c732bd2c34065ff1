"""Wish 10: images below the layers they share."""

from __future__ import annotations

from typing import Any

from pier.cli.image_tree import dot, grow, layer_sizes, tree

A, B, C, D = (f"sha256:{letter * 64}" for letter in "abcd")


def image(number: int, *layers: str, tags: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"Id": f"sha256:{number:064x}", "RepoTags": list(tags), "Size": 5, "RootFS": {"Layers": list(layers)}}


IMAGES = [image(1, A, tags=("base:1",)), image(2, A, B, C, tags=("app:1", "app:2")), image(3, A, D), image(4)]
SIZES = {image["Id"]: [1000, 20, 3][: len(image["RootFS"]["Layers"])] for image in IMAGES}


def test_wish_10_tree() -> None:
    assert tree(grow(IMAGES, SIZES)).splitlines() == [
        "<none> (000000000000, 5B) (no layers)",
        "aaaaaaaaaaaa 1kB",
        "├─ base:1 (000000000000, 5B)",
        "├─ 2 layers to cccccccccccc 23B",
        "│  └─ app:1, app:2 (000000000000, 5B)",
        "└─ dddddddddddd 20B",
        "   └─ <none> (000000000000, 5B)",
    ]


def test_wish_10_graph() -> None:
    text = dot(grow(IMAGES, SIZES))
    assert text.startswith("digraph images {\n")
    assert text.endswith("}\n")
    assert '"/aaaaaaaaaaaa" [shape=box, label="aaaaaaaaaaaa\\n1kB"];' in text
    assert '"/aaaaaaaaaaaa" -> "/aaaaaaaaaaaa/bbbbbbbbbbbb";' in text
    assert f'"/aaaaaaaaaaaa" -> "{IMAGES[0]["Id"]}";' in text
    assert text.count("shape=box") == 4


def test_sizes_of_layers_from_a_history() -> None:
    steps = [{"Size": 3}, {"Size": 0}, {"Size": 20}, {"Size": 1000}]
    assert layer_sizes(steps, 3) == [1000, 20, 3]
    assert layer_sizes(steps, 4) == [0, 1000, 20, 3]
    assert layer_sizes([], 0) == []
