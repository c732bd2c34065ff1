"""`pier volume inspect`: everything about volumes, as JSON or by template."""

from __future__ import annotations

from pier.cli.each import path
from pier.cli.flags import Command, Flag
from pier.cli.verbs.inspect import show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pier.cli.flags import Options
    from pier.cli.main import Context

COMMAND = Command(
    "[OPTIONS] VOLUME [VOLUME...]",
    flags=(
        Flag("format", "f", "string", "json, or a Go template"),
        Flag("size", "s", "bool", "Show what they take on the disk"),
    ),
    arity=(1, None),
)


def run(cx: Context, opts: Options, args: list[str]) -> int:
    query = {"size": True} if opts["size"] else {}
    return show(args, opts["format"], lambda name: cx.client.get(path("volumes", name), **query))
