"""`pier restart`: stop containers and start them again."""

from __future__ import annotations

from pier.cli.ancestor import targets
from pier.cli.each import each, path
from pier.cli.flags import Command
from pier.cli.verbs.stop import FLAGS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pier.cli.flags import Options
    from pier.cli.main import Context

COMMAND = Command("[OPTIONS] CONTAINER [CONTAINER...]", flags=FLAGS, arity=(0, None))


def run(cx: Context, opts: Options, args: list[str]) -> int:
    query = {"signal": opts["signal"], "t": opts["timeout"] if opts.given("timeout") else None}
    return each(
        targets(cx, COMMAND, opts, args, running=True),
        lambda name: cx.client.post(path("containers", name, "restart"), **query),
    )
