"""`pier attach`: connect this terminal to a running container.

On a terminal a banner on stderr names the keys that detach, because Ctrl-C goes to the container (trap 2).
"""

from __future__ import annotations

import os

from pier.cli.each import path
from pier.cli.errors import Failure
from pier.cli.flags import Command, Flag
from pier.cli.out import complain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pier.cli.flags import Options
    from pier.cli.main import Context

COMMAND = Command(
    "[OPTIONS] CONTAINER",
    flags=(
        Flag("detach-keys", "", "string", "Keys that detach the terminal, such as ctrl-p,ctrl-q"),
        Flag("no-stdin", "", "bool", "Do not attach stdin"),
        Flag("sig-proxy", "", "bool", "Hand signals on to the process", "true"),
    ),
    arity=(1, 1),
)


def run(cx: Context, opts: Options, args: list[str]) -> int:
    facts = cx.client.get(path("containers", args[0], "json"))
    if problem := cannot_attach(facts["State"]):
        raise Failure(problem)
    config = facts["Config"]
    tty = bool(config["Tty"])
    stdin = bool(config["OpenStdin"]) and not opts["no-stdin"]
    proxy = opts["sig-proxy"] if opts.given("sig-proxy") else True
    from pier.cli.attached import Detached, Target, attach, require_tty, wait_status  # noqa: PLC0415

    require_tty(stdin=stdin, tty=tty)
    if os.isatty(0):
        complain(banner(tty=tty, stdin=stdin, proxy=proxy, keys=opts["detach-keys"]))
    container = path("containers", facts["Id"])
    target = Target(container, tty=tty, stdin=stdin, proxy_signals=proxy and not tty, detach_keys=opts["detach-keys"])
    waiting = cx.client.request("POST", f"{container}/wait")
    attachment = attach(cx.client, target, ["stdin"] * stdin + ["stdout", "stderr"])
    attachment.redraw()
    try:
        attachment.pump()
    except Detached:
        raise Failure("read escape sequence") from None
    return wait_status(waiting)


def cannot_attach(state: dict[str, Any]) -> str:
    """Why a container in this state cannot be attached to; "" when it can."""
    if not state["Running"]:
        return "You cannot attach to a stopped container, start it first"
    if state.get("Paused"):
        return "You cannot attach to a paused container, unpause it first"
    if state.get("Restarting"):
        return "You cannot attach to a restarting container, wait until it is running"
    return ""


def banner(*, tty: bool, stdin: bool, proxy: bool, keys: str) -> str:
    """One line on how to leave, and what Ctrl-C does here."""
    from pier.cli.tty import DETACH_KEYS  # noqa: PLC0415 - only for the banner

    if tty and stdin:
        return f"Attached. Detach with {keys or DETACH_KEYS}; Ctrl-C goes to the container."
    if proxy and not tty:
        return "Attached. Ctrl-C goes to the container and may end it; --sig-proxy=false keeps it here."
    return "Attached. Ctrl-C detaches; the container goes on."
