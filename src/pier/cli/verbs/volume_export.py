"""`pier volume export`: everything in a volume as an archive (wish 16)."""

from __future__ import annotations

from pier.cli.archive_file import receive
from pier.cli.each import path
from pier.cli.flags import Command, Flag
from pier.cli.standstill import standing_still

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from pier.cli.flags import Options
    from pier.cli.main import Context

PAUSE = Flag("pause", "", "bool", "Pause the containers that use the volume until it is done")
COMMAND = Command(
    "[OPTIONS] VOLUME",
    flags=(Flag("output", "o", "string", "File to write instead of stdout"), PAUSE),
    arity=(1, 1),
    notes="Containers may go on using the volume; what they write meanwhile may be in the archive or not.",
)


def run(cx: Context, opts: Options, args: list[str]) -> int:
    def fetch() -> Iterable[bytes]:
        return cx.client.request("GET", path("volumes", args[0], "archive"), query={"path": "/"}).chunks()

    with standing_still(cx, args[0], wanted=opts["pause"]):
        receive(opts["output"], fetch, "failed to export volume")
    return 0
