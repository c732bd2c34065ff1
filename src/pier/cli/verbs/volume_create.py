"""`pier volume create`: make a volume; one of that name that is there already stays as it is."""

from __future__ import annotations

from pier.cli.errors import Failure
from pier.cli.flags import Command, Flag
from pier.cli.out import line
from pier.cli.values import parse_pair

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pier.cli.flags import Options
    from pier.cli.main import Context

COMMAND = Command(
    "[OPTIONS] [VOLUME]",
    flags=(
        Flag("driver", "d", "string", "Driver of the volume", '"local"'),
        Flag("label", "", "label", "Label: KEY=VALUE"),
        Flag("name", "", "string", "Name of the volume", hidden=True),
        Flag("opt", "o", "map", "Option of the driver: type=, device=, o=, size="),
    ),
    arity=(0, 1),
)


def run(cx: Context, opts: Options, args: list[str]) -> int:
    if args and opts["name"]:
        raise Failure("conflicting options: cannot specify a volume-name through both --name and as a positional arg")
    body = {
        "Name": args[0] if args else opts["name"],
        "Driver": opts["driver"] or "local",
        "DriverOpts": opts["opt"],
        "Labels": dict(map(parse_pair, opts["label"])),
    }
    line(cx.client.post("/volumes/create", body)["Name"])
    return 0
