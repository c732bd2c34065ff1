"""The default bridge on the host's side: device, kernel settings and firewall table, made and taken away together.

Everything here blocks; the service calls it in its worker thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

from pier.errors import InvalidParameter, PierError
from pier.kernel.conntrack import forget_udp_flows
from pier.kernel.netlink import NetlinkSocket
from pier.kernel.nftables import Nftables, NftablesError, NftablesMissing
from pier.networks import bridge
from pier.networks.bridge import BridgeConfig
from pier.networks.firewall import FirewallConfig, Forward, InstallTable, PublishPorts, RemoveTable, hand_over, table_of
from pier.networks.ipam import DEFAULT_POOLS, AddressPool, choose_subnet

__all__ = ["BadBridgeAddress", "HostSide", "NetworkConfig"]


class BadBridgeAddress(InvalidParameter):
    """invalid address of the default bridge: {reason}"""

    exit_code = 1
    remedy = "set `bip` to an address with prefix length, e.g. 172.17.0.1/16, and `fixed-cidr` to a part of its network"


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """The daemon's settings of the default bridge; names as in daemon.json."""

    bridge: str = "pier0"
    """`none`: there is no default bridge."""
    bip: str = ""
    """The bridge's address with prefix length; empty: the first of the pools that no route of the host overlaps."""
    fixed_cidr: str = ""
    pools: Sequence[AddressPool] = DEFAULT_POOLS
    mtu: int = 1500
    ip: str = "0.0.0.0"  # noqa: S104  # Docker's default for published ports
    icc: bool = True
    ip_forward: bool = True
    ip_masq: bool = True
    iptables: bool = True
    """Make firewall rules at all; without them no port can be published."""


class HostSide:
    """The default bridge of this machine. `bridge_off` and `publish_off` say why one does not work; empty: it does."""

    def __init__(self, config: NetworkConfig) -> None:
        self.config = config
        self.network: FirewallConfig | None = None
        """Bridge, subnet and gateway once `start` has made them."""
        self.bridge_off = self.publish_off = "the daemon has not started"
        self.table = table_of(config.bridge)
        self._nft: Nftables | None = None

    def start(self, *, earlier_subnet: str, published: Sequence[Forward], in_use: bool) -> list[str]:
        """Make what is missing, the table with `published` in it; returns warnings about what this machine lacks.

        `earlier_subnet` is kept where it still overlaps nothing of the host's, or containers live in it (`in_use`).
        """
        if self.config.bridge == "none":
            self.bridge_off = self.publish_off = "the daemon runs with bridge=none"
            return []
        try:
            with NetlinkSocket() as netlink:
                warnings = self._start(netlink, earlier_subnet, published, in_use)
        except (OSError, ValueError, PierError) as error:
            self.bridge_off = self.publish_off = str(error)
            return [f"WARNING: the bridge network is off: {error}"]
        self.bridge_off = ""
        return warnings

    def publish(self, forwards: Sequence[Forward]) -> None:
        """Raises NftablesError; then none is published."""
        if self._nft is not None:
            PublishPorts(tuple(forwards), self.table).execute(self._nft)
            forget_flows(forwards)

    def unpublish(self, forwards: Sequence[Forward]) -> None:
        """Raises NftablesError where the table was changed by others."""
        if self._nft is not None:
            PublishPorts(tuple(forwards), self.table).undo(self._nft)
            forget_flows(forwards)

    def remove(self) -> None:
        """Take away table and bridge, and forwarding where Pier turned it on and no other daemon of Pier's needs it."""
        self.bridge_off = self.publish_off = "the bridge network was removed"
        if self._nft is not None:
            self._remove_table(self._nft)
        if self.config.bridge != "none":
            with NetlinkSocket() as netlink:
                bridge.remove_bridge(self.config.bridge, netlink)

    def _remove_table(self, nft: Nftables) -> None:
        ours = forwarding_is_ours(nft, self.table)
        heirs = other_tables(nft.list("tables"), self.table) if ours else []
        if heirs:
            nft.run(hand_over(heirs[0]))
        elif ours:
            bridge.write_sysctl(bridge.IP_FORWARD, "0")
        RemoveTable(self.table).execute(nft)

    def close(self) -> None:
        if self._nft is not None:
            self._nft.close()
            self._nft = None

    def _start(
        self, netlink: NetlinkSocket, earlier_subnet: str, published: Sequence[Forward], in_use: bool
    ) -> list[str]:
        address = choose_address(self.config, earlier_subnet, self._occupied(netlink), in_use=in_use)
        wanted = BridgeConfig(self.config.bridge, address.network, address.ip, self.config.mtu, self.config.ip_forward)
        bridge.run_plan(bridge.bridge_plan(wanted, netlink), netlink)
        settings = bridge.sysctl_plan(bridge.wanted_sysctls(wanted, icc=self.config.icc))
        self.network = FirewallConfig(
            bridge=wanted.name,
            subnet=wanted.subnet,
            gateway=wanted.gateway,
            masquerade=self.config.ip_masq,
            icc=self.config.icc,
            router=not any(isinstance(step, bridge.SetSysctl) and step.key == bridge.IP_FORWARD for step in settings),
        )
        # The table stands before forwarding is on: at no moment does this machine route for strangers.
        warnings = self._install_table(published)
        bridge.run_plan(settings, netlink)
        return warnings

    def _occupied(self, netlink: NetlinkSocket) -> list[IPv4Network]:
        own = next((link.index for link in netlink.links() if link.name == self.config.bridge), 0)
        return bridge.host_networks(netlink.routes(), netlink.addresses(), except_index=own)

    def _install_table(self, published: Sequence[Forward]) -> list[str]:
        assert self.network is not None
        if not self.config.iptables:
            self.publish_off = "the daemon runs with iptables=false"
            return []
        try:
            self._nft = self._nft or Nftables()
            if self.network.router and forwarding_is_ours(self._nft, self.table):
                self.network = replace(self.network, router=False)
            InstallTable(self.network, tuple(published)).execute(self._nft)
            self.publish_off = ""
            return foreign_drops(self._nft.list("chains"), self.network.bridge)
        except (NftablesMissing, NftablesError) as error:
            self.publish_off = error.wire
            return [f"WARNING: no address translation, no published ports: {error.wire}"]


def forget_flows(forwards: Iterable[Forward]) -> None:
    """Let clients that go on sending to a UDP port be translated, or not, as the table says now."""
    ports = {forward.host_port for forward in forwards if forward.protocol == "udp"}
    with suppress(OSError):  # no connection tracking that can be asked: such flows end by their timeout
        if ports:
            forget_udp_flows(ports)


def check_addresses(config: NetworkConfig) -> None:
    """Raises BadBridgeAddress."""
    try:
        address = IPv4Interface(config.bip) if config.bip else None
        within = IPv4Network(config.fixed_cidr) if config.fixed_cidr else None
    except ValueError as error:
        raise BadBridgeAddress(reason=str(error)) from None
    if address and (address.network.prefixlen > 30 or address.ip in edges(address.network)):
        raise BadBridgeAddress(reason=f"{config.bip} leaves no room for containers or is no host's address")
    if within and not (address and within.subnet_of(address.network)):
        raise BadBridgeAddress(
            reason=f"fixed-cidr {within} is no part of the bridge's network {config.bip or '(unset)'}"
        )


def edges(network: IPv4Network) -> tuple[IPv4Address, IPv4Address]:
    return network.network_address, network.broadcast_address


def choose_address(
    config: NetworkConfig, earlier: str, occupied: Sequence[IPv4Network], *, in_use: bool
) -> IPv4Interface:
    """The bridge's address: the one configured, the one it had, or a new one; raises SubnetsExhausted."""
    if config.bip:
        return IPv4Interface(config.bip)
    if earlier and (in_use or not any(IPv4Network(earlier).overlaps(network) for network in occupied)):
        subnet = IPv4Network(earlier)
    else:
        subnet = choose_subnet(config.pools, occupied)
    return IPv4Interface(f"{subnet.network_address + 1}/{subnet.prefixlen}")


def forwarding_is_ours(nft: Nftables, table: str) -> bool:
    """Was it Pier that turned forwarding on? Its table says so: the forward chain drops what is not Pier's."""
    try:
        listed = nft.list(f"chain {table} forward")
    except NftablesError:
        return False
    return any(item.get("chain", {}).get("policy") == "drop" for item in listed)


def is_ours(table: str) -> bool:
    """Is it a table of Pier's, of this daemon or of another one?"""
    return table == "pier" or table.startswith("pier-")


def other_tables(listed: Iterable[dict[str, Any]], own: str) -> list[str]:
    """The tables of other daemons of Pier's; `listed` is what `list tables` answers."""
    tables = [item["table"] for item in listed if "table" in item]
    names = [f"{table['family']} {table['name']}" for table in tables if is_ours(table["name"])]
    return [name for name in names if name != own]


def foreign_drops(listed: Iterable[dict[str, Any]], bridge_name: str) -> list[str]:
    """A warning for each other firewall that drops forwarded packets: accepting in one table outvotes no other.

    `listed` is what `list chains` answers.
    """
    chains = [item["chain"] for item in listed if "chain" in item]
    return [
        f"WARNING: {chain['family']} {chain['table']} {chain['name']} drops forwarded packets by default, those of "
        f"containers too, unless it accepts device {bridge_name} in and out"
        for chain in chains
        if chain.get("hook") == "forward" and chain.get("policy") == "drop" and not is_ours(chain["table"])
    ]
