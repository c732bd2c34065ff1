"""`pier daemon`: become pierd, with the same flags."""

from __future__ import annotations

import os
import sys

from pier.cli.errors import Failure
from pier.cli.flags import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from pier.cli.flags import Options
    from pier.cli.main import Context

COMMAND = Command("[OPTIONS]", arity=(0, None), raw=True, notes="All flags are pierd's own; `pierd --help` lists them.")


def run(cx: Context, opts: Options, args: list[str]) -> NoReturn:
    hosts = [word for host in cx.options["host"] for word in ("-H", host)]
    debug = ["-D"] if cx.options["debug"] else []
    path = find_pierd()
    try:
        os.execv(path, ["pierd", *debug, *hosts, *args])  # noqa: S606 - an argv list
    except OSError as error:
        raise Failure(f"cannot run {path}: {error.strerror}") from None


def find_pierd() -> str:
    """pierd beside this program, beside this interpreter, or on PATH. Failure when it is nowhere."""
    beside = [os.path.dirname(os.path.realpath(sys.argv[0])), os.path.dirname(sys.executable)]
    for folder in beside + os.environ.get("PATH", os.defpath).split(os.pathsep):
        path = os.path.join(folder, "pierd")
        if os.access(path, os.X_OK):
            return path
    raise Failure("pierd was not found beside pier or on PATH")
