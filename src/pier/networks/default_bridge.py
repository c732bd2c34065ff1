"""The default bridge as the daemon's configuration describes it: `bip`, `fixed-cidr` and their IPv6 kin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, ip_address, ip_interface, ip_network
from typing import TypeAlias

from pier.errors import InvalidParameter
from pier.networks.bridge_options import BridgeNetwork, bridge_network
from pier.networks.ipam import (
    DEFAULT_POOLS,
    Network,
    Subnet,
    SubnetPool,
    choose_subnet,
    edges,
    first_gateway,
    overlaps,
    ula_pool,
)

__all__ = ["BadBridgeAddress", "NetworkConfig", "check_addresses", "default_bridge", "pools_of"]

Interface: TypeAlias = IPv4Interface | IPv6Interface


class BadBridgeAddress(InvalidParameter):
    """invalid address of the default bridge: {reason}"""

    exit_code = 1
    remedy = "set `bip` to an address with prefix length, e.g. 172.17.0.1/16, and `fixed-cidr` to a part of its network"


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """The daemon's settings of networks; names as in daemon.json."""

    bridge: str = "pier0"
    """`none`: there is no default bridge."""
    bip: str = ""
    """The bridge's address with prefix length; empty: the first of the pools that no route of the host overlaps."""
    bip6: str = ""
    fixed_cidr: str = ""
    fixed_cidr_v6: str = ""
    ipv6: bool = False
    """Give the default bridge IPv6; without `bip6` or `fixed_cidr_v6` from this daemon's own prefix."""
    default_gateway: str = ""
    default_gateway_v6: str = ""
    pools: Sequence[SubnetPool] = DEFAULT_POOLS
    seed: str = ""
    """What the daemon's own IPv6 prefix is derived from: its engine id."""
    mtu: int = 1500
    ip: str = "0.0.0.0"  # noqa: S104  # Docker's default for published ports
    icc: bool = True
    ip_forward: bool = True
    ip_masq: bool = True
    iptables: bool = True
    """Make firewall rules at all; without them no port can be published."""
    ip6tables: bool = True
    allow_direct_routing: bool = False
    ip_forward_no_drop: bool = False
    """Let this machine forward for strangers where Pier turned forwarding on."""
    userland_proxy: bool = True
    """Carry published ports that the kernel does not translate."""
    ports_firewall: str = "bypass"
    """`host`: who reaches published ports from other machines is the host's firewall's to say."""
    network_opts: Mapping[str, Mapping[str, str]] = field(default_factory=dict, hash=False)
    """Options of new networks by driver (`default-network-opts`)."""


def pools_of(config: NetworkConfig) -> list[SubnetPool]:
    """Where subnets are cut from; IPv6 from this daemon's own prefix where no pool is configured for it."""
    own = [] if any(pool.base.version == 6 for pool in config.pools) else [ula_pool(config.seed)]
    return [*config.pools, *own]


def check_addresses(config: NetworkConfig) -> None:
    """Raises BadBridgeAddress."""
    try:
        for bip, cidr, version in ((config.bip, config.fixed_cidr, 4), (config.bip6, config.fixed_cidr_v6, 6)):
            check_family(ip_interface(bip) if bip else None, ip_network(cidr) if cidr else None, version)
        for text, version in ((config.default_gateway, 4), (config.default_gateway_v6, 6)):
            if text and ip_address(text).version != version:
                raise BadBridgeAddress(reason=f"default gateway {text} is no IPv{version} address")
    except ValueError as error:
        raise BadBridgeAddress(reason=str(error)) from None


def check_family(address: Interface | None, within: Network | None, version: int) -> None:
    """Raises BadBridgeAddress."""
    for item in (address, within):
        if item is not None and item.version != version:
            raise BadBridgeAddress(reason=f"{item} is no IPv{version} address")
    if address is not None and (
        address.network.prefixlen > address.max_prefixlen - 2 or int(address.ip) in edges(address.network)
    ):
        raise BadBridgeAddress(reason=f"{address} leaves no room for containers or is no host's address")
    if within is None:
        return
    if address is not None and not within.subnet_of(address.network):  # type: ignore[arg-type]
        raise BadBridgeAddress(reason=f"fixed-cidr {within} is no part of the bridge's network {address}")
    if address is None and version == 4:
        raise BadBridgeAddress(reason=f"fixed-cidr {within} is no part of the bridge's network (unset)")


def default_bridge(
    config: NetworkConfig, network_id: str, *, earlier: Sequence[str], occupied: Sequence[Network], in_use: bool
) -> BridgeNetwork:
    """The default network.

    `earlier` are its subnets of the last start: kept where they still overlap nothing of `occupied`, or containers live
    in them (`in_use`). Raises SubnetsExhausted, BadOption.
    """
    before = [ip_network(text) for text in earlier]
    subnets = [choose_range(config, before, occupied, in_use=in_use)]
    if config.ipv6:
        subnets.append(choose_range6(config, before, occupied, in_use=in_use))
    named = bridge_network(network_id, subnets, {"com.docker.network.bridge.name": config.bridge})
    return BridgeNetwork(
        id=network_id,
        bridge=named.bridge,
        subnets=tuple(subnets),
        mtu=config.mtu,
        icc=config.icc,
        masquerade=config.ip_masq,
        default_gateway_v4=config.default_gateway,
        default_gateway_v6=config.default_gateway_v6,
    )


def choose_range(
    config: NetworkConfig, earlier: Sequence[Network], occupied: Sequence[Network], *, in_use: bool
) -> Subnet:
    """The bridge's IPv4 range: the one configured, the one it had, or a new one; raises SubnetsExhausted."""
    within = IPv4Network(config.fixed_cidr) if config.fixed_cidr else None
    aux = {"DefaultGatewayIPv4": ip_address(config.default_gateway)} if config.default_gateway else {}
    if config.bip:
        address = IPv4Interface(config.bip)
        return Subnet(address.network, address.ip, within, aux)
    network = kept(4, earlier, occupied, in_use=in_use) or choose_subnet(4, config.pools, occupied)
    return Subnet(network, first_gateway(Subnet(network)), within, aux)


def choose_range6(
    config: NetworkConfig, earlier: Sequence[Network], occupied: Sequence[Network], *, in_use: bool
) -> Subnet:
    """The bridge's IPv6 range, as `choose_range`."""
    aux = {"DefaultGatewayIPv6": ip_address(config.default_gateway_v6)} if config.default_gateway_v6 else {}
    within = ip_network(config.fixed_cidr_v6) if config.fixed_cidr_v6 else None
    if config.bip6:
        address = IPv6Interface(config.bip6)
        return Subnet(address.network, address.ip, within, aux)
    network = within or kept(6, earlier, occupied, in_use=in_use) or choose_subnet(6, pools_of(config), occupied)
    return Subnet(network, first_gateway(Subnet(network)), None, aux)


def kept(version: int, earlier: Sequence[Network], occupied: Sequence[Network], *, in_use: bool) -> Network | None:
    found = next((network for network in earlier if network.version == version), None)
    if found is not None and not in_use and any(overlaps(found, network) for network in occupied):
        return None
    return found
