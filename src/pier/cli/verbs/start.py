"""`pier start`: start stopped containers, attached to one with -a or -i."""

from __future__ import annotations

from pier.cli.each import path
from pier.cli.errors import ApiError, Failure
from pier.cli.flags import Command, Flag
from pier.cli.out import complain, line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pier.cli.flags import Options
    from pier.cli.main import Context

COMMAND = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    flags=(
        Flag("attach", "a", "bool", "Attach stdout and stderr, hand signals on"),
        Flag("checkpoint", "", "string", "Checkpoint to restore from"),
        Flag("checkpoint-dir", "", "string", "Where checkpoints are"),
        Flag("detach-keys", "", "string", "Keys that detach the terminal, such as ctrl-p,ctrl-q"),
        Flag("interactive", "i", "bool", "Attach stdin"),
        Flag("sig-proxy", "", "bool", "Hand signals on to the process", "true", hidden=True),
    ),
    arity=(1, None),
)


def run(cx: Context, opts: Options, args: list[str]) -> int:
    if opts["attach"] or opts["interactive"]:
        if len(args) > 1:
            raise Failure("you cannot start and attach multiple containers at once")
        return _attached(cx, opts, args[0])
    query = _query(opts)
    failed: list[str] = []
    for name in args:
        try:
            cx.client.post(path("containers", name, "start"), **query)
        except Failure as failure:
            complain(failure.text)
            failed.append(name)
        else:
            line(name)
    if failed:
        raise Failure(f"Error: failed to start containers: {', '.join(failed)}")
    return 0


def _query(opts: Options) -> dict[str, object]:
    return {
        "checkpoint": opts["checkpoint"],
        "checkpoint-dir": opts["checkpoint-dir"],
        "detachKeys": opts["detach-keys"],
    }


def _attached(cx: Context, opts: Options, name: str) -> int:
    from pier.cli.attached import Detached, Target, attach, wait_status  # noqa: PLC0415

    facts = cx.client.get(path("containers", name, "json"))
    config = facts["Config"]
    stdin = bool(opts["interactive"] and config["OpenStdin"])
    tty = bool(config["Tty"])
    container = path("containers", facts["Id"])
    proxy = (opts["sig-proxy"] if opts.given("sig-proxy") else True) and not tty
    target = Target(container, tty=tty, stdin=stdin, proxy_signals=proxy, detach_keys=opts["detach-keys"])
    attachment = attach(cx.client, target, ["stdin"] * stdin + ["stdout", "stderr"])
    condition = "removed" if facts["HostConfig"].get("AutoRemove") else "next-exit"
    waiting = cx.client.request("POST", f"{container}/wait", query={"condition": condition})
    try:
        cx.client.post(f"{container}/start", **_query(opts))
    except ApiError:
        attachment.close()
        raise
    attachment.resize()
    try:
        attachment.pump()
    except Detached:
        return 0
    return wait_status(waiting)
