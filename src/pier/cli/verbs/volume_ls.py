"""`pier volume ls`: the list of volumes."""

from __future__ import annotations

from pier.cli.flags import Command, Flag
from pier.cli.format import filters_query, render
from pier.cli.out import out

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pier.cli.flags import Options
    from pier.cli.format import Fields
    from pier.cli.main import Context

COMMAND = Command(
    "[OPTIONS]",
    flags=(
        Flag("filter", "f", "filter", "Only volumes that fit: dangling=, driver=, label=, name="),
        Flag("format", "", "string", "table, 'table TEMPLATE', json, or a Go template"),
        Flag("quiet", "q", "bool", "Show only names"),
    ),
)
COLUMNS = ("Driver", "Name")


def run(cx: Context, opts: Options, args: list[str]) -> int:
    answer = cx.client.get("/volumes", filters=filters_query(opts["filter"]))
    volumes = sorted(answer.get("Volumes") or [], key=lambda volume: natural(volume["Name"]))
    layout = opts["format"]
    if opts["quiet"] and layout in ("", "table"):
        out("".join(f"{volume['Name']}\n" for volume in volumes))
        return 0
    out(render(FIELDS, COLUMNS, layout, volumes, "*formatter.volumeContext"))
    return 0


def natural(name: str) -> list[tuple[int, str]]:
    """To sort by: numbers in names count as numbers (`v2` before `v10`)."""
    parts: list[tuple[int, str]] = []
    digits = ""
    for char in name:
        if char.isascii() and char.isdigit():
            digits += char
            continue
        if digits:
            parts.append((int(digits), digits))
            digits = ""
        parts.append((ord(char) + (1 << 200), char))  # behind every number
    if digits:
        parts.append((int(digits), digits))
    return parts


def _usage(volume: dict[str, Any], key: str) -> int | None:
    usage = volume.get("UsageData")
    return usage[key] if usage else None


def links(volume: dict[str, Any]) -> str:
    count = _usage(volume, "RefCount")
    return "N/A" if count is None else str(count)


def size(volume: dict[str, Any]) -> str:
    from pier.cli.units import human_size  # noqa: PLC0415 - only where it was counted

    found = _usage(volume, "Size")
    return "N/A" if found is None else human_size(found)


FIELDS: Fields = {
    "Name": ("VOLUME NAME", lambda v: v["Name"]),
    "Driver": ("DRIVER", lambda v: v["Driver"]),
    "Scope": ("SCOPE", lambda v: v["Scope"]),
    "Mountpoint": ("MOUNTPOINT", lambda v: v["Mountpoint"]),
    "Labels": ("LABELS", lambda v: ",".join(f"{k}={text}" for k, text in (v.get("Labels") or {}).items())),
    "Label": ("", lambda v, name: (v.get("Labels") or {}).get(name, "")),
    "Links": ("LINKS", links),
    "Size": ("SIZE", size),
    "Group": ("GROUP", lambda v: "N/A"),
    "Availability": ("AVAILABILITY", lambda v: "N/A"),
    "Status": ("STATUS", lambda v: "N/A"),
}
"""The last three are of cluster volumes, which a machine outside a swarm does not have."""
