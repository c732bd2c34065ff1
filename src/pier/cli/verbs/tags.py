"""`pier image tags`: the tags that a repository has in its registry (wish 2)."""

from __future__ import annotations

from pier.cli.auth import registry_auth_header
from pier.cli.each import path
from pier.cli.errors import Failure
from pier.cli.flags import Command, Flag
from pier.cli.format import render
from pier.cli.out import out
from pier.cli.reference import split
from pier.cli.units import human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pier.cli.flags import Options
    from pier.cli.format import Fields
    from pier.cli.main import Context

COMMAND = Command(
    "[OPTIONS] REPOSITORY",
    flags=(
        Flag("format", "", "string", "table, 'table TEMPLATE', json, or a Go template"),
        Flag("no-trunc", "", "bool", "Show digests in full"),
        Flag("quiet", "q", "bool", "Show only the tags, and ask the registry for nothing else"),
    ),
    arity=(1, 1),
)
COLUMNS = ("Tag", "Digest", "Created", "Size", "Platforms")
_SHORT_DIGEST = len("sha256:") + 12


def run(cx: Context, opts: Options, args: list[str]) -> int:
    try:
        name, tag, digest = split(args[0])
    except ValueError as error:
        raise Failure(str(error)) from None
    if tag or digest:
        raise Failure(f"a repository is wanted, without a tag: pier image tags {name}")
    headers = registry_auth_header(cx.options, name)
    query = {"details": "0" if opts["quiet"] else "1"}
    found = cx.client.request("GET", path("distribution", name, "tags"), query=query, headers=headers).json() or []
    if opts["quiet"]:
        out("".join(f"{row['Name']}\n" for row in found))
        return 0
    out(render(view(trunc=not opts["no-trunc"]), COLUMNS, opts["format"], found, "*formatter.tagContext"))
    return 0


def view(*, trunc: bool) -> Fields:
    """The fields of a tag."""

    def created(row: dict[str, Any]) -> str:
        return str(row.get("Created", ""))[:10] or "N/A"

    return {
        "Tag": ("TAG", lambda r: r["Name"]),
        "Digest": ("DIGEST", lambda r: r.get("Digest", "")[: _SHORT_DIGEST if trunc else None]),
        "Created": ("CREATED", created),
        "Size": ("SIZE", lambda r: human_size(r["Size"], 3) if r.get("Size") else "N/A"),
        "Platforms": ("PLATFORMS", lambda r: ", ".join(r.get("Platforms") or [])),
    }
