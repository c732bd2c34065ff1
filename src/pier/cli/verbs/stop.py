"""`pier stop`: ask containers to end, and make them when they do not."""

from __future__ import annotations

from pier.cli.ancestor import ANCESTOR, targets
from pier.cli.each import each, path
from pier.cli.flags import Command, Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pier.cli.flags import Options
    from pier.cli.main import Context

FLAGS = (
    ANCESTOR,
    Flag("signal", "s", "string", "Signal to send"),
    Flag("timeout", "t", "int", "Seconds until SIGKILL; -1 waits for ever"),
    Flag("time", "", "int", "Old name of --timeout", replaced_by="timeout"),
)
COMMAND = Command("[OPTIONS] CONTAINER [CONTAINER...]", flags=FLAGS, arity=(0, None))


def run(cx: Context, opts: Options, args: list[str]) -> int:
    query = {"signal": opts["signal"], "t": opts["timeout"] if opts.given("timeout") else None}
    return each(
        targets(cx, COMMAND, opts, args, running=True),
        lambda name: cx.client.post(path("containers", name, "stop"), **query),
    )
