"""`pier container prune`, `pier image prune`, `pier volume prune`: remove what nothing uses, after a question.

All of it: `system_prune`.
"""

from __future__ import annotations

import os

from pier.cli.flags import Command, Flag
from pier.cli.format import filters_query
from pier.cli.out import line, out
from pier.cli.units import human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pier.cli.flags import Options
    from pier.cli.main import Context

COMMAND = Command(
    "[OPTIONS]",
    flags=(
        Flag("all", "a", "bool", "Images, volumes: remove all unused ones, not only those without a name"),
        Flag("filter", "", "filter", "Only what fits: until=, label="),
        Flag("force", "f", "bool", "Do not ask"),
    ),
)
_QUESTIONS = {
    "container": "WARNING! This will remove all stopped containers.",
    "image": "WARNING! This will remove all dangling images.",
    "image -a": "WARNING! This will remove all images without at least one container associated to them.",
    "volume": "WARNING! This will remove anonymous local volumes not used by at least one container.",
    "volume -a": "WARNING! This will remove all local volumes not used by at least one container.",
}
_LISTS = {
    "container": ("ContainersDeleted", "Deleted Containers:"),
    "network": ("NetworksDeleted", "Deleted Networks:"),
    "volume": ("VolumesDeleted", "Deleted Volumes:"),
    "build": ("CachesDeleted", "Deleted build cache objects:"),
}


def run(cx: Context, opts: Options, args: list[str]) -> int:
    kind = cx.path.partition(" ")[0]
    everything = kind in ("image", "volume") and opts["all"]
    if not opts["force"] and not confirmed(_QUESTIONS[f"{kind} -a" if everything else kind]):
        return 0
    filters = list(opts["filter"])
    if kind == "volume" and everything:
        filters.append(("all", "true"))
    if kind == "image":
        filters.append(("dangling", "false" if everything else "true"))
    answer = cx.client.post(f"/{kind}s/prune", filters=filters_query(filters))
    for text in removed(kind, answer):
        line(text)
    line(f"Total reclaimed space: {human_size(answer.get('SpaceReclaimed', 0))}")
    return 0


def confirmed(question: str) -> bool:
    out(f"{question}\nAre you sure you want to continue? [y/N] ")
    return os.read(0, 16).strip().lower() in (b"y", b"yes")


def removed(kind: str, answer: dict[str, Any]) -> list[str]:
    """What the daemon says it removed, under a title; nothing when it removed nothing."""
    if kind in _LISTS:
        key, title = _LISTS[kind]
        items = answer.get(key) or []
        return [title, *items, ""] if items else []
    items = [
        f"untagged: {item['Untagged']}" if item.get("Untagged") else f"deleted: {item['Deleted']}"
        for item in answer.get("ImagesDeleted") or []
    ]
    return ["Deleted Images:", *items, ""] if items else []
