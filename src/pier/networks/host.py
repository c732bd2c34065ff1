"""The host's side of bridge networks: devices, kernel settings and the firewall table, made and taken away together.

Everything here blocks; the service calls it in its worker thread.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from ipaddress import ip_address

from pier.errors import PierError
from pier.kernel.conntrack import forget_udp_flows
from pier.kernel.netlink import NetlinkSocket
from pier.kernel.nfelements import Elements, SetElement
from pier.kernel.nftables import Nftables, NftablesError, NftablesMissing
from pier.kernel.nfwatch import TableWatch, own_task
from pier.networks import bridge
from pier.networks.bridge_options import BridgeNetwork
from pier.networks.carriage import Carriage, Peer
from pier.networks.default_bridge import BadBridgeAddress, NetworkConfig
from pier.networks.firewall import (
    SHARED,
    Firewall,
    Forward,
    befriend,
    hand_over,
    remove_table,
    table_of,
    unfriend,
)
from pier.networks.foreign import admit, dismiss, is_ours
from pier.networks.ipam import Network

__all__ = ["BadBridgeAddress", "BridgeFailed", "HostSide", "NetworkConfig"]


NAT_REMEDY = "the kernel must have nft_chain_nat, nft_nat and nft_masq, or CONFIG_NFT_NAT and CONFIG_NFT_MASQ"
TABLE_REMEDY = "the kernel must have nf_tables, nft_ct and nft_fib_inet; rules of iptables are not used instead"
UNTRANSLATED = "WARNING: containers reach no other machine, and published ports are carried by the daemon itself"


TWIN = "two Pier daemons with one default bridge undo each other's rules: give one of them --bridge"


class BridgeFailed(PierError):
    """cannot create network {id} ({bridge}): {reason}"""


class HostSide:
    """The bridges of this machine that are Pier's.

    `bridge_off` and `publish_off` say why bridge networks do not work, or nothing can be published; empty: they do.
    """

    def __init__(self, config: NetworkConfig) -> None:
        self.config = config
        self.bridge_off = self.publish_off = "the daemon has not started"
        self.broken: dict[str, str] = {}
        """Why a network could not be made at the start, by its id."""
        self.firewall = Firewall(
            table_of(config.bridge),
            direct_routing=config.allow_direct_routing,
            host_rules=config.ports_firewall == "host",
            plain=frozenset() if config.ip6tables else frozenset({6}),
        )
        self._nft: Nftables | None = None
        self._elements: Elements | None = None

    @property
    def carriage(self) -> Carriage:
        """Who carries published ports on this machine."""
        return Carriage(
            table=self._nft is not None and self.firewall.nat,
            proxy=self.config.userland_proxy,
            host_rules=self.firewall.host_rules,
            plain=self.firewall.plain,
            refuses=self.is_internal,
        )

    def is_internal(self, peer: Peer) -> bool:
        """Is it a container of an internal network that asks the host?"""
        address = ip_address(peer[0].partition("%")[0])
        within = [network for network in self.firewall.networks.values() if network.internal]
        if address.version == 6 and address.is_link_local:
            with suppress(OSError):  # the device is gone
                return socket.if_indextoname(peer[3]) in [network.bridge for network in within]
        return any(address in subnet.network for network in within for subnet in network.subnets)

    # --- start and stop

    def start(self, networks: Sequence[BridgeNetwork], published: Sequence[Forward]) -> list[str]:
        """Make what is missing, the table with `published` in it; returns warnings about what this machine lacks."""
        self.broken = {}
        try:
            with NetlinkSocket() as netlink:
                warnings = self._start(netlink, networks, published)
        except (OSError, ValueError, PierError) as error:
            self.bridge_off = self.publish_off = str(error)
            return [f"WARNING: bridge networks are off: {error}"]
        self.bridge_off = ""
        return warnings

    def has_device(self, name: str) -> bool:
        """Is there a device of this name that no network of ours has made? Raises OSError."""
        with NetlinkSocket() as netlink:
            return name not in self.firewall.networks and any(link.name == name for link in netlink.links())

    def occupied(self) -> list[Network]:
        """What a new subnet must not overlap: what this machine reaches by other devices than Pier's bridges.

        Raises OSError.
        """
        with NetlinkSocket() as netlink:
            return self._occupied(netlink)

    def close(self) -> None:
        if self._nft is not None:
            self._nft.close()
            self._nft = None
        if self._elements is not None:
            self._elements.close()
            self._elements = None

    def teardown(self) -> None:
        """Take away table and bridges, and forwarding where Pier turned it on and no other daemon of Pier's needs it.

        Raises OSError, NftablesError.
        """
        self.bridge_off = self.publish_off = "the bridge networks were removed"
        if self._nft is not None:
            self._remove_table(self._nft)
        with NetlinkSocket() as netlink:
            for name, network in self.firewall.networks.items():
                if not network.adopted:
                    bridge.remove_bridge(name, netlink)
        self.firewall.networks.clear()

    # --- what others do

    def watch(self) -> TableWatch | None:
        """Tells of changes of the table by anybody but the calling thread; None where there is no table to watch."""
        if self._nft is None:
            return None
        try:
            return TableWatch(self.firewall.table.partition(" ")[2], {own_task()}, SHARED)
        except OSError:
            return None

    def repair(self, changed: Collection[str], by: str = "") -> list[str]:
        """Put right what others, the last of them `by`, did to the tables `changed`; returns what was done, in words.

        Raises OSError, NftablesError.
        """
        if self._nft is None:
            return []
        done = []
        if self.firewall.table.partition(" ")[2] in changed:
            with NetlinkSocket() as netlink:
                settings = self._forwarding(netlink)
                self._install(self._nft)
                bridge.run_plan(settings, netlink)
            others = f"others ({by})" if by else "others"
            twin = f"; {TWIN}" if by.startswith("pierd,") else ""
            done.append(f"{self.firewall.table} was changed or removed by {others}: put in place again{twin}")
        added, _ = admit(self._nft, self.config.bridge)
        self._nft.rest()
        return done + [f"{chain} drops forwarded packets: those of containers are let pass again" for chain in added]

    # --- networks

    def add(self, network: BridgeNetwork) -> None:
        """Make a network's bridge, settings and rules; nothing is left where it fails. Raises BridgeFailed."""
        try:
            with NetlinkSocket() as netlink:
                self._add(netlink, network)
        except (OSError, ValueError, NftablesError) as error:
            reason = error.wire if isinstance(error, PierError) else str(error)
            raise BridgeFailed(id=network.id, bridge=network.bridge, reason=reason) from error

    def remove(self, network: BridgeNetwork) -> None:
        """Take away what `add` made; what is gone already is no error. Raises OSError, NftablesError."""
        if self.firewall.networks.pop(network.bridge, None) is not None and self._nft is not None:
            self._change(self._nft, self.firewall.remove_commands(network))
            self._tell_others(self._nft, unfriend, [network.bridge])
        if not network.adopted:
            with NetlinkSocket() as netlink:
                bridge.remove_bridge(network.bridge, netlink)

    # --- ports

    def publish(self, forwards: Sequence[Forward]) -> None:
        """Raises NftablesError; then none is published."""
        added = self.firewall.publish(forwards)
        if self._nft is None:
            return
        try:
            self._change_ports(self._nft, Elements.add, added)
        except NftablesError:
            self.firewall.unpublish(forwards)
            raise
        forget_flows(forwards)

    def unpublish(self, forwards: Sequence[Forward]) -> None:
        """Raises NftablesError where the table cannot be changed."""
        gone = self.firewall.unpublish(forwards)
        if self._nft is not None:
            self._change_ports(self._nft, Elements.delete, gone)
            forget_flows(forwards)

    # --- parts

    def _start(
        self, netlink: NetlinkSocket, networks: Sequence[BridgeNetwork], published: Sequence[Forward]
    ) -> list[str]:
        made = {}
        for network in networks:
            try:
                bridge.run_plan(bridge.bridge_plan(network, netlink), netlink)
                made[network.bridge] = network
            except (OSError, ValueError) as error:
                self.broken[network.id] = str(error)
        warnings = [f"WARNING: a bridge network is off: {reason}" for reason in self.broken.values()]
        if networks and not made:
            raise OSError(next(iter(self.broken.values())))
        self.firewall.networks, self.firewall.ports = made, {}
        self.firewall.publish(published)
        settings = self._forwarding(netlink)
        # The table stands before forwarding is on: at no moment does this machine route for strangers.
        warnings += self._install_table()
        bridge.run_plan(settings, netlink)
        if self._nft is not None:
            self._nft.rest()  # most daemons change ports for a long time, and networks seldom
        return warnings

    def _add(self, netlink: NetlinkSocket, network: BridgeNetwork) -> None:
        steps = bridge.bridge_plan(network, netlink)
        closed = set(self.firewall.closed)
        try:
            bridge.run_plan(steps, netlink)
            self.firewall.networks[network.bridge] = network
            settings = self._forwarding(netlink)
            if self._nft is not None:
                opened = "".join(self.firewall.close_commands(version) for version in self.firewall.closed - closed)
                self._change(self._nft, opened + self.firewall.add_commands(network))
                self._tell_others(self._nft, befriend, [network.bridge])
            bridge.run_plan(settings, netlink)
        except BaseException:
            self.firewall.closed = closed
            if self.firewall.networks.pop(network.bridge, None) and self._nft is not None:
                with suppress(NftablesError):
                    self._nft.run(self.firewall.ruleset())
            if any(isinstance(step, bridge.CreateBridge) for step in steps):
                bridge.remove_bridge(network.bridge, netlink)
            raise

    def _forwarding(self, netlink: NetlinkSocket) -> list[bridge.SetSysctl]:
        """The settings that the networks of now need; notes the IP versions that Pier turns forwarding on for."""
        networks = self.firewall.networks.values()
        steps: list[bridge.SetSysctl] = []
        for version in (4, 6) if self.config.ip_forward else ():
            if any(network.subnet(version) and not network.internal for network in networks):
                wanted = bridge.forwarding_plan(version)
                if wanted and version == 6:
                    wanted = bridge.forwarding_plan(version, [link.name for link in netlink.links()])
                if wanted and not self.config.ip_forward_no_drop:
                    self.firewall.closed.add(version)
                steps += wanted
        return steps

    def _change(self, nft: Nftables, commands: str) -> None:
        """Run `commands`; where others have changed the table meanwhile, put the whole of it in place instead."""
        if not commands:
            return
        try:
            nft.run(commands)
        except NftablesError:
            nft.run(self.firewall.ruleset())

    def _change_ports(
        self, nft: Nftables, deed: Callable[[Elements, str, Sequence[SetElement]], None], elements: Sequence[SetElement]
    ) -> None:
        """As `_change`, of elements."""
        try:
            deed(self._netlink(), self.firewall.table.partition(" ")[2], elements)
        except OSError:
            nft.run(self.firewall.ruleset())

    def _netlink(self) -> Elements:
        self._elements = self._elements or Elements()
        return self._elements

    def _other_tables(self) -> list[str]:
        """The tables of other daemons of Pier's. Raises OSError."""
        names = [f"inet {name}" for name in self._netlink().tables() if is_ours(name)]
        return [name for name in names if name != self.firewall.table]

    def _tell_others(self, nft: Nftables, words: Callable[[str, Iterable[str]], str], bridges: Iterable[str]) -> None:
        """Let the tables of other daemons of Pier's know of our bridges."""
        names = list(bridges)
        for table in self._other_tables() if names else []:
            with suppress(NftablesError):  # one that is just going, or that never knew of them
                nft.run(words(table, names))

    def _occupied(self, netlink: NetlinkSocket) -> list[Network]:
        ours = {*self.firewall.networks, self.config.bridge}
        own = [link.index for link in netlink.links() if link.name in ours]
        return bridge.host_networks(netlink.routes(), netlink.addresses(), except_indexes=own)

    def _install_table(self) -> list[str]:
        self.publish_off = ""
        if not self.config.iptables:
            return []
        try:
            self._nft = self._nft or Nftables()
            self.firewall.nat = True
            try:
                self._install(self._nft)
            except NftablesError as error:
                self.firewall.nat = False
                self._install(self._nft)
                return [f"WARNING: no address translation: {error.wire} ({NAT_REMEDY})", UNTRANSLATED]
            return admit(self._nft, self.config.bridge)[1]
        except (NftablesMissing, NftablesError) as error:
            if self._nft is not None:
                self._nft.close()
                self._nft = None
            remedy = f" ({TABLE_REMEDY})" if isinstance(error, NftablesError) else ""
            lost = "no address translation, and no isolation between networks"
            return [f"WARNING: {lost}: {error.wire}{remedy}", UNTRANSLATED]

    def _install(self, nft: Nftables) -> None:
        """Put the whole table in place. Raises NftablesError."""
        self.firewall.closed |= forwarding_is_ours(nft, self.firewall.table)
        self.firewall.others = {name for table in self._other_tables() for name in set_elements(nft, table, "bridges")}
        nft.run(self.firewall.ruleset())
        self._tell_others(nft, befriend, self.firewall.networks)

    def _remove_table(self, nft: Nftables) -> None:
        ours = forwarding_is_ours(nft, self.firewall.table)
        heirs = self._other_tables()
        self._tell_others(nft, unfriend, self.firewall.networks)
        for version in ours:
            if heirs:
                nft.run(hand_over(heirs[0], version))
            else:
                bridge.write_sysctl(bridge.FORWARD[version], "0")
        if not heirs:
            dismiss(nft)
        nft.run(remove_table(self.firewall.table))


def forget_flows(forwards: Iterable[Forward]) -> None:
    """Let clients that go on sending to a UDP port be translated, or not, as the table says now."""
    ports = {forward.host_port for forward in forwards if forward.protocol == "udp"}
    with suppress(OSError):  # no connection tracking that can be asked: such flows end by their timeout
        if ports:
            forget_udp_flows(ports)


def set_elements(nft: Nftables, table: str, name: str) -> list[str]:
    """The elements of a set of names; none where there is no such set."""
    try:
        listed = nft.list(f"set {table} {name}")
    except NftablesError:
        return []
    return [element for item in listed for element in item.get("set", {}).get("elem", [])]


def forwarding_is_ours(nft: Nftables, table: str) -> set[int]:
    """The IP versions that it was Pier who turned forwarding on for: its table drops what is not Pier's."""
    names = set_elements(nft, table, "closed")
    return {version for version in (4, 6) if f"ipv{version}" in names}
