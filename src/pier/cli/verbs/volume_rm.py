"""`pier volume rm`: remove volumes that no container has."""

from __future__ import annotations

from pier.cli.each import each, path
from pier.cli.flags import Command, Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pier.cli.flags import Options
    from pier.cli.main import Context

COMMAND = Command(
    "[OPTIONS] VOLUME [VOLUME...]",
    flags=(Flag("force", "f", "bool", "One that is not there is no error"),),
    arity=(1, None),
)


def run(cx: Context, opts: Options, args: list[str]) -> int:
    return each(args, lambda name: cx.client.delete(path("volumes", name), force=opts["force"]))
