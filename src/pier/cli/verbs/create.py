"""`pier create`: make a container without starting it."""

from __future__ import annotations

from pier.cli.container_flags import CONTAINER_FLAGS
from pier.cli.creation import create, prepare
from pier.cli.flags import Command
from pier.cli.out import line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pier.cli.flags import Options
    from pier.cli.main import Context

COMMAND = Command("[OPTIONS] IMAGE [COMMAND] [ARG...]", flags=CONTAINER_FLAGS, arity=(1, None), interspersed=False)


def run(cx: Context, opts: Options, args: list[str]) -> int:
    body = prepare(cx, opts, args, detach=False)
    line(create(cx, opts, body))
    return 0
