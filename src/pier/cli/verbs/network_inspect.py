"""`pier network inspect`: everything about networks, as JSON or by template."""

from __future__ import annotations

from pier.cli.each import path
from pier.cli.flags import Command, Flag
from pier.cli.verbs.inspect import show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pier.cli.flags import Options
    from pier.cli.main import Context

COMMAND = Command(
    "[OPTIONS] NETWORK [NETWORK...]",
    flags=(
        Flag("format", "f", "string", "json, or a Go template"),
        Flag("verbose", "v", "bool", "With the services and tasks of a swarm"),
    ),
    arity=(1, None),
)


def run(cx: Context, opts: Options, args: list[str]) -> int:
    query = {"verbose": True} if opts["verbose"] else {}
    return show(args, opts["format"], lambda name: cx.client.get(path("networks", name), **query))
