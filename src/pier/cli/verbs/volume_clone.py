"""`pier volume clone` and `pier volume snapshot`: a new volume with the files of another (wish 16)."""

from __future__ import annotations

from pier.cli.each import path
from pier.cli.flags import Command, Flag
from pier.cli.out import line
from pier.cli.standstill import standing_still
from pier.cli.values import parse_pair
from pier.cli.verbs.volume_export import PAUSE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pier.cli.flags import Options
    from pier.cli.main import Context

COMMAND = Command(
    "[OPTIONS] VOLUME NEW_VOLUME",
    flags=(Flag("label", "", "label", "Label of the new volume: KEY=VALUE"), PAUSE),
    arity=(2, 2),
    notes="Where the file system can, the files share their data until one of them is written to.",
)


def run(cx: Context, opts: Options, args: list[str]) -> int:
    return make(cx, opts, args, dict(map(parse_pair, opts["label"])))


def make(cx: Context, opts: Options, args: list[str], labels: dict[str, str]) -> int:
    """Clone the first volume to the second, or to a name that the daemon finds."""
    body = {"Name": args[1] if len(args) > 1 else "", "Labels": labels}
    with standing_still(cx, args[0], wanted=opts["pause"]):
        line(cx.client.post(path("volumes", args[0], "clone"), body)["Name"])
    return 0
