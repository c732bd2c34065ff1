"""`pier manifest rm`: forget manifest lists that were made here; those in registries stay."""

from __future__ import annotations

from pier.cli.errors import Failure
from pier.cli.flags import Command
from pier.cli.manifests import Lists, full

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pier.cli.flags import Options
    from pier.cli.main import Context

COMMAND = Command("MANIFEST_LIST [MANIFEST_LIST...]", arity=(1, None))


def run(cx: Context, opts: Options, args: list[str]) -> int:
    lists = Lists(cx.options)
    problems = [f"No such manifest: {name}" for name in map(full, args) if not lists.remove(name)]
    if problems:
        raise Failure("\n".join(problems))
    return 0
