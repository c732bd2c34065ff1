"""`pier ps`: the list of containers."""

from __future__ import annotations

import time

from pier.cli.flags import Command, Flag
from pier.cli.format import ellipsis, filters_query, render
from pier.cli.out import out
from pier.cli.units import ago, go_time, human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pier.cli.flags import Options
    from pier.cli.format import Fields
    from pier.cli.main import Context

COMMAND = Command(
    "[OPTIONS]",
    flags=(
        Flag("all", "a", "bool", "Show stopped containers too"),
        Flag("filter", "f", "filter", "Show only containers that fit: name=, status=, label=, ancestor=, …"),
        Flag("format", "", "string", "table, 'table TEMPLATE', json, or a Go template"),
        Flag("last", "n", "int", "Show the n containers made last, in any state", "-1"),
        Flag("latest", "l", "bool", "Show the container made last, in any state"),
        Flag("no-trunc", "", "bool", "Show IDs and commands in full"),
        Flag("quiet", "q", "bool", "Show only IDs"),
        Flag("size", "s", "bool", "Show sizes"),
    ),
)
COLUMNS = ("ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names")
_COMMAND_WIDTH = 20
_MOUNT_WIDTH = 15


def run(cx: Context, opts: Options, args: list[str]) -> int:
    layout = opts["format"]
    limit = 1 if opts["latest"] else opts["last"] if opts.given("last") else -1
    containers = cx.client.get(
        "/containers/json",
        all=opts["all"],
        limit=limit if limit > 0 else None,
        size=opts["size"] or ".Size" in layout or "json ." in layout,
        filters=filters_query(opts["filter"]),
    )
    if opts["quiet"] and layout in ("", "table"):
        length = None if opts["no-trunc"] else 12
        out("".join(f"{container['Id'][:length]}\n" for container in containers))
        return 0
    columns = (*COLUMNS, "Size") if opts["size"] else COLUMNS
    fields = view(time.time(), trunc=not opts["no-trunc"])
    out(
        render(fields, columns, layout, containers, "*formatter.ContainerContext", problem="failed to execute template")
    )
    return 0


def view(now_s: float, *, trunc: bool) -> Fields:
    """The fields of a ContainerSummary."""
    return {
        "ID": ("CONTAINER ID", lambda c: c["Id"][:12] if trunc else c["Id"]),
        "Image": ("IMAGE", lambda c: image_name(c, trunc=trunc)),
        "Command": ("COMMAND", lambda c: command_text(c, trunc=trunc)),
        "CreatedAt": ("CREATED AT", lambda c: go_time(c["Created"])),
        "RunningFor": ("CREATED", lambda c: ago(c["Created"], now_s)),
        "Status": ("STATUS", lambda c: c["Status"]),
        "State": ("STATE", lambda c: c["State"]),
        "Ports": ("PORTS", lambda c: port_list(c.get("Ports") or [])),
        "Names": ("NAMES", names),
        "Size": ("SIZE", size_text),
        "Labels": ("LABELS", lambda c: ",".join(f"{k}={v}" for k, v in (c.get("Labels") or {}).items())),
        "Label": ("", lambda c, name: (c.get("Labels") or {}).get(name, "")),
        "Mounts": ("MOUNTS", lambda c: mount_list(c, trunc=trunc)),
        "LocalVolumes": ("LOCAL VOLUMES", lambda c: str(sum(m.get("Driver") == "local" for m in c["Mounts"] or []))),
        "Networks": ("NETWORKS", lambda c: ",".join((c.get("NetworkSettings") or {}).get("Networks") or {})),
        "Platform": ("PLATFORM", lambda c: (c.get("ImageManifestDescriptor") or {}).get("platform")),
    }


def names(container: dict[str, Any]) -> str:
    """Names without their slash; links from other containers (`/web/db`) are left out."""
    return ",".join(name[1:] for name in container.get("Names") or [] if "/" not in name[1:])


def image_name(container: dict[str, Any], *, trunc: bool) -> str:
    """The name it was made from; an image known only by ID is shown short."""
    name: str = container["Image"] or "<no image>"
    identifier: str = container.get("ImageID", "")
    if trunc and name in (identifier, identifier.removeprefix("sha256:")):
        return identifier.removeprefix("sha256:")[:12]
    return name.partition("@")[0] if trunc and "@" in name else name


def command_text(container: dict[str, Any], *, trunc: bool) -> str:
    text: str = container["Command"]
    return '"' + (ellipsis(text, _COMMAND_WIDTH) if trunc else text).replace('"', '\\"') + '"'


def size_text(container: dict[str, Any]) -> str:
    """`0B (virtual 1.98MB)`: the writable layer, and with the image."""
    text = human_size(container.get("SizeRw", 0), 3)
    total = container.get("SizeRootFs", 0)
    return f"{text} (virtual {human_size(total, 3)})" if total else text


def mount_list(container: dict[str, Any], *, trunc: bool) -> str:
    mounts = (mount.get("Name") or mount.get("Source", "") for mount in container.get("Mounts") or [])
    return ",".join(ellipsis(text, _MOUNT_WIDTH) if trunc else text for text in mounts)


def port_list(ports: list[dict[str, Any]]) -> str:
    """Published ports, then plain ones; neighbours with equal numbers on both sides become ranges.

    `0.0.0.0:8080->80/tcp`, `0.0.0.0:7000-7009->7000-7009/tcp`, `9000-9001/udp`.
    """
    ordered = sorted(ports, key=lambda p: (p["PrivatePort"], p.get("IP", ""), p.get("PublicPort", 0), p["Type"]))
    groups: dict[tuple[str, str], list[int]] = {}
    done: list[str] = []
    mapped: list[str] = []
    for port in ordered:
        address, private, kind = port.get("IP", ""), port["PrivatePort"], port["Type"]
        if address and port.get("PublicPort") != private:
            mapped.append(f"{_host_port(address, port.get('PublicPort', 0))}->{private}/{kind}")
            continue
        group = groups.setdefault((address, kind), [private, private])
        if private > group[1] + 1:
            done.append(_range_text(address, kind, *group))
            groups[address, kind] = [private, private]
        else:
            group[1] = private
    done += [_range_text(address, kind, first, last) for (address, kind), (first, last) in groups.items()]
    return ", ".join(done + mapped)


def _range_text(address: str, kind: str, first: int, last: int) -> str:
    ports = str(first) if first == last else f"{first}-{last}"
    return f"{_host_port(address, ports)}->{ports}/{kind}" if address else f"{ports}/{kind}"


def _host_port(address: str, port: int | str) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
