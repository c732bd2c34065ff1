"""`pier search`: look for images in a registry's index."""

from __future__ import annotations

from pier.cli.auth import registry_auth_header
from pier.cli.flags import Command, Flag
from pier.cli.format import ellipsis, filters_query, render
from pier.cli.out import out

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pier.cli.flags import Options
    from pier.cli.format import Fields
    from pier.cli.main import Context

COMMAND = Command(
    "[OPTIONS] TERM",
    flags=(
        Flag("filter", "f", "filter", "Show only what fits: is-official=, stars="),
        Flag("format", "", "string", "table, 'table TEMPLATE', json, or a Go template"),
        Flag("limit", "", "int", "Most results"),
        Flag("no-trunc", "", "bool", "Show descriptions in full"),
    ),
    arity=(1, 1),
)
COLUMNS = ("Name", "Description", "StarCount", "IsOfficial")
_DESCRIPTION_WIDTH = 45


def run(cx: Context, opts: Options, args: list[str]) -> int:
    query = {"term": args[0], "limit": opts["limit"] or None, "filters": filters_query(opts["filter"])}
    headers = registry_auth_header(cx.options, args[0])
    found = cx.client.request("GET", "/images/search", query=query, headers=headers).json() or []
    out(render(view(trunc=not opts["no-trunc"]), COLUMNS, opts["format"], found, "*formatter.searchContext"))
    return 0


def view(*, trunc: bool) -> Fields:
    """The fields of a search result."""

    def description(result: dict[str, Any]) -> str:
        text = result["description"].replace("\n", " ").replace("\r", " ")
        return ellipsis(text, _DESCRIPTION_WIDTH) if trunc else text

    return {
        "Name": ("NAME", lambda r: r["name"]),
        "Description": ("DESCRIPTION", description),
        "StarCount": ("STARS", lambda r: str(r["star_count"])),
        "IsOfficial": ("OFFICIAL", lambda r: "[OK]" if r["is_official"] else ""),
    }
