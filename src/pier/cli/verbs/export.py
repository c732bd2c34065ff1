"""`pier export`: a container's file system as an archive, to a file or to stdout."""

from __future__ import annotations

from pier.cli.archive_file import receive
from pier.cli.each import path
from pier.cli.flags import Command, Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from pier.cli.flags import Options
    from pier.cli.main import Context

COMMAND = Command(
    "[OPTIONS] CONTAINER",
    flags=(Flag("output", "o", "string", "File to write instead of stdout"),),
    arity=(1, 1),
    notes="The archive is for `import`; images are taken out with `save`.",
)


def run(cx: Context, opts: Options, args: list[str]) -> int:
    def fetch() -> Iterable[bytes]:
        return cx.client.request("GET", path("containers", args[0], "export")).chunks()

    receive(opts["output"], fetch, "failed to export container")
    return 0
