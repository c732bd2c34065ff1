"""`pier network disconnect`: take a network away from a container."""

from __future__ import annotations

from pier.cli.each import path
from pier.cli.flags import Command, Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pier.cli.flags import Options
    from pier.cli.main import Context

COMMAND = Command(
    "[OPTIONS] NETWORK CONTAINER",
    flags=(Flag("force", "f", "bool", "Also when the container does not answer, or is gone"),),
    arity=(2, 2),
)


def run(cx: Context, opts: Options, args: list[str]) -> int:
    network, container = args
    cx.client.post(path("networks", network, "disconnect"), {"Container": container, "Force": opts["force"]})
    return 0
