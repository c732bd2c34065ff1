"""`pier image dockerfile`: a Dockerfile of an image that came without one (wish 4)."""

from __future__ import annotations

from pier.cli.dockerfile import rebuild, text
from pier.cli.each import path
from pier.cli.flags import Command
from pier.cli.out import out

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pier.cli.flags import Options
    from pier.cli.main import Context

COMMAND = Command("IMAGE", arity=(1, 1))


def run(cx: Context, opts: Options, args: list[str]) -> int:
    image = cx.client.get(path("images", args[0], "json"))
    steps = cx.client.get(path("images", args[0], "history")) or []
    out(text(rebuild(steps, image.get("Config") or {}), args[0]))
    return 0
