"""Images and the layers they share, as a tree of text or a graph for Graphviz (wish 10). Pure."""

from __future__ import annotations

from pier.cli.format import short_id
from pier.cli.units import human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Node:
    """A layer over those on the way to it; `images` end here."""

    __slots__ = ("below", "images", "layer", "size")

    def __init__(self, layer: str, size: int) -> None:
        self.layer = layer
        self.size = size
        self.images: list[dict[str, Any]] = []
        self.below: dict[str, Node] = {}


def grow(images: list[dict[str, Any]], sizes: dict[str, list[int]]) -> Node:
    """The tree of images (inspect answers); `sizes`: image id -> bytes of each of its layers, the base first."""
    root = Node("", 0)
    for image in images:
        node = root
        layers = (image.get("RootFS") or {}).get("Layers") or []
        for layer, size in zip(layers, sizes[image["Id"]], strict=True):
            node = node.below.setdefault(layer, Node(layer, size))
        node.images.append(image)
    return root


def layer_sizes(steps: list[dict[str, Any]], count: int) -> list[int]:
    """Bytes of each of `count` layers, from a history (newest first): the steps that are not empty, in order.

    A layer without content looks like an empty step; then the sizes that are known stand at the top.
    """
    found = [step["Size"] for step in reversed(steps) if step["Size"]]
    return [0] * (count - len(found)) + found[-count:] if count else []


def tree(root: Node) -> str:
    """Layers indented below what they stand on; runs of layers that only lead on are one line."""
    lines: list[str] = []
    for image in root.images:
        lines.append(f"{_names(image)} (no layers)")
    for node in root.below.values():
        _draw(node, lines, "", "")
    return "".join(f"{line}\n" for line in lines)


def _draw(node: Node, lines: list[str], first: str, rest: str) -> None:
    count, size = 1, node.size
    while not node.images and len(node.below) == 1:
        node = next(iter(node.below.values()))
        count, size = count + 1, size + node.size
    several = f"{count} layers to " if count > 1 else ""
    lines.append(f"{first}{several}{short_id(node.layer)} {human_size(size, 3)}")
    children: list[Any] = [*node.images, *node.below.values()]
    for number, child in enumerate(children):
        last = number == len(children) - 1
        branch, further = ("└─ ", "   ") if last else ("├─ ", "│  ")
        if isinstance(child, Node):
            _draw(child, lines, rest + branch, rest + further)
        else:
            lines.append(f"{rest}{branch}{_names(child)}")


def _names(image: dict[str, Any]) -> str:
    names = ", ".join(image.get("RepoTags") or image.get("RepoDigests") or ["<none>"])
    return f"{names} ({short_id(image['Id'])}, {human_size(image.get('Size', 0), 3)})"


def dot(root: Node) -> str:
    """The same as a digraph: layers are boxes, images ellipses."""
    lines = ["digraph images {", "  rankdir=LR;", "  node [fontname=monospace];"]
    stack = [(root, "")]
    while stack:
        node, name = stack.pop()
        for image in node.images:
            label = "\\n".join([*(image.get("RepoTags") or ["<none>"]), short_id(image["Id"])])
            lines.append(f'  "{image["Id"]}" [label="{_escaped(label)}"];')
            if name:
                lines.append(f'  "{name}" -> "{image["Id"]}";')
        for layer, child in node.below.items():
            key = f"{name}/{short_id(layer)}"
            lines.append(f'  "{key}" [shape=box, label="{short_id(layer)}\\n{human_size(child.size, 3)}"];')
            if name:
                lines.append(f'  "{name}" -> "{key}";')
            stack.append((child, key))
    return "\n".join([*lines, "}"]) + "\n"


def _escaped(text: str) -> str:
    return text.replace('"', '\\"')
