"""`pier run`: create, attach, wait, start; the exit status is the container's.

Failures before the container's program runs exit with 125, a command that cannot be executed with 126, one that is
not found with 127.
"""

from __future__ import annotations

from pier.cli.container_config import EXIT_CLIENT, attached_streams
from pier.cli.container_flags import CONTAINER_FLAGS
from pier.cli.creation import create, prepare
from pier.cli.errors import PROGRAM, Failure, with_program
from pier.cli.flags import Command, Flag
from pier.cli.out import line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pier.cli.attached import Attachment
    from pier.cli.flags import Options
    from pier.cli.http import Exchange, Response
    from pier.cli.main import Context

COMMAND = Command(
    "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    flags=(
        *CONTAINER_FLAGS,
        Flag("detach", "d", "bool", "Run in the background and print the container's ID"),
        Flag("detach-keys", "", "string", "Keys that detach the terminal, such as ctrl-p,ctrl-q"),
        Flag("sig-proxy", "", "bool", "Hand signals on to the process", "true"),
    ),
    arity=(1, None),
    interspersed=False,
    notes="With -d, and stderr a terminal, pier looks for one second whether the container ends at once,\n"
    "and if so says why (PIER_EXIT_NOTICE=always or never changes that).",
)
EXIT_CANNOT_EXECUTE, EXIT_NOT_FOUND = 126, 127
_NOT_FOUND = ("executable file not found", "no such file or directory", "system cannot find the file specified")
_CANNOT_EXECUTE = ("permission denied", "operation not permitted", "is a directory", "exec format error")


def run(cx: Context, opts: Options, args: list[str]) -> int:
    if opts["detach"] and opts["attach"]:
        raise Failure("conflicting options: cannot specify both --attach and --detach")
    try:
        body = prepare(cx, opts, args, detach=opts["detach"])
        if not opts["detach"] and "stdin" in attached_streams(opts, detach=False):
            _require_tty(opts)
        identifier = create(cx, opts, body, meanwhile=None if opts["detach"] else _load_attached)
    except _Plain as plain:
        raise Failure(plain.text, 1) from None
    except Failure as failure:
        raise _before_start(failure, cx.path) from None
    if opts["detach"]:
        return _detached(cx, opts, identifier)
    return _foreground(cx, opts, identifier)


def _load_attached() -> None:
    """Load what comes next while the daemon creates the container."""
    import pier.cli.attached  # noqa: F401, PLC0415


class _Plain(Failure):
    """A failure that is shown as it is."""


def _require_tty(opts: Options) -> None:
    from pier.cli.attached import require_tty  # noqa: PLC0415 - not needed with -d

    try:
        require_tty(stdin=True, tty=opts["tty"])
    except Failure as failure:
        raise _Plain(failure.text) from None


def start_status(message: str) -> int:
    """The exit status for an error met before the program ran, by the words that name it."""
    if any(text in message for text in _NOT_FOUND):
        return EXIT_NOT_FOUND
    if any(text in message for text in _CANNOT_EXECUTE):
        return EXIT_CANNOT_EXECUTE
    return EXIT_CLIENT


def _before_start(failure: Failure, path: str) -> Failure:
    """Any failure to create: named after the program, with the hint where to read on, exit 125."""
    if failure.status == EXIT_CLIENT or not failure.text:
        return failure
    return Failure(_with_hint(failure.text, path), EXIT_CLIENT)


def _with_hint(text: str, path: str) -> str:
    return f"{PROGRAM}: {text}\n\nRun '{with_program(path)} --help' for more information"


def _start(cx: Context, identifier: str, query: dict[str, Any]) -> None:
    try:
        cx.client.request("POST", f"/containers/{identifier}/start", query=query).read()
    except Failure as failure:
        raise Failure(_with_hint(failure.text, cx.path), start_status(failure.text)) from None


def _detached(cx: Context, opts: Options, identifier: str) -> int:
    from pier.cli.early_exit import notice, wanted  # noqa: PLC0415 - only with -d

    watching = wanted()
    waiting = _begin_wait(cx, identifier, opts).response() if watching else None
    _start(cx, identifier, {"detachKeys": opts["detach-keys"]})
    line(identifier)
    if waiting:
        notice(cx.client, identifier, waiting)
    return 0


def _begin_wait(cx: Context, identifier: str, opts: Options) -> Exchange:
    condition = "removed" if opts["rm"] else "next-exit"
    return cx.client.begin("POST", f"/containers/{identifier}/wait", query={"condition": condition})


def _foreground(cx: Context, opts: Options, identifier: str) -> int:
    from pier.cli.attached import Attachment, Detached, Target, begin_attach, wait_status  # noqa: PLC0415

    streams = attached_streams(opts, detach=False)
    target = Target(
        f"/containers/{identifier}",
        tty=opts["tty"],
        stdin="stdin" in streams and opts["interactive"],
        proxy_signals=opts["sig-proxy"] if opts.given("sig-proxy") else True,
        detach_keys=opts["detach-keys"],
    )
    attaching = begin_attach(cx.client, target, streams)
    begun = _begin_wait(cx, identifier, opts)
    attachment = Attachment(cx.client, attaching.response(), target)
    waiting = begun.response()
    _start_attached(cx, opts, identifier, attachment, waiting)
    attachment.resize()
    try:
        attachment.pump()
    except Detached:
        return 0
    return wait_status(waiting)


def _start_attached(cx: Context, opts: Options, identifier: str, attachment: Attachment, waiting: Response) -> None:
    """Start; when that fails, let the daemon finish removing a --rm container before the error is shown."""
    try:
        _start(cx, identifier, {"detachKeys": opts["detach-keys"]})
    except Failure:
        attachment.close()
        if opts["rm"]:
            waiting.read()
        raise
