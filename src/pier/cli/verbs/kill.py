"""`pier kill`: send a signal to running containers."""

from __future__ import annotations

from pier.cli.ancestor import ANCESTOR, targets
from pier.cli.each import each, path
from pier.cli.flags import Command, Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pier.cli.flags import Options
    from pier.cli.main import Context

COMMAND = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    flags=(
        ANCESTOR,
        Flag("signal", "s", "string", "Signal to send (default: SIGKILL)"),
    ),
    arity=(0, None),
)


def run(cx: Context, opts: Options, args: list[str]) -> int:
    return each(
        targets(cx, COMMAND, opts, args, running=True),
        lambda name: cx.client.post(path("containers", name, "kill"), signal=opts["signal"]),
    )
