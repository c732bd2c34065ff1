"""`pier images`: the list of images, one row a name."""

from __future__ import annotations

import time

from pier.cli.flags import Command, Flag
from pier.cli.format import filters_query, render, short_id
from pier.cli.out import out
from pier.cli.units import ago, go_time, human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pier.cli.flags import Options
    from pier.cli.format import Fields
    from pier.cli.main import Context

COMMAND = Command(
    "[OPTIONS] [REPOSITORY[:TAG]]",
    flags=(
        Flag("all", "a", "bool", "Show intermediate images too"),
        Flag("digests", "", "bool", "Show digests"),
        Flag("dot", "", "bool", "Show images and the layers they share as a graph for Graphviz"),
        Flag("filter", "f", "filter", "Show only images that fit: dangling=, label=, before=, since=, reference="),
        Flag("format", "", "string", "table, 'table TEMPLATE', json, or a Go template"),
        Flag("no-trunc", "", "bool", "Show IDs in full"),
        Flag("quiet", "q", "bool", "Show only IDs"),
        Flag("tree", "", "bool", "Show images below the layers they share"),
    ),
    arity=(0, 1),
)
NONE = "<none>"
COLUMNS = ("Repository", "Tag", "ID", "CreatedSince", "Size")
WITH_DIGEST = ("Repository", "Tag", "Digest", "ID", "CreatedSince", "Size")


def run(cx: Context, opts: Options, args: list[str]) -> int:
    filters = opts["filter"] + [("reference", name) for name in args]
    images = cx.client.get("/images/json", all=opts["all"], filters=filters_query(filters))
    if opts["tree"] or opts["dot"]:
        return _picture(cx, images, as_graph=opts["dot"])
    layout, trunc = opts["format"], not opts["no-trunc"]
    show_digest = opts["digests"] or ".Digest" in layout
    rows = [row for image in images for row in split_names(image, by_digest=show_digest)]
    if opts["quiet"] and layout in ("", "table"):
        out("".join(f"{short_id(row['Id']) if trunc else row['Id']}\n" for row in rows))
        return 0
    columns = WITH_DIGEST if opts["digests"] else COLUMNS
    out(render(view(time.time(), trunc=trunc), columns, layout, rows, "*formatter.imageContext"))
    return 0


def _picture(cx: Context, images: list[dict[str, Any]], *, as_graph: bool) -> int:
    """The layers are in no list: each image is asked for its own."""
    from pier.cli import image_tree  # noqa: PLC0415 - only here
    from pier.cli.each import path  # noqa: PLC0415

    whole, sizes = [], {}
    for image in images:
        found = cx.client.get(path("images", image["Id"], "json"))
        layers = (found.get("RootFS") or {}).get("Layers") or []
        steps = cx.client.get(path("images", image["Id"], "history")) or []
        sizes[found["Id"]] = image_tree.layer_sizes(steps, len(layers))
        whole.append(found)
    root = image_tree.grow(whole, sizes)
    out(image_tree.dot(root) if as_graph else image_tree.tree(root))
    return 0


def split_names(image: dict[str, Any], *, by_digest: bool) -> list[dict[str, Any]]:
    """One row (the summary with Repository, Tag, Digest) for each name; with `by_digest` one for each digest too."""
    tags = [name for name in image.get("RepoTags") or [] if name != f"{NONE}:{NONE}"]
    digests = [name for name in image.get("RepoDigests") or [] if name != f"{NONE}@{NONE}"]
    if not tags and not digests:
        return [{**image, "Repository": NONE, "Tag": NONE, "Digest": NONE}]
    rows: list[dict[str, Any]] = []
    of_repository: dict[str, list[str]] = {}
    for name in digests:
        repository, _, digest = name.partition("@")
        of_repository.setdefault(repository, []).append(digest)
    for name in tags:
        repository, _, tag = name.rpartition(":")
        found = of_repository.get(repository, [NONE]) if by_digest else [NONE]
        rows += [{**image, "Repository": repository, "Tag": tag, "Digest": digest} for digest in found]
    tagged = {row["Repository"] for row in rows}
    for repository, found in of_repository.items():
        if repository not in tagged:
            shown = found if by_digest else found[:1]
            rows += [{**image, "Repository": repository, "Tag": NONE, "Digest": digest} for digest in shown]
    return rows


def view(now_s: float, *, trunc: bool) -> Fields:
    """The fields of a row of `split_names`."""
    return {
        "ID": ("IMAGE ID", lambda i: short_id(i["Id"]) if trunc else i["Id"]),
        "Repository": ("REPOSITORY", lambda i: i["Repository"]),
        "Tag": ("TAG", lambda i: i["Tag"]),
        "Digest": ("DIGEST", lambda i: i["Digest"]),
        "CreatedSince": ("CREATED", lambda i: ago(i["Created"], now_s) if i["Created"] > 0 else "N/A"),
        "CreatedAt": ("CREATED AT", lambda i: go_time(i["Created"])),
        "Size": ("SIZE", lambda i: human_size(i["Size"], 3)),
        "Containers": ("CONTAINERS", lambda i: "N/A" if i.get("Containers", -1) < 0 else str(i["Containers"])),
        "VirtualSize": ("SIZE", lambda i: human_size(i["Size"])),
        "SharedSize": ("SHARED SIZE", lambda i: "N/A" if i.get("SharedSize", -1) < 0 else human_size(i["SharedSize"])),
        "UniqueSize": ("UNIQUE SIZE", unique_size),
    }


def unique_size(image: dict[str, Any]) -> str:
    shared = image.get("SharedSize", -1)
    return "N/A" if shared < 0 else human_size(image["Size"] - shared)
