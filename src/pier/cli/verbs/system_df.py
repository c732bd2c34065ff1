"""`pier system df`: what images, containers, volumes, build caches and logs take on the disk (traps 13 and 22)."""

from __future__ import annotations

import time

from pier.cli.flags import Command, Flag
from pier.cli.format import render, short_id
from pier.cli.out import out
from pier.cli.table import table
from pier.cli.units import ago, human_size
from pier.cli.verbs.volume_ls import links, size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pier.cli.flags import Options
    from pier.cli.format import Fields
    from pier.cli.main import Context

COMMAND = Command(
    "[OPTIONS]",
    flags=(
        Flag("format", "", "string", "table, 'table TEMPLATE', json, or a Go template"),
        Flag("verbose", "v", "bool", "Show each object"),
    ),
)
KINDS = ("container", "image", "volume", "build-cache", "log")
COLUMNS = ("Type", "TotalCount", "Active", "Size", "Reclaimable")
_ACTIVE = ("running", "paused", "restarting")


def run(cx: Context, opts: Options, args: list[str]) -> int:
    found = cx.client.get("/system/df", type=list(KINDS))
    layout = opts["format"]
    if not opts["verbose"]:
        out(render(FIELDS, COLUMNS, layout, summary(found), "*formatter.diskUsageContext"))
    elif layout in ("", "table"):
        out(details(found, time.time()))
    else:
        out(verbose_as(found, layout))
    return 0


def summary(found: dict[str, Any]) -> list[dict[str, Any]]:
    """One row a kind: its count, how many are in use, bytes, and bytes that go when the unused ones go."""
    images, containers = found.get("Images") or [], found.get("Containers") or []
    volumes, caches = found.get("Volumes") or [], found.get("BuildCache") or []
    logs = found.get("LogUsage") or {}
    in_use = [image for image in images if image["Containers"] > 0]
    held = sum(image["Size"] - max(image["SharedSize"], 0) for image in in_use)
    used = [volume for volume in volumes if volume["UsageData"]["RefCount"] > 0]
    idle = [container for container in containers if container["State"] not in _ACTIVE]
    return [
        _row("Images", images, len(in_use), found["LayersSize"], found["LayersSize"] - held, percent=True),
        _row("Containers", containers, len(containers) - len(idle), _written(containers), _written(idle), percent=True),
        _row("Local Volumes", volumes, len(used), _sizes(volumes), _sizes(volumes) - _sizes(used), percent=True),
        _row("Build Cache", caches, 0, 0, 0),
        _row(
            "Logs",
            logs.get("Items") or [],
            logs.get("ActiveCount", 0),
            logs.get("TotalSize", 0),
            logs.get("Reclaimable", 0),
            percent=True,
        ),
    ]


def _row(
    kind: str, items: list[Any], active: int, size: int, reclaimable: int, *, percent: bool = False
) -> dict[str, Any]:
    text = human_size(reclaimable)
    if percent and size > 0:
        text += f" ({reclaimable * 100 // size}%)"
    return {"Type": kind, "TotalCount": len(items), "Active": active, "Size": human_size(size), "Reclaimable": text}


def _written(containers: list[dict[str, Any]]) -> int:
    return sum(container.get("SizeRw", 0) for container in containers)


def _sizes(volumes: list[dict[str, Any]]) -> int:
    return sum(volume["UsageData"]["Size"] for volume in volumes)


FIELDS: Fields = {
    "Type": ("TYPE", lambda row: row["Type"]),
    "TotalCount": ("TOTAL", lambda row: str(row["TotalCount"])),
    "Active": ("ACTIVE", lambda row: str(row["Active"])),
    "Size": ("SIZE", lambda row: row["Size"]),
    "Reclaimable": ("RECLAIMABLE", lambda row: row["Reclaimable"]),
}


def details(found: dict[str, Any], now_s: float) -> str:
    """A table for each kind."""
    images = [["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE", "SHARED SIZE", "UNIQUE SIZE", "CONTAINERS"]]
    images += [_image(image, now_s) for image in found.get("Images") or []]
    containers = [["CONTAINER ID", "IMAGE", "COMMAND", "LOCAL VOLUMES", "SIZE", "CREATED", "STATUS", "NAMES"]]
    containers += [_container(container, now_s) for container in found.get("Containers") or []]
    logs = [["CONTAINER ID", "NAME", "DRIVER", "FILES", "SIZE"]]
    logs += [
        [short_id(log["Id"]), log["Name"], log["Driver"], str(log["Files"]), human_size(log["Size"], 3)]
        for log in (found.get("LogUsage") or {}).get("Items") or []
    ]
    volumes = [["VOLUME NAME", "LINKS", "SIZE"]]
    volumes += [[one["Name"], links(one), size(one)] for one in found.get("Volumes") or []]
    cache = [["CACHE ID", "CACHE TYPE", "SIZE", "CREATED", "LAST USED", "USAGE", "SHARED"]]
    parts = [
        ("Images space usage:", images),
        ("Containers space usage:", containers),
        ("Local Volumes space usage:", volumes),
        ("Build cache usage: 0B", cache),
        ("Logs space usage:", logs),
    ]
    return "\n".join(f"{title}\n\n{table(rows)}" for title, rows in parts)


def _image(image: dict[str, Any], now_s: float) -> list[str]:
    from pier.cli.verbs.images import split_names  # noqa: PLC0415 - only here

    first = split_names(image, by_digest=False)[0]
    shared = max(image["SharedSize"], 0)
    return [
        first["Repository"],
        first["Tag"],
        short_id(image["Id"]),
        ago(image["Created"], now_s) if image["Created"] > 0 else "N/A",
        human_size(image["Size"], 3),
        human_size(shared),
        human_size(image["Size"] - shared),
        str(image["Containers"]),
    ]


def _container(container: dict[str, Any], now_s: float) -> list[str]:
    from pier.cli.verbs.ps import view  # noqa: PLC0415 - only here

    fields = view(now_s, trunc=True)
    names = ("ID", "Image", "Command", "LocalVolumes", "Size", "RunningFor", "Status", "Names")
    return [
        human_size(container.get("SizeRw", 0), 3) if name == "Size" else fields[name][1](container) for name in names
    ]


def verbose_as(found: dict[str, Any], layout: str) -> str:
    """The daemon's answer as one object with a list a kind: as JSON, or through a template."""
    logs = (found.get("LogUsage") or {}).get("Items") or []
    whole = {
        "Images": found.get("Images") or [],
        "Containers": found.get("Containers") or [],
        "Volumes": found.get("Volumes") or [],
        "BuildCache": found.get("BuildCache") or [],
        "Logs": logs,
    }
    if layout == "json":
        from pier.cli.jsontext import dumps  # noqa: PLC0415 - loaded with the client

        return dumps(whole) + "\n"
    from pier.cli.format import compile_template, execute  # noqa: PLC0415 - only with a template
    from pier.cli.template import mark  # noqa: PLC0415

    return execute(compile_template(layout), mark(whole)) + "\n"
