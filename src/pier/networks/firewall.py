"""Pier's own nftables table: what of a container is reachable from where.

The base chains are few and stay as they are; they ask maps. A network is a handful of map elements and up to four small
chains of its own, a published port is one element, whatever is there already:

    publish4, publish6           host address . protocol . host port : container address . container port
    publish4_any, publish6_any   protocol . host port : container address . container port     (every host address)
    open4, open6                 container address . protocol . port     reachable at its own address
    guarded4, guarded6           subnet : who may send to its addresses from elsewhere
    leaving4, leaving6           subnet : which address what leaves it gets
    confined                     bridge : where an internal network's containers may send to
    into                         bridge : what is forwarded to it

The table is replaced as a whole in one transaction, so there is no moment without it, and connections that are
translated already stay so (their translation lives in conntrack). Nothing outside the table is touched.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Protocol

from pier.kernel.nfelements import SetElement
from pier.networks.bridge_options import BridgeNetwork
from pier.networks.foreign import MARK
from pier.networks.ipam import Subnet

__all__ = ["TABLE", "Firewall", "Forward", "hand_over", "table_of"]

TABLE = "inet pier"
"""Of the daemon with the usual bridge; see `table_of`."""
USUAL_BRIDGE = "pier0"
SHARED = ("others", "closed")
"""Sets in which other daemons of Pier's on this machine have a say."""
FAMILIES = {4: "ip", 6: "ip6"}
"""nft's words for the IP versions."""


def table_of(bridge: str) -> str:
    """The table of a daemon with this default bridge: each daemon of a machine has its own bridge, and table."""
    return TABLE if bridge == USUAL_BRIDGE else f"{TABLE}-{bridge}"


class Runner(Protocol):
    """What executes commands: `pier.kernel.nftables.Nftables` is one."""

    def run(self, commands: str) -> str: ...


@dataclass(frozen=True, slots=True)
class Forward:
    """One published port."""

    protocol: str
    """`tcp`, `udp` or `sctp`."""
    host_ip: str
    """`0.0.0.0` and `::` are every address of their family."""
    host_port: int
    container_ip: str
    container_port: int
    bridge: str = ""
    """The device of the network it is published from; empty: the default bridge's."""

    @property
    def translated(self) -> bool:
        """Is it the table that does it?

        Between IPv6 and IPv4 no kernel translates, nor from ::1 to elsewhere (IPv6 has no `route_localnet`): see
        `networks.carriage`.
        """
        return (":" in self.host_ip) == (":" in self.container_ip) and self.host_ip != "::1"

    @property
    def version(self) -> int:
        """The container's IP version."""
        return 6 if ":" in self.container_ip else 4


# guard: before anything else. 127.0.0.0/8 and ::1 belong to loopback: the bridge has route_localnet, and a port
#   published on 127.0.0.1 would otherwise be translated for a neighbour that sends us a packet addressed there.
# publish: a hit in a map is a translation. What comes from a link-local address cannot be forwarded: a relay takes it.
# prerouting: where the host's own firewall has a say (`published-ports-firewall`), what comes from other machines is
#   not translated: it goes to the host's sockets, past the host's rules, and a relay takes it on.
# output: ::1 is left to relays, see `Forward.translated`.
# postrouting: see `leave_rules`. From the host's loopback as the bridge, for a container cannot answer to 127.0.0.1.
# forward: what a network lets in is its own chain's matter; what leaves a network has been looked at by then. `others`
#   are the bridges of this machine's other Pier daemons, whose own tables look after them. `closed` has the IP versions
#   that were not forwarded before Pier turned forwarding on: this machine does not become a router for strangers.
# claim, disclaim: a mark for other firewalls' chains (`networks.foreign`), which stand between the two. Where the
#   host's firewall has a say, what comes in from elsewhere gets none.
BASE = """\
table {table} {{
	map publish4 {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }}
	map publish4_any {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}
	map publish6 {{ type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; }}
	map publish6_any {{ type inet_proto . inet_service : ipv6_addr . inet_service; }}
	set open4 {{ type ipv4_addr . inet_proto . inet_service; }}
	set open6 {{ type ipv6_addr . inet_proto . inet_service; }}
	set bridges {{ type ifname; }}
	set internal {{ type ifname; }}
	set others {{ type ifname; }}
	set closed {{ type nf_proto; }}
	map guarded4 {{ type ipv4_addr : verdict; flags interval; }}
	map guarded6 {{ type ipv6_addr : verdict; flags interval; }}
	map leaving4 {{ type ipv4_addr : verdict; flags interval; }}
	map leaving6 {{ type ipv6_addr : verdict; flags interval; }}
	map confined {{ type ifname : verdict; }}
	map into {{ type ifname : verdict; }}
	chain guard {{
		type filter hook prerouting priority raw; policy accept;
		iifname != "lo" ip daddr 127.0.0.0/8 drop
		iifname != "lo" ip6 daddr ::1 drop
		iifname vmap @confined
		ip daddr vmap @guarded4
		ip6 daddr vmap @guarded6
	}}
{nat}	chain forward {{
		type filter hook forward priority filter - 2; policy accept;
		ct state established,related accept
		oifname vmap @into
		iifname @internal drop
		iifname @bridges accept
		iifname @others accept
		oifname @others accept
		meta nfproto @closed drop
	}}
	chain claim {{
		type filter hook forward priority filter - 1; policy accept;
		iifname @bridges meta mark set meta mark | {mark:#010x}
		oifname @bridges {inward}meta mark set meta mark | {mark:#010x}
	}}
	chain disclaim {{
		type filter hook forward priority filter + 1; policy accept;
		iifname @bridges meta mark set meta mark & {unmark:#010x}
		oifname @bridges meta mark set meta mark & {unmark:#010x}
	}}
{chains}}}
"""


NAT = """\
	chain publish {{
		meta nfproto ipv4 dnat ip to ip daddr . meta l4proto . th dport map @publish4
		meta nfproto ipv4 dnat ip to meta l4proto . th dport map @publish4_any
		ip6 saddr fe80::/10 return
		meta nfproto ipv6 dnat ip6 to ip6 daddr . meta l4proto . th dport map @publish6
		meta nfproto ipv6 dnat ip6 to meta l4proto . th dport map @publish6_any
	}}
	chain prerouting {{
		type nat hook prerouting priority dstnat; policy accept;{outside}
		fib daddr type local jump publish
	}}
	chain output {{
		type nat hook output priority -100; policy accept;
		ip6 daddr ::1 return
		fib daddr type local jump publish
	}}
	chain postrouting {{
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr vmap @leaving4
		ip6 saddr vmap @leaving6
		oifname @bridges ip saddr 127.0.0.0/8 masquerade
	}}
"""
"""What needs a kernel that translates addresses."""
UNMARK = 0xFFFFFFFF ^ MARK
OUTSIDE = "\n\t\tiifname != @bridges return"


@dataclass(frozen=True, slots=True)
class Element:
    """One element of a set or map of the table, in nft's words."""

    owner: str
    """The set's or map's name."""
    key: str
    value: str = ""
    """Empty for a set's."""

    @property
    def text(self) -> str:
        return f"{self.key} : {self.value}" if self.value else self.key


@dataclass(slots=True)
class Firewall:
    """The table of one daemon as it should be, and the commands that bring the kernel's there. Pure."""

    table: str = TABLE
    direct_routing: bool = False
    """May other machines route to published ports at the containers' own addresses? (`allow-direct-routing`)"""
    host_rules: bool = False
    """Is what comes from other machines left to the host's own firewall? (`published-ports-firewall`)"""
    plain: frozenset[int] = frozenset()
    """IP versions that there shall be no rules for (`ip6tables` false)."""
    nat: bool = True
    """Does this kernel translate addresses?"""
    closed: set[int] = field(default_factory=set)
    """IP versions that Pier turned forwarding on for."""
    others: set[str] = field(default_factory=set)
    """Bridges of other daemons of Pier's on this machine."""
    networks: dict[str, BridgeNetwork] = field(default_factory=dict)
    """By bridge."""
    ports: dict[str, dict[Forward, None]] = field(default_factory=dict)
    """Published ports by the container's address."""

    @property
    def forwards(self) -> list[Forward]:
        """Every published port."""
        return [forward for ports in self.ports.values() for forward in ports]

    def ruleset(self) -> str:
        """The table with everything in it, in the place of what was there: one transaction."""
        # Chains stand in the block that declares the maps: libnftables 1.0 sends an interval map's elements with the
        # map, before the chains of later blocks that they jump to.
        chains = "".join(chains_text(self.chains(network)) for network in self.networks.values())
        text = remove_table(self.table) + BASE.format(
            table=self.table,
            chains=chains,
            nat=NAT.format(outside=OUTSIDE if self.host_rules else "") if self.nat else "",
            inward="ct state established,related " if self.host_rules else "",
            mark=MARK,
            unmark=UNMARK,
        )
        elements = [element for network in self.networks.values() for element in self.network_elements(network)]
        elements += [Element("closed", f"ipv{version}") for version in sorted(self.closed)]
        elements += [Element("others", f'"{name}"') for name in sorted(self.others)]
        elements += [in_words(element) for element in self.port_elements(self.forwards)]
        return text + add_elements(self.table, elements)

    def add_commands(self, network: BridgeNetwork) -> str:
        """What one more network needs."""
        chains = f"table {self.table} {{\n{chains_text(self.chains(network))}}}\n"
        return chains + add_elements(self.table, self.network_elements(network))

    def remove_commands(self, network: BridgeNetwork) -> str:
        chains = self.chains(network)
        text = delete_elements(self.table, self.network_elements(network))
        text += "".join(f"flush chain {self.table} {name}\n" for name in chains)
        return text + "".join(f"delete chain {self.table} {name}\n" for name in chains)

    def close_commands(self, version: int) -> str:
        return add_elements(self.table, [Element("closed", f"ipv{version}")])

    # --- one network

    def chains(self, network: BridgeNetwork) -> dict[str, list[str]]:
        """Its chains by name, each with its rules."""
        name = network.bridge
        found = {f"into-{name}": into_rules(network, self.plain)}
        if self.guarded(network):
            found[f"guard-{name}"] = guard_rules(network)
        if network.internal:
            found[f"confine-{name}"] = confine_rules(network)
        if any(self.translates(network, version) for version in FAMILIES):
            found[f"leave-{name}"] = leave_rules(network)
        return found

    def guarded(self, network: BridgeNetwork) -> list[Subnet]:
        """The subnets that other machines must not route to."""
        if self.direct_routing and not network.internal:
            return []
        return [
            subnet
            for subnet in network.subnets
            if subnet.version not in self.plain and (network.internal or network.mode(subnet.version) == "nat")
        ]

    def translates(self, network: BridgeNetwork, version: int) -> bool:
        return self.nat and network.publishes(version) and version not in self.plain

    def network_elements(self, network: BridgeNetwork) -> list[Element]:
        """What the base chains know of it."""
        name = network.bridge
        found = [Element("bridges", f'"{name}"'), Element("into", f'"{name}"', f"jump into-{name}")]
        if network.internal:
            found += [Element("confined", f'"{name}"', f"jump confine-{name}"), Element("internal", f'"{name}"')]
        found += [
            Element(f"guarded{subnet.version}", str(subnet.network), f"jump guard-{name}")
            for subnet in self.guarded(network)
        ]
        found += [
            Element(f"leaving{subnet.version}", str(subnet.network), f"jump leave-{name}")
            for subnet in network.subnets
            if self.translates(network, subnet.version)
        ]
        return found

    # --- ports

    def port_elements(self, forwards: Iterable[Forward]) -> list[SetElement]:
        """The elements of published ports, each once."""
        found: dict[SetElement, None] = {}
        for forward in forwards:
            network = self.networks.get(forward.bridge)
            if forward.translated and (network is None or self.translates(network, forward.version)):
                found[translation(forward)] = None
            if network is not None and self.is_open(network, forward):
                found[opening(forward)] = None
        return list(found)

    def is_open(self, network: BridgeNetwork, forward: Forward) -> bool:
        """Is it reached at the container's own address too? One published on loopback is this machine's alone."""
        mode = network.mode(forward.version)
        if network.internal or mode == "isolated":
            return False
        if mode == "routed":
            return True
        local = ip_address(forward.host_ip).is_loopback
        return not local and (self.direct_routing or bool(network.trusted_interfaces))

    def publish(self, forwards: Sequence[Forward]) -> list[SetElement]:
        """Take ports in; returns the elements to add."""
        before = self.port_elements(self._beside(forwards))
        for forward in forwards:
            self.ports.setdefault(forward.container_ip, {})[forward] = None
        return [element for element in self.port_elements(forwards) if element not in before]

    def unpublish(self, forwards: Sequence[Forward]) -> list[SetElement]:
        """Take ports out; returns the elements to delete."""
        gone = [forward for forward in forwards if forward in self.ports.get(forward.container_ip, {})]
        for forward in gone:
            del self.ports[forward.container_ip][forward]
            if not self.ports[forward.container_ip]:
                del self.ports[forward.container_ip]
        left = self.port_elements(self._beside(gone))
        return [element for element in self.port_elements(gone) if element not in left]

    def _beside(self, forwards: Iterable[Forward]) -> list[Forward]:
        """The published ports of the same container addresses: two of them may share an element."""
        addresses = dict.fromkeys(forward.container_ip for forward in forwards)
        return [forward for address in addresses for forward in self.ports.get(address, ())]


# --- the rules of one network


def guard_rules(network: BridgeNetwork) -> list[str]:
    """Who may send to its addresses: the host, its own containers, trusted devices; everyone may ask its gateway.

    An internal network's gateway is nobody's but its own.
    """
    devices = ", ".join(f'"{name}"' for name in ("lo", network.bridge, *network.trusted_interfaces))
    gateways = [
        f"{FAMILIES[subnet.version]} daddr {subnet.gateway} return"
        for subnet in network.subnets
        if subnet.gateway and not network.internal
    ]
    return [f"iifname {{ {devices} }} return", *gateways, "drop"]


def confine_rules(network: BridgeNetwork) -> list[str]:
    """Where its containers may send to: its own addresses, the gateway's among them, and its own multicast groups."""
    own = [f"{FAMILIES[subnet.version]} daddr {subnet.network} return" for subnet in network.subnets]
    near = [
        "ip daddr { 224.0.0.0/24, 255.255.255.255 } return",
        "ip6 daddr { fe80::/10, ff01::/16, ff02::/16 } return",
    ]
    return [*own, *near, "meta nfproto { ipv4, ipv6 } drop"]


def leave_rules(network: BridgeNetwork) -> list[str]:
    """Which address its packets get.

    Of a container that uses a published port of its own network the bridge's, or the answer, which would not pass
    through here, would come from an address that was never asked. To the outside the host's.
    """
    rules = [f'oifname "{network.bridge}" ct status dnat masquerade', f'oifname "{network.bridge}" return']
    for subnet in network.subnets if network.masquerade else ():
        if network.publishes(subnet.version):
            family, address = FAMILIES[subnet.version], network.snat(subnet.version)
            deed = f"snat {family} to {address}" if address else "masquerade"
            rules.append(f"meta nfproto ipv{subnet.version} {deed}")
    return rules


def into_rules(network: BridgeNetwork, plain: Collection[int] = ()) -> list[str]:
    """What is forwarded to its containers, and between them; of the IP versions in `plain` everything."""
    same = f'iifname "{network.bridge}"'
    rules = [f"meta nfproto ipv{version} accept" for version in sorted(plain)]
    rules += [f"{same} ct status dnat accept", f"{same} {'accept' if network.icc else 'drop'}"]
    if not network.internal:
        rules.append("iifname @internal drop")  # translated at its own gateway's address, which it may ask
    for subnet in () if network.internal else network.subnets:
        family, mode = FAMILIES[subnet.version], network.mode(subnet.version)
        this = f"meta nfproto ipv{subnet.version}"
        if mode == "nat-unprotected":
            rules.append(f"{this} accept")
        elif mode in ("nat", "routed"):
            rules.append(f"{this} ct status dnat accept")
            rules.append(f"{family} daddr . meta l4proto . th dport @open{subnet.version} accept")
        if mode == "routed":
            rules.append(f"{this} meta l4proto {'icmp' if subnet.version == 4 else 'ipv6-icmp'} accept")
    return [*rules, "drop"]


def translation(forward: Forward) -> SetElement:
    """The element of a port that the table translates."""
    address = ip_address(forward.host_ip)
    key, value = (forward.protocol, forward.host_port), (forward.container_ip, forward.container_port)
    if address.is_unspecified:
        return SetElement(f"publish{address.version}_any", key, value)
    return SetElement(f"publish{address.version}", (forward.host_ip, *key), value)


def opening(forward: Forward) -> SetElement:
    """The element of a port that is reached at the container's own address."""
    return SetElement(f"open{forward.version}", (forward.container_ip, forward.protocol, forward.container_port))


def in_words(element: SetElement) -> Element:
    """As nft writes it."""
    return Element(element.owner, " . ".join(map(str, element.key)), " . ".join(map(str, element.value)))


# --- text


def chains_text(chains: dict[str, list[str]]) -> str:
    return "".join(f"\tchain {name} {{\n\t\t" + "\n\t\t".join(rules) + "\n\t}\n" for name, rules in chains.items())


def add_elements(table: str, elements: Iterable[Element]) -> str:
    """One command for each set or map."""
    owners: dict[str, list[str]] = {}
    for element in elements:
        owners.setdefault(element.owner, []).append(element.text)
    return "".join(f"add element {table} {owner} {{ {', '.join(texts)} }}\n" for owner, texts in owners.items())


def delete_elements(table: str, elements: Iterable[Element]) -> str:
    owners: dict[str, list[str]] = {}
    for element in elements:
        owners.setdefault(element.owner, []).append(element.key)
    return "".join(f"delete element {table} {owner} {{ {', '.join(keys)} }}\n" for owner, keys in owners.items())


def remove_table(table: str) -> str:
    """Take the table away; one that is not there is no error."""
    return f"add table {table}\ndelete table {table}\n"


def befriend(table: str, bridges: Iterable[str]) -> str:
    """Tell another daemon's table that these bridges are looked after."""
    return add_elements(table, [Element("others", f'"{name}"') for name in bridges])


def unfriend(table: str, bridges: Iterable[str]) -> str:
    return delete_elements(table, [Element("others", f'"{name}"') for name in bridges])


def hand_over(table: str, version: int) -> str:
    """Make another daemon's table keep the machine from forwarding for strangers, as ours did."""
    return add_elements(table, [Element("closed", f"ipv{version}")])
