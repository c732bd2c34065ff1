"""`pier network connect`: give a container one more network, while it runs or for its next start."""

from __future__ import annotations

from pier.cli.each import path
from pier.cli.flags import Command, Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pier.cli.flags import Options
    from pier.cli.main import Context

COMMAND = Command(
    "[OPTIONS] NETWORK CONTAINER",
    flags=(
        Flag("alias", "", "strings", "Further name of the container on the network"),
        Flag("driver-opt", "", "strings", "Setting for the network's driver: name=value"),
        Flag("gw-priority", "", "int", "The network with the highest has the default route; may be negative"),
        Flag("ip", "", "string", "IPv4 address on the network"),
        Flag("ip6", "", "string", "IPv6 address on the network"),
        Flag("link", "", "list", "Container to know by another name: name:alias"),
        Flag("link-local-ip", "", "strings", "Link-local address on the network"),
    ),
    arity=(2, 2),
)


def run(cx: Context, opts: Options, args: list[str]) -> int:
    from pier.cli.network_options import endpoint  # noqa: PLC0415 - loaded with the request

    network, container = args
    body = {"Container": container, "EndpointConfig": endpoint(opts)}
    cx.client.post(path("networks", network, "connect"), body)
    return 0
