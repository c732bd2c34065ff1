"""`pier load`: images from an archive that `save` made, out of a file or stdin."""

from __future__ import annotations

import os

from pier.cli.errors import Failure, reason
from pier.cli.flags import Command, Flag
from pier.cli.out import STDOUT
from pier.cli.platform import platform
from pier.cli.progress import show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from pier.cli.flags import Options
    from pier.cli.main import Context

COMMAND = Command(
    "[OPTIONS]",
    flags=(
        Flag("input", "i", "string", "Archive to read instead of stdin"),
        Flag("platform", "", "string", "Load only this platform's variant: os/arch[/variant]"),
        Flag("quiet", "q", "bool", "Show no progress"),
        Flag("tag", "t", "list", "Name for the archive's one image, in place of its own"),
    ),
)
_CHUNK = 1 << 20


def run(cx: Context, opts: Options, args: list[str]) -> int:
    if opts["input"]:
        fd = open_input(opts["input"])
    elif os.isatty(0):
        raise Failure("requested load from stdin, but stdin is empty")
    else:
        fd = 0
    quiet = opts["quiet"] or not os.isatty(STDOUT)
    query = {"quiet": 1 if quiet else 0, "platform": platform(opts["platform"]), "tag": opts["tag"]}
    response = cx.client.request("POST", "/images/load", query=query, stream=read_chunks(fd, opts["input"] or "stdin"))
    show(response.lines(), STDOUT)
    return 0


def open_input(path: str) -> int:
    """A file to send; Failure in Docker's words when it cannot be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise Failure(f"open {path}: {reason(error)}") from None
    return fd


def read_chunks(fd: int, path: str = "stdin") -> Iterator[bytes]:
    """A file's bytes. Failure when it cannot be read: the daemon has nothing to do with it."""
    while True:
        try:
            chunk = os.read(fd, _CHUNK)
        except OSError as error:
            raise Failure(f"read {path}: {reason(error)}") from None
        if not chunk:
            return
        yield chunk
