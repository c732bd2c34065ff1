"""`pier rename`: give a container another name."""

from __future__ import annotations

from pier.cli.each import path
from pier.cli.errors import ApiError, Failure
from pier.cli.flags import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pier.cli.flags import Options
    from pier.cli.main import Context

COMMAND = Command("CONTAINER NEW_NAME", arity=(2, 2))


def run(cx: Context, opts: Options, args: list[str]) -> int:
    old, new = (name.strip() for name in args)
    if not old or not new:
        raise Failure("Error: Neither old nor new names may be empty")
    try:
        cx.client.post(path("containers", old, "rename"), name=new)
    except ApiError as error:
        raise Failure(f"{error.text}\nError: failed to rename container named {old}") from None
    return 0
