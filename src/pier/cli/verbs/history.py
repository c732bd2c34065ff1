"""`pier history`: how an image was made, newest step first."""

from __future__ import annotations

import time

from pier.cli.each import path
from pier.cli.flags import Command, Flag
from pier.cli.format import ellipsis, render, short_id
from pier.cli.out import out
from pier.cli.platform import platform
from pier.cli.units import ago, human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pier.cli.flags import Options
    from pier.cli.format import Fields
    from pier.cli.main import Context

COMMAND = Command(
    "[OPTIONS] IMAGE",
    flags=(
        Flag("format", "", "string", "table, 'table TEMPLATE', json, or a Go template"),
        Flag("human", "H", "bool", "Show sizes and times for people", "true"),
        Flag("no-trunc", "", "bool", "Show everything in full"),
        Flag("platform", "", "string", "Platform to show: os/arch[/variant]"),
        Flag("quiet", "q", "bool", "Show only IDs"),
    ),
    arity=(1, 1),
)
COLUMNS = ("ID", "CreatedSince", "CreatedBy", "Size", "Comment")
_CREATED_BY_WIDTH = 45


def run(cx: Context, opts: Options, args: list[str]) -> int:
    steps = cx.client.get(path("images", args[0], "history"), platform=platform(opts["platform"])) or []
    human = opts["human"] if opts.given("human") else True
    fields = view(time.time(), trunc=not opts["no-trunc"], human=human)
    if opts["quiet"]:
        out("".join(f"{fields['ID'][1](step)}\n" for step in steps))
        return 0
    columns = COLUMNS if human else ("ID", "CreatedAt", "CreatedBy", "Size", "Comment")
    out(render(fields, columns, opts["format"], steps, "*formatter.historyContext"))
    return 0


def view(now_s: float, *, trunc: bool, human: bool) -> Fields:
    """The fields of a HistoryResponseItem."""
    from pier.cli.units import rfc3339_nano  # noqa: PLC0415 - only here

    def created_by(step: dict[str, str]) -> str:
        text = step["CreatedBy"].replace("\t", " ")
        return ellipsis(text, _CREATED_BY_WIDTH) if trunc else text

    return {
        "ID": ("IMAGE", lambda s: short_id(s["Id"]) if trunc else s["Id"]),
        "CreatedAt": ("CREATED AT", lambda s: rfc3339_nano(s["Created"] * 10**9).replace(".000000000", "")),
        "CreatedSince": ("CREATED", lambda s: ago(s["Created"], now_s) if s["Created"] > 0 else "N/A"),
        "CreatedBy": ("CREATED BY", created_by),
        "Size": ("SIZE", lambda s: human_size(s["Size"], 3) if human else str(s["Size"])),
        "Comment": ("COMMENT", lambda s: s["Comment"]),
    }
