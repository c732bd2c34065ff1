"""`pier network create`: make a network."""

from __future__ import annotations

from pier.cli.flags import Command, Flag
from pier.cli.out import complain, line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pier.cli.flags import Options
    from pier.cli.main import Context

COMMAND = Command(
    "[OPTIONS] NETWORK",
    flags=(
        Flag("attachable", "", "bool", "Allow containers to be connected by hand"),
        Flag("aux-address", "", "map", "Address of something else on the network, never given away: name=address"),
        Flag("config-from", "", "string", "Take the configuration from this network"),
        Flag("config-only", "", "bool", "Make a configuration for other networks, and nothing else"),
        Flag("driver", "d", "string", "bridge, macvlan or ipvlan", "bridge"),
        Flag("gateway", "", "strings", "Gateway of the subnet, IPv4 or IPv6"),
        Flag("ingress", "", "bool", "Make the routing mesh of a swarm"),
        Flag("internal", "", "bool", "Without a way out"),
        Flag("ip-range", "", "strings", "Give containers addresses of this part of the subnet only"),
        Flag("ipam-driver", "", "string", "Who gives addresses away", "default"),
        Flag("ipam-opt", "", "map", "Setting for that driver: name=value"),
        Flag("ipv4", "", "bool", "Whether containers get IPv4 addresses", "true"),
        Flag("ipv6", "", "bool", "Whether containers get IPv6 addresses"),
        Flag("label", "", "label", "Label: name=value"),
        Flag("opt", "o", "map", "Setting for the driver: name=value"),
        Flag("scope", "", "string", "How far the network reaches: local"),
        Flag("subnet", "", "strings", "Subnet with prefix length, one for each family"),
    ),
    arity=(1, 1),
)


def run(cx: Context, opts: Options, args: list[str]) -> int:
    answer = cx.client.post("/networks/create", body(opts, args[0]))
    if answer.get("Warning"):
        complain(f"WARNING: {answer['Warning']}")
    line(answer["Id"])
    return 0


def body(opts: Options, name: str) -> dict[str, Any]:
    """The request; raises Failure for addresses that do not belong together."""
    from pier.cli.network_options import ipam_config, several  # noqa: PLC0415 - loaded with the request

    config = ipam_config(
        several(opts["subnet"]), several(opts["ip-range"]), several(opts["gateway"]), opts["aux-address"]
    )
    wanted: dict[str, Any] = {
        "Name": name,
        "Driver": opts["driver"] or "bridge",
        "Scope": opts["scope"],
        "IPAM": {"Driver": opts["ipam-driver"] or "default", "Options": opts["ipam-opt"], "Config": config},
        "Internal": opts["internal"],
        "Attachable": opts["attachable"],
        "Ingress": opts["ingress"],
        "ConfigOnly": opts["config-only"],
        "Options": opts["opt"],
        "Labels": dict(text.partition("=")[::2] for text in opts["label"]),
    }
    if opts["config-from"]:
        wanted["ConfigFrom"] = {"Network": opts["config-from"]}
    for family in ("4", "6"):
        if opts.given(f"ipv{family}"):
            wanted[f"EnableIPv{family}"] = opts[f"ipv{family}"]
    return wanted
