"""`pier kill`: send a signal to running containers."""

from __future__ import annotations

from pier.cli.each import each, path
from pier.cli.flags import Command, Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pier.cli.flags import Options
    from pier.cli.main import Context

COMMAND = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    flags=(Flag("signal", "s", "string", "Signal to send (default: SIGKILL)"),),
    arity=(1, None),
)


def run(cx: Context, opts: Options, args: list[str]) -> int:
    return each(args, lambda name: cx.client.post(path("containers", name, "kill"), signal=opts["signal"]))
