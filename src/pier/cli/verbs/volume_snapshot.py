"""`pier volume snapshot`: a copy of a volume as it is now, to go back to with `volume clone` (wish 16)."""

from __future__ import annotations

from pier.cli.flags import Command
from pier.cli.values import parse_pair
from pier.cli.verbs import volume_clone

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pier.cli.flags import Options
    from pier.cli.main import Context

COMMAND = Command(
    "[OPTIONS] VOLUME [NEW_VOLUME]",
    flags=volume_clone.COMMAND.flags,
    arity=(1, 2),
    notes="Without a name it is VOLUME-TIME. Its label `pier.snapshot-of` names the volume it was taken of.",
)


def run(cx: Context, opts: Options, args: list[str]) -> int:
    labels = {**dict(map(parse_pair, opts["label"])), "pier.snapshot-of": args[0]}
    return volume_clone.make(cx, opts, args, labels)
