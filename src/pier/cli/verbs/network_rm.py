"""`pier network rm`: remove networks."""

from __future__ import annotations

from pier.cli.each import each, path
from pier.cli.errors import ApiError
from pier.cli.flags import Command, Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pier.cli.flags import Options
    from pier.cli.main import Context

COMMAND = Command(
    "NETWORK [NETWORK...]",
    flags=(Flag("force", "f", "bool", "One that is not there is no failure"),),
    arity=(1, None),
)


def run(cx: Context, opts: Options, args: list[str]) -> int:
    def remove(name: str) -> str | None:
        try:
            cx.client.delete(path("networks", name))
        except ApiError as error:
            if opts["force"] and error.code == 404:
                return ""
            raise
        return None

    return each(args, remove, parallel_errors=False)
