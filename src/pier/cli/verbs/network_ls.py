"""`pier network ls`: the list of networks."""

from __future__ import annotations

from pier.cli.flags import Command, Flag
from pier.cli.format import filters_query, render
from pier.cli.out import out
from pier.cli.units import go_time_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pier.cli.flags import Options
    from pier.cli.format import Fields
    from pier.cli.main import Context

COMMAND = Command(
    "[OPTIONS]",
    flags=(
        Flag("filter", "f", "filter", "Show only networks that fit: driver=, name=, id=, type=, label=, dangling=, …"),
        Flag("format", "", "string", "table, 'table TEMPLATE', json, raw, or a Go template"),
        Flag("no-trunc", "", "bool", "Show IDs in full"),
        Flag("quiet", "q", "bool", "Show only IDs"),
    ),
)
COLUMNS = ("ID", "Name", "Driver", "Scope")
RAW = "network_id: {{.ID}}\nname: {{.Name}}\ndriver: {{.Driver}}\nscope: {{.Scope}}\n"
RAW_QUIET = "network_id: {{.ID}}"


def run(cx: Context, opts: Options, args: list[str]) -> int:
    networks = cx.client.get("/networks", filters=filters_query(opts["filter"]))
    networks.sort(key=lambda network: natural(network["Name"]))
    layout, trunc = opts["format"], not opts["no-trunc"]
    if opts["quiet"] and layout in ("", "table"):
        out("".join(f"{network['Id'][: 12 if trunc else None]}\n" for network in networks))
        return 0
    if layout == "raw":
        layout = RAW_QUIET if opts["quiet"] else RAW
    out(render(view(trunc=trunc), COLUMNS, layout, networks, "*network.networkContext"))
    return 0


def view(*, trunc: bool) -> Fields:
    """The fields of a network."""
    return {
        "ID": ("NETWORK ID", lambda n: n["Id"][:12] if trunc else n["Id"]),
        "Name": ("NAME", lambda n: n["Name"]),
        "Driver": ("DRIVER", lambda n: n["Driver"]),
        "Scope": ("SCOPE", lambda n: n["Scope"]),
        "IPv4": ("IPV4", lambda n: _word(n.get("EnableIPv4", True))),
        "IPv6": ("IPV6", lambda n: _word(n["EnableIPv6"])),
        "Internal": ("INTERNAL", lambda n: _word(n["Internal"])),
        "Labels": ("LABELS", lambda n: ",".join(f"{key}={value}" for key, value in (n["Labels"] or {}).items())),
        "Label": ("", lambda n, name: (n["Labels"] or {}).get(name, "")),
        "CreatedAt": ("CREATED AT", lambda n: go_time_of(n["Created"])),
    }


def _word(yes: Any) -> str:
    return "true" if yes else "false"


def natural(name: str) -> list[tuple[bool, int, str]]:
    """Sorts `net10` after `net9`: runs of digits count as numbers."""
    parts: list[tuple[bool, int, str]] = []
    run = ""
    for character in name + "\0":
        if run and (character == "\0" or character.isdecimal() != run[-1].isdecimal()):
            digits = run.isdecimal()
            parts.append((not digits, int(run) if digits else 0, run))
            run = ""
        run += character
    return parts
