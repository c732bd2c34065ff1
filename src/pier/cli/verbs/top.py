"""`pier top`: a container's processes."""

from __future__ import annotations

from pier.cli.each import path
from pier.cli.flags import Command
from pier.cli.out import out
from pier.cli.table import align

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pier.cli.flags import Options
    from pier.cli.main import Context

COMMAND = Command("CONTAINER [ps OPTIONS]", arity=(1, None), interspersed=False)
_WIDTH = 20


def run(cx: Context, opts: Options, args: list[str]) -> int:
    answer = cx.client.get(path("containers", args[0], "top"), ps_args=" ".join(args[1:]))
    rows = [answer["Titles"], *(answer["Processes"] or [])]
    out(align("".join("\t".join(row) + "\n" for row in rows), min_width=_WIDTH))
    return 0
