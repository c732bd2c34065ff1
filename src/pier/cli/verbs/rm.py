"""`pier rm`: remove containers."""

from __future__ import annotations

from pier.cli.ancestor import ANCESTOR, targets
from pier.cli.each import each, path
from pier.cli.errors import ApiError
from pier.cli.flags import Command, Flag
from pier.cli.out import complain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pier.cli.flags import Options
    from pier.cli.main import Context

COMMAND = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    flags=(
        ANCESTOR,
        Flag("force", "f", "bool", "Kill and remove a running container; one that is not there is no failure"),
        Flag("link", "l", "bool", "Remove the link of that name"),
        Flag("volumes", "v", "bool", "Remove its anonymous volumes too"),
    ),
    arity=(0, None),
    notes="One that holds more than 1 MB in a place declared as data, in its own layer, takes --force.",
)


def run(cx: Context, opts: Options, args: list[str]) -> int:
    query = {"force": opts["force"], "link": opts["link"], "v": opts["volumes"], "keep-data": not opts["force"]}

    def remove(name: str) -> str | None:
        try:
            cx.client.delete(path("containers", name.strip("/")), **query)
        except ApiError as error:
            if not (opts["force"] and error.code == 404):
                raise
            complain(error.text)
            return ""
        return None

    return each(targets(cx, COMMAND, opts, args, running=False), remove)
