"""`pier exec`: run a command in a running container; the exit status is the command's."""

from __future__ import annotations

from pier.cli.container_config import read_environment
from pier.cli.each import path
from pier.cli.errors import Failure
from pier.cli.flags import Command, Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pier.cli.flags import Options
    from pier.cli.main import Context

COMMAND = Command(
    "[OPTIONS] CONTAINER COMMAND [ARG...]",
    flags=(
        Flag("detach", "d", "bool", "Run in the background"),
        Flag("detach-keys", "", "string", "Keys that detach the terminal, such as ctrl-p,ctrl-q"),
        Flag("env", "e", "env", "Environment variable: NAME=value, or NAME to pass the caller's"),
        Flag("env-file", "", "list", "File of environment variables, one a line"),
        Flag("interactive", "i", "bool", "Keep stdin open"),
        Flag("privileged", "", "bool", "Give the command all capabilities"),
        Flag("tty", "t", "bool", "Give it a terminal"),
        Flag("user", "u", "string", "User and group: name|uid[:group|gid]"),
        Flag("workdir", "w", "string", "Working directory inside"),
    ),
    arity=(2, None),
    interspersed=False,
)


def run(cx: Context, opts: Options, args: list[str]) -> int:
    from pier.cli.attached import require_tty  # noqa: PLC0415 - it brings the poll loop

    try:
        body = exec_config(opts, args[1:])
    except ValueError as error:
        raise Failure(str(error)) from None
    if not opts["detach"]:
        require_tty(stdin=opts["interactive"], tty=opts["tty"])
    identifier = cx.client.post(path("containers", args[0], "exec"), body)["Id"]
    if opts["detach"]:
        cx.client.post(f"/exec/{identifier}/start", {"Detach": True, "Tty": opts["tty"]})
        return 0
    return _foreground(cx, opts, identifier, body)


def exec_config(opts: Options, command: list[str]) -> dict[str, Any]:
    """The API's ExecConfig."""
    from pier.cli.tty import size  # noqa: PLC0415 - with attached

    attached = not opts["detach"]
    config: dict[str, Any] = {
        "User": opts["user"],
        "Privileged": opts["privileged"],
        "Tty": opts["tty"],
        "AttachStdin": attached and opts["interactive"],
        "AttachStdout": attached,
        "AttachStderr": attached,
        "DetachKeys": opts["detach-keys"],
        "Env": read_environment(opts) or None,
        "WorkingDir": opts["workdir"],
        "Cmd": command,
    }
    if opts["tty"] and (now := size()):
        config["ConsoleSize"] = list(now)
    return config


def _foreground(cx: Context, opts: Options, identifier: str, body: dict[str, Any]) -> int:
    from pier.cli.attached import Attachment, Detached, Target, upgrade  # noqa: PLC0415

    target = Target(
        f"/exec/{identifier}",
        tty=opts["tty"],
        stdin=opts["interactive"],
        proxy_signals=False,
        detach_keys=opts["detach-keys"],
    )
    start = {"Detach": False, "Tty": opts["tty"]}
    if "ConsoleSize" in body:
        start["ConsoleSize"] = body["ConsoleSize"]
    attachment = Attachment(cx.client, upgrade(cx.client, f"{target.path}/start", {}, start), target)
    try:
        attachment.pump()
    except Detached:
        raise Failure("read escape sequence") from None
    return int(cx.client.get(f"{target.path}/json").get("ExitCode") or 0)
