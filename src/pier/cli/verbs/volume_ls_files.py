"""`pier volume ls-files`: what is in a volume (wish 16)."""

from __future__ import annotations

from pier.cli.each import path
from pier.cli.flags import Command, Flag
from pier.cli.format import render
from pier.cli.jsontext import loads
from pier.cli.out import out
from pier.cli.units import human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pier.cli.flags import Options
    from pier.cli.format import Fields
    from pier.cli.main import Context

COMMAND = Command(
    "[OPTIONS] VOLUME [PATH]",
    flags=(
        Flag("format", "", "string", "table, 'table TEMPLATE', json, or a Go template"),
        Flag("quiet", "q", "bool", "Show only paths"),
        Flag("recursive", "R", "bool", "Show what is in directories, too"),
    ),
    arity=(1, 2),
)
COLUMNS = ("Mode", "Owner", "Size", "Modified", "Path")


def run(cx: Context, opts: Options, args: list[str]) -> int:
    place = args[1] if len(args) > 1 else "/"
    query = {"path": place, "recursive": opts["recursive"]}
    files = [loads(text) for text in cx.client.request("GET", path("volumes", args[0], "files"), query=query).lines()]
    layout = opts["format"]
    if opts["quiet"] and layout in ("", "table"):
        out("".join(f"{file['Path']}\n" for file in files))
        return 0
    out(render(FIELDS, COLUMNS, layout, files, "*formatter.fileContext"))
    return 0


FIELDS: Fields = {
    "Mode": ("MODE", lambda f: f["Mode"]),
    "Owner": ("OWNER", lambda f: f"{f['Uid']}:{f['Gid']}"),
    "Size": ("SIZE", lambda f: human_size(f["Size"], 3)),
    "Bytes": ("BYTES", lambda f: str(f["Size"])),
    "Modified": ("MODIFIED", lambda f: f["Mtime"][:19] + "Z"),
    "Path": ("PATH", lambda f: f["Path"] + (f" -> {f['LinkTarget']}" if f.get("LinkTarget") else "")),
}
