"""`pier save`: images as an archive, to a file or to stdout."""

from __future__ import annotations

from pier.cli.archive_file import receive
from pier.cli.flags import Command, Flag
from pier.cli.platform import platform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from pier.cli.flags import Options
    from pier.cli.main import Context

COMMAND = Command(
    "[OPTIONS] IMAGE [IMAGE...]",
    flags=(
        Flag("output", "o", "string", "File to write instead of stdout"),
        Flag("platform", "", "string", "Save only this platform's variant: os/arch[/variant]"),
    ),
    arity=(1, None),
    notes="The archive is for `load`; a container's file system is taken out with `export`.",
)


def run(cx: Context, opts: Options, args: list[str]) -> int:
    query = {"names": args, "platform": platform(opts["platform"])}

    def fetch() -> Iterable[bytes]:
        return cx.client.request("GET", "/images/get", query=query).chunks()

    receive(opts["output"], fetch, "failed to save image")
    return 0
