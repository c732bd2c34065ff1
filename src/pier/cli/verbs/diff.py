"""`pier diff`: what a container changed in its file system (A added, C changed, D deleted)."""

from __future__ import annotations

from pier.cli.each import path
from pier.cli.flags import Command
from pier.cli.out import out

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pier.cli.flags import Options
    from pier.cli.main import Context

COMMAND = Command("CONTAINER", arity=(1, 1))
_KINDS = "CAD"


def run(cx: Context, opts: Options, args: list[str]) -> int:
    changes = cx.client.get(path("containers", args[0], "changes")) or []
    out("".join(f"{_KINDS[change['Kind']]} {change['Path']}\n" for change in changes))
    return 0
