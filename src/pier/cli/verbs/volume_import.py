"""`pier volume import`: an archive into a volume, which is made if it is not there (wish 16)."""

from __future__ import annotations

import os

from pier.cli.each import path
from pier.cli.errors import Failure
from pier.cli.flags import Command
from pier.cli.out import line
from pier.cli.verbs.load import open_input, read_chunks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pier.cli.flags import Options
    from pier.cli.main import Context

COMMAND = Command(
    "VOLUME [FILE|-]",
    arity=(1, 2),
    notes="Files are put over those that are there. Archives of `volume export`, and any other, compressed or not.",
)


def run(cx: Context, opts: Options, args: list[str]) -> int:
    source = args[1] if len(args) > 1 else "-"
    if source == "-" and os.isatty(0):
        raise Failure("requested import from stdin, but stdin is empty")
    stream = read_chunks(0) if source == "-" else read_chunks(open_input(source), source)
    name = cx.client.post("/volumes/create", {"Name": args[0]})["Name"]
    query = {"path": "/", "attributes": "true"}
    cx.client.request("PUT", path("volumes", name, "archive"), query=query, stream=stream).read()
    line(name)
    return 0
