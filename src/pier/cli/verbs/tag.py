"""`pier tag`: give an image a further name."""

from __future__ import annotations

from pier.cli.each import path
from pier.cli.errors import Failure
from pier.cli.flags import Command
from pier.cli.reference import split

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pier.cli.flags import Options
    from pier.cli.main import Context

COMMAND = Command("SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", arity=(2, 2))


def run(cx: Context, opts: Options, args: list[str]) -> int:
    source, target = args
    try:
        name, tag, digest = split(target)
    except ValueError as error:
        raise Failure(f'Error parsing reference: "{target}" is not a valid repository/tag: {error}') from None
    if digest:
        raise Failure("refusing to create a tag with a digest reference")
    cx.client.post(path("images", source, "tag"), repo=name, tag=tag or "latest")
    return 0
