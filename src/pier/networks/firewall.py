"""Pier's own nftables table: what of a container is reachable from where.

The table is static but for two maps; publishing a port is one map element, whatever is there already:

    publish4       host address . protocol . host port : container address . container port
    publish4_any   protocol . host port : container address . container port      (0.0.0.0)

It is replaced as a whole in one transaction, so there is no moment without it, and connections that are translated
already stay so (their translation lives in conntrack). Nothing outside the table is touched.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, ip_address
from typing import Protocol

__all__ = ["TABLE", "FirewallConfig", "Forward", "InstallTable", "PublishPorts", "RemoveTable", "ruleset"]

TABLE = "inet pier"
"""Of the daemon with the usual bridge; see `table_of`."""
USUAL_BRIDGE = "pier0"
BRIDGE_FAMILY = "pier"
"""How the bridges of all of Pier's daemons on a machine should begin: each daemon lets the others' traffic pass."""


def table_of(bridge: str) -> str:
    """The table of a daemon with this default bridge: each daemon of a machine has its own bridge, and table."""
    return TABLE if bridge == USUAL_BRIDGE else f"{TABLE}-{bridge}"


class Runner(Protocol):
    """What executes commands: `pier.kernel.nftables.Nftables` is one."""

    def run(self, commands: str) -> str: ...


@dataclass(frozen=True, slots=True)
class FirewallConfig:
    """One bridge network as the table sees it."""

    bridge: str
    subnet: IPv4Network
    gateway: IPv4Address
    masquerade: bool = True
    """Give what leaves the network the host's address (daemon.json `ip-masq`)."""
    icc: bool = True
    """May containers reach each other's unpublished ports?"""
    router: bool = True
    """May the host forward between devices that are not Pier's? False where Pier itself turned forwarding on."""

    @property
    def table(self) -> str:
        return table_of(self.bridge)


@dataclass(frozen=True, slots=True)
class Forward:
    """One published port."""

    protocol: str
    """`tcp` or `udp`."""
    host_ip: str
    """`0.0.0.0` and `::` are every address of their family."""
    host_port: int
    container_ip: str
    container_port: int

    @property
    def translated(self) -> bool:
        """Is it the table that does it? An IPv6 host address of an IPv4 container is served by a relay instead."""
        return ":" not in self.host_ip


# guard: before anything else. 127.0.0.0/8 belongs to loopback: the bridge has route_localnet, and a port published on
#   127.0.0.1 would otherwise be translated for a neighbour that sends us a packet addressed there. A container's own
#   address is reachable from its bridge and this host only; everyone else has the published ports.
# publish: a hit in a map is a translation.
# postrouting: to the outside as the host. From the host's loopback as the bridge, for a container cannot answer to
#   127.0.0.1. From a container to a published port of its own network as the bridge, or the answer, which would not
#   pass through here, would come from an address that was never asked.
# forward: established, from inside, published; nothing else reaches a container. Bridges of other daemons of Pier's are
#   left to their own tables, for the policy may be to drop.
RULESET = """\
table {table} {{
	map publish4 {{
		type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
		{publish4}
	}}
	map publish4_any {{
		type inet_proto . inet_service : ipv4_addr . inet_service
		{publish4_any}
	}}
	chain guard {{
		type filter hook prerouting priority raw; policy accept;
		iifname != "lo" ip daddr 127.0.0.0/8 drop
		iifname != "lo" ip6 daddr ::1 drop
		iifname != {{ "lo", "{bridge}" }} ip daddr {subnet} ip daddr != {gateway} drop
	}}
	chain publish {{
		dnat ip to ip daddr . meta l4proto . th dport map @publish4
		dnat ip to meta l4proto . th dport map @publish4_any
	}}
	chain prerouting {{
		type nat hook prerouting priority dstnat; policy accept;
		fib daddr type local jump publish
	}}
	chain output {{
		type nat hook output priority -100; policy accept;
		fib daddr type local jump publish
	}}
	chain postrouting {{
		type nat hook postrouting priority srcnat; policy accept;
		{masquerade}
		oifname "{bridge}" ip saddr 127.0.0.0/8 masquerade
		oifname "{bridge}" ip saddr {subnet} ct status dnat masquerade
	}}
	chain forward {{
		type filter hook forward priority filter; policy {forward_policy};
		ct state established,related accept
		iifname "{bridge}" oifname "{bridge}" ct status dnat accept
		iifname "{bridge}" oifname "{bridge}" {icc}
		iifname "{bridge}" accept
		oifname "{bridge}" ct status dnat accept
		oifname "{bridge}" drop
		iifname "{family}*" accept
		oifname "{family}*" accept
	}}
}}
"""


def hand_over(table: str) -> str:
    """Make another daemon's table keep the machine from forwarding for strangers, as ours did."""
    return f"add chain {table} forward {{ policy drop; }}\n"


def element(forward: Forward) -> tuple[str, str]:
    """(map, `key : value`) of a published port."""
    destination = f"{forward.container_ip} . {forward.container_port}"
    if ip_address(forward.host_ip).is_unspecified:
        return "publish4_any", f"{forward.protocol} . {forward.host_port} : {destination}"
    return "publish4", f"{forward.host_ip} . {forward.protocol} . {forward.host_port} : {destination}"


def element_commands(verb: str, forwards: Iterable[Forward], table: str = TABLE) -> str:
    """`add` or `delete` of every element that the table translates, one command a line."""
    pairs = [element(forward) for forward in forwards if forward.translated]
    return "".join(f"{verb} element {table} {name} {{ {text} }}\n" for name, text in pairs)


def elements_clause(name: str, forwards: Iterable[Forward]) -> str:
    """The `elements = { … }` of one map, empty without any."""
    texts = [text for owner, text in (element(forward) for forward in forwards if forward.translated) if owner == name]
    return f"elements = {{ {', '.join(texts)} }}" if texts else ""


def ruleset(config: FirewallConfig, forwards: Iterable[Forward] = ()) -> str:
    """The table's text with its elements."""
    published = list(forwards)
    outside = f'ip saddr {config.subnet} oifname != "{config.bridge}" masquerade'
    return RULESET.format(
        table=config.table,
        bridge=config.bridge,
        family=BRIDGE_FAMILY,
        subnet=config.subnet,
        gateway=config.gateway,
        publish4=elements_clause("publish4", published),
        publish4_any=elements_clause("publish4_any", published),
        masquerade=outside if config.masquerade else "",
        icc="accept" if config.icc else "drop",
        forward_policy="accept" if config.router else "drop",
    )


@dataclass(frozen=True, slots=True)
class InstallTable:
    """Put the table in place, or a fresh one in the place of an old one."""

    config: FirewallConfig
    forwards: tuple[Forward, ...] = ()

    def describe(self) -> str:
        network = self.config
        return f"install nftables table {network.table} for {network.bridge} with {len(self.forwards)} published ports"

    def execute(self, nft: Runner) -> None:
        nft.run(
            f"add table {self.config.table}\ndelete table {self.config.table}\n{ruleset(self.config, self.forwards)}"
        )

    def undo(self, nft: Runner) -> None:
        RemoveTable(self.config.table).execute(nft)


@dataclass(frozen=True, slots=True)
class RemoveTable:
    """Take the table away; one that is not there is no error."""

    table: str = TABLE

    def describe(self) -> str:
        return f"remove nftables table {self.table}"

    def execute(self, nft: Runner) -> None:
        nft.run(f"add table {self.table}\ndelete table {self.table}\n")


@dataclass(frozen=True, slots=True)
class PublishPorts:
    """Make one container's ports reachable, all or none."""

    forwards: tuple[Forward, ...]
    table: str = TABLE

    def describe(self) -> str:
        ports = ", ".join(
            f"{forward.host_ip}:{forward.host_port}->{forward.container_ip}:{forward.container_port}/{forward.protocol}"
            for forward in self.forwards
        )
        return f"publish {ports}"

    def execute(self, nft: Runner) -> None:
        if commands := element_commands("add", self.forwards, self.table):
            nft.run(commands)

    def undo(self, nft: Runner) -> None:
        if commands := element_commands("delete", self.forwards, self.table):
            nft.run(commands)
