"""`pier port`: a container's published ports."""

from __future__ import annotations

from pier.cli.each import path
from pier.cli.errors import Failure
from pier.cli.flags import Command
from pier.cli.out import line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pier.cli.flags import Options
    from pier.cli.main import Context
    from pier.cli.ports import Bindings

COMMAND = Command("CONTAINER [PRIVATE_PORT[/PROTO]]", arity=(1, 2))


def run(cx: Context, opts: Options, args: list[str]) -> int:
    facts = cx.client.get(path("containers", args[0], "json"))
    ports: Bindings = facts["NetworkSettings"]["Ports"] or {}
    if len(args) == 1:
        for text in sorted(all_lines(ports), key=lambda text: (int(text.split("/")[0]), text)):
            line(text)
        return 0
    number, _, protocol = args[1].partition("/")
    bindings = ports.get(f"{number}/{protocol or 'tcp'}")
    if not bindings:
        raise Failure(f"Error: No public port '{args[1]}' published for {args[0]}")
    for binding in bindings:
        line(address(binding))
    return 0


def all_lines(ports: Bindings) -> list[str]:
    """`80/tcp -> 0.0.0.0:8080` for every binding of every port."""
    return [f"{port} -> {address(binding)}" for port, bindings in ports.items() for binding in bindings or []]


def address(binding: dict[str, str]) -> str:
    host = binding["HostIp"]
    return f"[{host}]:{binding['HostPort']}" if ":" in host else f"{host}:{binding['HostPort']}"
