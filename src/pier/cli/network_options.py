"""What `network create` and `network connect` send: flags to the API's objects. Pure."""

from __future__ import annotations

from pier.cli.errors import Failure
from pier.cli.values import split_csv

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from pier.cli.flags import Options


def several(texts: Iterable[str]) -> list[str]:
    """The values of a flag that may be given several times and takes several at once, with commas."""
    return [field for text in texts for field in split_csv(text)]


def ipam_config(
    subnets: list[str], ranges: list[str], gateways: list[str], auxiliary: dict[str, str]
) -> list[dict[str, Any]]:
    """IPAM.Config: each range, gateway and auxiliary address with the subnet that holds it. Raises Failure."""
    if len(subnets) < max(len(ranges), len(gateways)):
        raise Failure("every ip-range or gateway must have a corresponding subnet")
    found: dict[str, dict[str, Any]] = {}
    for subnet in subnets:
        if any(_holds(subnet, other) or _holds(other, subnet) for other in found):
            raise Failure("multiple overlapping subnet configuration is not supported")
        found[subnet] = {"Subnet": subnet}
    for part in ranges:
        if "/" not in part:
            raise Failure(f"invalid CIDR address: {part}")
        config = _of(found, part, f"no matching subnet for range {part}")
        if other := config.get("IPRange"):
            raise Failure(f"cannot configure multiple ranges ({part}, {other}) on the same subnet ({config['Subnet']})")
        config["IPRange"] = part
    for gateway in gateways:
        config = _of(found, gateway, f"no matching subnet for gateway {gateway}")
        if other := config.get("Gateway"):
            raise Failure(
                f"cannot configure multiple gateways ({gateway}, {other}) for the same subnet ({config['Subnet']})"
            )
        config["Gateway"] = gateway
    for name, address in auxiliary.items():
        config = _of(found, address, f"no matching subnet for aux-address {address}")
        config.setdefault("AuxiliaryAddresses", {})[name] = address
    return list(found.values())


def _of(configs: dict[str, dict[str, Any]], text: str, problem: str) -> dict[str, Any]:
    for subnet, config in configs.items():
        if _holds(subnet, text):
            return config
    raise Failure(problem)


def _holds(subnet: str, text: str) -> bool:
    """Whether an address, or a network's first, lies in the subnet; no for what is no address."""
    from ipaddress import ip_address, ip_network  # noqa: PLC0415 - only where subnets are given

    try:
        network = ip_network(subnet, strict=False)
        if "/" not in subnet:
            raise ValueError
    except ValueError:
        raise Failure(f"invalid subnet: invalid CIDR address: {subnet}") from None
    if "/" in text:
        try:
            return ip_network(text, strict=False).network_address in network
        except ValueError:
            raise Failure(f"invalid CIDR address: {text}") from None
    try:
        return ip_address(text) in network
    except ValueError:
        return False


def endpoint(opts: Options) -> dict[str, Any]:
    """EndpointConfig of `network connect`; raises Failure."""
    addresses = {"IPv4Address": opts["ip"], "IPv6Address": opts["ip6"], "LinkLocalIPs": several(opts["link-local-ip"])}
    config: dict[str, Any] = {
        "IPAMConfig": {key: value for key, value in addresses.items() if value},
        "Links": opts["link"],
        "Aliases": several(opts["alias"]),
        "DriverOpts": dict(map(_pair, several(opts["driver-opt"]))),
        "GwPriority": opts["gw-priority"],
    }
    return {key: value for key, value in config.items() if value}


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise Failure("invalid key/value pair format in driver options")
    return name, value
