"""`pier update`: change limits and restart policy of containers, running or not."""

from __future__ import annotations

from pier.cli.container_config import UPDATABLE, restart_policy
from pier.cli.container_flags import CONTAINER_FLAGS
from pier.cli.each import each, path
from pier.cli.errors import Failure
from pier.cli.flags import Command, Flag
from pier.cli.out import complain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pier.cli.flags import Options
    from pier.cli.main import Context
    from pier.cli.ports import Bindings

AS_RUN = {*UPDATABLE, "pids-limit"} - {"kernel-memory"}
"""Flags that are those of `run` and `create`."""

COMMAND = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    flags=(
        *(flag for flag in CONTAINER_FLAGS if flag.name in AS_RUN),
        Flag("kernel-memory", "", "bytes", "Kernel memory limit; without effect", hidden=True),
        Flag("publish-add", "", "list", "Publish one more port, also while it runs: as --publish of run"),
        Flag("publish-rm", "", "list", "Publish a port of the host no more: 8080, 127.0.0.1:8080, 8080/udp"),
        Flag("restart", "", "string", "When to start again: no, always, unless-stopped, on-failure[:N]"),
    ),
    arity=(1, None),
)


def run(cx: Context, opts: Options, args: list[str]) -> int:
    if not any(opts.given(flag.name) for flag in COMMAND.flags):
        raise Failure("you must provide one or more flags when using this command")
    body = changes(opts)
    warnings: list[str] = []

    def update(name: str) -> None:
        answer = cx.client.post(path("containers", name, "update"), body=body)
        warnings.extend(answer["Warnings"] or ())

    status = each(args, update)
    if warnings:
        complain("\n".join(warnings))
    return status


def changes(opts: Options) -> dict[str, Any]:
    """The body of the request: what was asked for. Raises Failure."""
    body: dict[str, Any] = {member: opts[flag] for flag, member in UPDATABLE.items() if opts[flag]}
    if opts.given("pids-limit"):
        body["PidsLimit"] = opts["pids-limit"]
    if opts["publish-rm"]:
        body["PublishRm"] = opts["publish-rm"]
    if opts["publish-add"]:
        body["PublishAdd"] = added_ports(opts["publish-add"])
    if opts["restart"]:
        try:
            body["RestartPolicy"] = restart_policy(opts["restart"])
        except ValueError as error:
            raise Failure(str(error)) from None
    return body


def added_ports(texts: list[str]) -> Bindings:
    """Raises Failure."""
    from pier.cli.ports import publish  # noqa: PLC0415 - only with that flag

    try:
        return publish(texts)
    except ValueError as error:
        raise Failure(str(error)) from None
