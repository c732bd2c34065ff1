"""`pier builder cache export` and `import`: the build cache, cache mounts too, from one machine to another."""

from __future__ import annotations

import os

from pier.cli.archive_file import receive
from pier.cli.errors import Failure
from pier.cli.flags import Command
from pier.cli.out import line
from pier.cli.verbs.load import open_input, read_chunks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from pier.cli.flags import Options
    from pier.cli.main import Context

COMMAND = Command(
    "export|import [FILE]",
    arity=(1, 2),
    notes="Without FILE the archive goes to stdout, or comes from stdin.",
)
PATH = "/build/cache"


def run(cx: Context, opts: Options, args: list[str]) -> int:
    deed, file = args[0], args[1] if len(args) > 1 and args[1] != "-" else ""
    if deed == "export":

        def fetch() -> Iterable[bytes]:
            return cx.client.request("GET", PATH).chunks()

        receive(file, fetch, "failed to export the build cache")
        return 0
    if deed != "import":
        raise Failure(f"builder cache: {deed!r} is neither export nor import")
    if not file and os.isatty(0):
        raise Failure("requested import from stdin, but stdin is empty")
    fd = open_input(file) if file else 0
    answer = cx.client.request("POST", PATH, stream=read_chunks(fd, file or "stdin")).json()
    line(f"{answer['Added']} of {answer['Records']} steps and cache mounts are new")
    return 0
