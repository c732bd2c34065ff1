"""`pier volume cp`: files between a volume and this machine; `-` is an archive on stdin or stdout (wish 16)."""

from __future__ import annotations

from pier.cli.flags import Command, Flag
from pier.cli.verbs import cp

COMMAND = Command(
    "[OPTIONS] VOLUME:SRC_PATH DEST_PATH|-\n\tpier volume cp [OPTIONS] SRC_PATH|- VOLUME:DEST_PATH",
    flags=(
        Flag("archive", "a", "bool", "Of containers only", hidden=True),
        *(flag for flag in cp.COMMAND.flags if flag.name != "archive"),
    ),
    arity=(2, 2),
    notes="Containers may go on using the volume meanwhile.",
)
run = cp.run
