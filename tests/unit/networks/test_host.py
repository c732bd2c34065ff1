"""The host's side of several networks at once, with packets: what must be reached is, what must not be is not.

Each network's containers are machines on its bridge, plugged in as a container's init does it.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from lan import Lan, Probe, expect, lan
from netlab import WAIT_S, Machine, bound_datagram, machines, stop
from pier.kernel.netlink import NetlinkSocket
from pier.kernel.nftables import Nftables, NftablesError
from pier.networks.bridge import port_mode
from pier.networks.bridge_options import BridgeNetwork
from pier.networks.firewall import Forward
from pier.networks.host import BridgeFailed, HostSide, NetworkConfig
from pier.networks.ipam import Subnet, first_gateway
from pier.networks.mac import mac_of
from pier.runtime.request import Interface

pytestmark = pytest.mark.root


@dataclass
class Container:
    machine: Machine
    ip: str
    ip6: str
    bridge: str

    def port(self, host_ip: str, host_port: int, port: int = 80, protocol: str = "tcp") -> Forward:
        """A published port that leads here."""
        return Forward(protocol, host_ip, host_port, self.ip6 if ":" in host_ip else self.ip, port, self.bridge)


@dataclass
class Site:
    lan: Lan
    side: HostSide
    spare: list[Machine]
    servers: list[socket.socket] = field(default_factory=list)
    mode: str = ""
    """Of the containers' ports, where it is not what the network asks for."""

    def network(self, name: str, **options: Any) -> BridgeNetwork:
        number = 10 + len(self.side.firewall.networks)
        ranges = [Subnet(ip_network(text)) for text in (f"10.{number}.0.0/24", f"fd00:{number}::/64")]
        modes = options.get("gateway_mode_v4"), options.get("gateway_mode_v6")
        gateways = [None if mode == "isolated" else first_gateway(one) for one, mode in zip(ranges, modes, strict=True)]
        subnets = tuple(Subnet(one.network, way) for one, way in zip(ranges, gateways, strict=True))
        made = BridgeNetwork(str(number) * 32, name, subnets, **options)
        self.lan.host.run(lambda: self.side.add(made))
        return made

    def container(self, network: BridgeNetwork, number: int = 2) -> Container:
        """A machine on the network, with servers at 80 of tcp and udp."""
        machine = self.spare.pop()
        addresses = [one.network.network_address + number for one in network.subnets]
        lengths = [f"{address}/{24 if address.version == 4 else 64}" for address in addresses]
        gateways = [network.gateway(one.version) for one in network.subnets if network.gateway(one.version)]
        wire = Interface(
            "eth0",
            f"v{network.bridge}{number}",
            network.bridge,
            mac_of(addresses[0]),
            lengths,
            gateways,
            mode=self.mode or port_mode(network),
        )
        machine.plug(wire, self.lan.host)
        made = Container(machine, *map(str, addresses), network.bridge)
        self.serve(machine)
        return made

    def serve(self, machine: Machine) -> None:
        self.servers += [machine.serve("tcp", 80, address) for address in ("0.0.0.0", "::")]
        self.servers.append(machine.serve("udp", 80, "::"))  # takes both families

    def publish(self, *forwards: Forward) -> None:
        self.lan.host.run(lambda: self.side.publish(forwards))


@contextmanager
def made(**config: Any) -> Iterator[Site]:
    with lan() as around, machines(5) as spare:
        side = HostSide(NetworkConfig(**config))
        site = Site(around, side, spare[:])
        assert around.host.run(lambda: side.start([], [])) == []
        try:
            yield site
        finally:
            for server in site.servers:
                stop(server)
            around.host.run(side.close)


@pytest.fixture
def site() -> Iterator[Site]:
    with made() as found:
        yield found


def test_a_published_port_is_reached_from_everywhere_in_both_families(site: Site) -> None:
    net, lan = site.network("br-web"), site.lan
    web, beside = site.container(net), site.container(net, 3)
    elsewhere = site.container(site.network("br-other"))
    site.publish(web.port("0.0.0.0", 8080), web.port("::", 8080), web.port("0.0.0.0", 8080, protocol="udp"))
    four, six = lan.host_address, lan.host_address6
    expect(
        reached=[
            Probe(lan.peer, "tcp", four, 8080, seen_as=lan.peer_address),
            Probe(lan.peer, "udp", four, 8080, seen_as=f"::ffff:{lan.peer_address}"),
            Probe(lan.far, "tcp", four, 8080, seen_as=lan.far_address),
            Probe(lan.peer, "tcp", six, 8080, seen_as=lan.peer_address6),
            Probe(lan.host, "tcp", "127.0.0.1", 8080),
            Probe(lan.host, "tcp", four, 8080),
            Probe(lan.host, "tcp", six, 8080),
            Probe(elsewhere.machine, "tcp", four, 8080),
            Probe(elsewhere.machine, "tcp", six, 8080),
            Probe(beside.machine, "tcp", four, 8080),
            Probe(beside.machine, "tcp", six, 8080),
            Probe(web.machine, "tcp", four, 8080),
            Probe(web.machine, "tcp", six, 8080),
        ]
    )


def crc32c(data: bytes) -> int:
    """As SCTP's checksum (RFC 9260, appendix A)."""
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


def sctp_init(port: int) -> bytes:
    """The first packet of an association: no machine needs SCTP to send or to forward it."""
    chunk = struct.pack("!BBHIIHHI", 1, 0, 20, 0x1234, 1 << 16, 1, 1, 7)
    head = struct.pack("!HHI", 40000, port, 0)
    return head + struct.pack("<I", crc32c(head + bytes(4) + chunk)) + chunk


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_sctp_is_translated(site: Site, family: socket.AddressFamily) -> None:
    six = family == socket.AF_INET6
    web = site.container(site.network("br-web"))
    site.publish(web.port("::" if six else "0.0.0.0", 9999, 77, "sctp"))
    target = site.lan.host_address6 if six else site.lan.host_address
    with (
        web.machine.run(lambda: socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_SCTP)) as inside,
        site.lan.peer.run(lambda: socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_SCTP)) as outside,
    ):
        inside.settimeout(WAIT_S)
        outside.sendto(sctp_init(9999), (target, 0))
        data, sender = inside.recvfrom(200)
    assert sender[0] == (site.lan.peer_address6 if six else site.lan.peer_address)
    assert struct.unpack_from("!HH", data, 0 if six else 20) == (40000, 77)


def test_attack_21_networks_are_kept_apart_and_strangers_out(site: Site) -> None:
    """Unpublished ports at the containers' own addresses: from the other network, the LAN, beyond; both families."""
    lan = site.lan
    one, two = site.container(site.network("br-one")), site.container(site.network("br-two"))
    site.publish(one.port("127.0.0.1", 8080), one.port("0.0.0.0", 9090), one.port("::", 9090))
    lan.peer.route("10.0.0.0/8", lan.host_address)
    lan.peer.route("fd00::/8", lan.host_address6)
    lan.router.route("10.0.0.0/8", lan.host_address)
    lan.router.route("fd00::/8", lan.host_address6)
    expect(
        reached=[Probe(lan.host, "tcp", one.ip, 80), Probe(lan.host, "tcp", one.ip6, 80)],
        silent=[
            Probe(source, protocol, address, 80)
            for source in (two.machine, lan.peer, lan.far)
            for protocol in ("tcp", "udp", "icmp")
            for address in (one.ip, one.ip6)
        ]
        + [
            Probe(one.machine, "tcp", two.ip, 80),
            Probe(one.machine, "icmp", two.ip6),
            Probe(lan.peer, "tcp", lan.host_address, 8080),
            Probe(two.machine, "tcp", lan.host_address, 8080),
        ],
    )


def test_containers_reach_the_outside_as_the_host(site: Site) -> None:
    lan, web = site.lan, site.container(site.network("br-web"))
    site.serve(lan.far)
    site.serve(lan.peer)
    expect(
        reached=[
            Probe(web.machine, "tcp", lan.far_address, 80, seen_as=lan.host_address),
            Probe(web.machine, "tcp", lan.peer_address6, 80, seen_as=lan.host_address6),
            Probe(web.machine, "icmp", lan.peer_address),
            Probe(web.machine, "icmp", lan.peer_address6),
        ]
    )


def test_an_address_of_the_hosts_for_what_leaves(site: Site) -> None:
    lan, net = site.lan, site.network("br-web", snat_v4="192.0.2.1", snat_v6="2001:db8:1::77")
    with lan.host.run(NetlinkSocket) as sock:
        sock.add_address(sock.link_index("eth0"), "2001:db8:1::77/64")
    web = site.container(net)
    site.serve(lan.peer)
    expect(reached=[Probe(web.machine, "tcp", lan.peer_address6, 80, seen_as="2001:db8:1::77")])


def test_attack_21_an_internal_network_has_no_way_out_and_none_in(site: Site) -> None:
    lan = site.lan
    inner, outer = site.network("br-in", internal=True), site.network("br-out")
    one, two, web = site.container(inner), site.container(inner, 3), site.container(outer)
    site.publish(web.port("0.0.0.0", 8080), web.port("::", 8080))
    site.serve(lan.host)
    site.serve(lan.peer)
    for target, by in (("10.11.0.0/24", "10.10.0.1"), ("192.0.2.0/24", "10.10.0.1"), ("198.51.100.0/24", "10.10.0.1")):
        one.machine.route(target, by)  # as one with NET_ADMIN would
    for target in ("fd00:11::/64", "2001:db8:1::/64"):
        one.machine.route(target, "fd00:10::1")
    lan.peer.route("10.0.0.0/8", lan.host_address)
    lan.peer.route("fd00::/8", lan.host_address6)
    expect(
        reached=[
            Probe(one.machine, "tcp", two.ip, 80),
            Probe(one.machine, "tcp", two.ip6, 80),
            Probe(lan.host, "tcp", one.ip, 80),
            Probe(lan.host, "tcp", one.ip6, 80),
            Probe(one.machine, "tcp", "10.10.0.1", 80),
        ],
        silent=[
            Probe(one.machine, "tcp", web.ip, 80),
            Probe(one.machine, "tcp", web.ip6, 80),
            Probe(one.machine, "tcp", lan.host_address, 8080),
            Probe(one.machine, "tcp", "10.10.0.1", 8080),
            Probe(one.machine, "tcp", "fd00:10::1", 8080),
            Probe(one.machine, "tcp", lan.host_address, 80),
            Probe(one.machine, "tcp", lan.host_address6, 80),
            Probe(one.machine, "icmp", lan.peer_address),
            Probe(one.machine, "icmp", lan.peer_address6),
            Probe(web.machine, "tcp", one.ip, 80),
            Probe(web.machine, "tcp", one.ip6, 80),
            Probe(web.machine, "tcp", "10.10.0.1", 80),
            Probe(lan.peer, "tcp", one.ip, 80),
            Probe(lan.peer, "tcp", one.ip6, 80),
            Probe(lan.peer, "tcp", "10.10.0.1", 80),
        ],
    )


@pytest.mark.parametrize("rules", [True, False])
def test_attack_21_an_isolated_network_does_not_find_the_host(rules: bool) -> None:
    """Not even by a container that may set its own routes and neighbours; without a table too."""
    with made(iptables=rules) as site:
        lan = site.lan
        net = site.network("br-iso", internal=True, gateway_mode_v4="isolated", gateway_mode_v6="isolated")
        one, two = site.container(net), site.container(net, 3)
        site.serve(lan.host)
        with lan.host.run(NetlinkSocket) as sock:
            (bridge,) = [link for link in sock.links() if link.name == "br-iso"]
            assert [item for item in sock.addresses() if item.index == bridge.index] == []
        with one.machine.run(NetlinkSocket) as sock:
            sock.add_route(sock.link_index("eth0"), "192.0.2.0/24", "")  # the host is asked for by ARP
            sock.add_route(sock.link_index("eth0"), "2001:db8:1::/64", "")
        expect(
            reached=[Probe(one.machine, "tcp", two.ip, 80), Probe(two.machine, "udp", one.ip6, 80)],
            silent=[
                Probe(one.machine, protocol, address, 80)
                for protocol in ("tcp", "udp", "icmp")
                for address in (lan.host_address, lan.host_address6)
            ]
            + [Probe(lan.host, "tcp", one.ip, 80), Probe(lan.host, "tcp", one.ip6, 80)],
        )
        for address in (lan.host_address, lan.host_address6):
            one.machine.neighbour(address, bridge.mac)
        unheard = [(one.machine, to) for to in ("255.255.255.255", lan.host_address, lan.host_address6)]
        assert first_heard(lan.host, [*unheard, (lan.peer, lan.host_address6)]) == lan.peer_address6


def first_heard(host: Machine, senders: Sequence[tuple[Machine, str]], port: int = 4000) -> str:
    """Whom a server of the host's hears first, of machines that send to addresses, one after the other."""
    with host.run(lambda: bound_datagram(socket.AF_INET6, "::", port)) as server:
        server.settimeout(WAIT_S)
        for machine, address in senders:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            with machine.run(partial(socket.socket, family, socket.SOCK_DGRAM)) as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
                client.sendto(b"?", (address, port))
        return str(server.recvfrom(10)[1][0])


@pytest.mark.parametrize("direct", [False, True])
def test_gateway_modes(direct: bool) -> None:
    """Who reaches containers at their own addresses: routed, only what is published; unprotected, everything."""
    with made(allow_direct_routing=direct) as site:
        lan = site.lan
        routed = site.container(site.network("br-routed", gateway_mode_v4="routed", gateway_mode_v6="routed"))
        bare = site.container(site.network("br-bare", gateway_mode_v4="nat-unprotected"))
        nat = site.container(site.network("br-nat"))
        trusted = site.container(site.network("br-trust", trusted_interfaces=("eth0",)))
        site.publish(routed.port("0.0.0.0", 0), routed.port("::", 0), nat.port("0.0.0.0", 8080))
        site.publish(trusted.port("0.0.0.0", 9090))
        site.serve(lan.peer)
        lan.peer.route("10.0.0.0/8", lan.host_address)
        lan.peer.route("fd00::/8", lan.host_address6)
        way_in = [Probe(lan.peer, "tcp", nat.ip, 80, seen_as=lan.peer_address)]
        expect(
            reached=[
                Probe(lan.peer, "tcp", routed.ip, 80, seen_as=lan.peer_address),
                Probe(lan.peer, "tcp", routed.ip6, 80, seen_as=lan.peer_address6),
                Probe(lan.peer, "icmp", routed.ip),
                Probe(lan.peer, "icmp", routed.ip6),
                Probe(routed.machine, "tcp", lan.peer_address, 80, seen_as=routed.ip),
                Probe(routed.machine, "tcp", lan.peer_address6, 80, seen_as=routed.ip6),
                Probe(lan.peer, "tcp", bare.ip, 80),
                Probe(lan.peer, "udp", bare.ip, 80),
                Probe(bare.machine, "tcp", lan.peer_address, 80, seen_as=lan.host_address),
                Probe(lan.peer, "tcp", lan.host_address, 8080),
                Probe(lan.peer, "tcp", trusted.ip, 80),
                *(way_in if direct else []),
            ],
            silent=[
                Probe(lan.peer, "udp", routed.ip, 80),
                Probe(lan.peer, "tcp", bare.ip6, 80),
                Probe(lan.peer, "udp", nat.ip, 80),
                Probe(lan.peer, "udp", trusted.ip, 80),
                Probe(lan.peer, "tcp", trusted.ip6, 80),
                *([] if direct else way_in),
            ],
        )


@pytest.mark.parametrize("br_netfilter", [True, False])
def test_without_icc_containers_reach_each_other_by_published_ports_alone(
    site: Site, br_netfilter: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In both families; by rules, or by ports that are kept apart."""
    lan = site.lan
    for key in ("iptables", "ip6tables"):
        lan.host.set(f"bridge/bridge-nf-call-{key}", "0")  # it is a matter of this bridge alone
    if not br_netfilter:
        monkeypatch.setattr("pier.networks.bridge.BRIDGE_FILTER", "net/bridge/none")
        site.mode = "isolated"
    net = site.network("br-apart", icc=False)
    one, two = site.container(net), site.container(net, 3)
    site.publish(one.port("0.0.0.0", 8080), one.port("::", 8080))
    expect(
        reached=[
            Probe(two.machine, "tcp", lan.host_address, 8080),
            Probe(two.machine, "tcp", lan.host_address6, 8080),
            Probe(one.machine, "tcp", lan.host_address, 8080),
            Probe(lan.peer, "tcp", lan.host_address6, 8080),
            Probe(lan.host, "tcp", one.ip6, 80),
            Probe(one.machine, "icmp", lan.peer_address),
        ],
        silent=[
            Probe(source.machine, protocol, address, 80)
            for source, target in ((one, two), (two, one))
            for protocol in ("tcp", "udp", "icmp")
            for address in (target.ip, target.ip6)
        ],
    )


def test_networks_come_and_go_and_leave_nothing(site: Site) -> None:
    def state() -> tuple[object, ...]:
        with site.lan.host.run(NetlinkSocket) as sock:
            links = [link.name for link in sock.links()]
        nft = site.lan.host.run(Nftables)
        try:
            return links, nft.run("list table inet pier")
        finally:
            nft.close()

    first = site.network("br-first")
    before = state()
    second = site.network("br-second", internal=True)
    third = site.network("br-third", gateway_mode_v6="routed", snat_v4="192.0.2.1", icc=True)
    web = Container(site.lan.host, "10.12.0.2", "fd00:12::2", third.bridge)
    forwards = [web.port("0.0.0.0", 80), web.port("::", 80), web.port("127.0.0.1", 81, protocol="sctp")]
    site.publish(*forwards)
    assert state() != before
    site.lan.host.run(lambda: site.side.unpublish(forwards))
    for network in (second, third, third):
        site.lan.host.run(lambda network=network: site.side.remove(network))
    assert state() == before
    assert list(site.side.firewall.networks) == [first.bridge]


def test_a_network_that_cannot_be_made_leaves_nothing(site: Site) -> None:
    with site.lan.host.run(NetlinkSocket) as sock:
        sock.create_bridge("br-own", mac="02:00:00:00:00:77")
    before = site.lan.host.run(site.side.firewall.ruleset)
    with pytest.raises(BridgeFailed, match="eth0 exists and is no bridge"):
        site.network("eth0")
    with pytest.raises(BridgeFailed, match=r"numerical result|Numerical result|name"):
        site.network("br-much-too-long-a-name")
    assert site.lan.host.run(site.side.firewall.ruleset) == before


def test_rules_that_cannot_be_made_leave_no_bridge(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.network("br-first")
    before = site.lan.host.run(site.side.firewall.ruleset)
    run = Nftables.run

    def refuse(nft: Nftables, commands: str) -> str:
        if "br-second" in commands:
            raise NftablesError(reason="Cannot allocate memory", text="")
        return run(nft, commands)

    monkeypatch.setattr(Nftables, "run", refuse)
    with pytest.raises(BridgeFailed, match=r"cannot create network .* \(br-second\): nftables: Cannot allocate memory"):
        site.network("br-second")
    with site.lan.host.run(NetlinkSocket) as sock:
        assert "br-second" not in [link.name for link in sock.links()]
    assert site.lan.host.run(site.side.firewall.ruleset) == before


def test_attack_21_a_bridge_takes_no_router_advertisements(site: Site) -> None:
    """CVE-2020-13401; and a network without IPv6 has none (CVE-2024-32473)."""
    site.network("br-web")
    four = BridgeNetwork("4" * 64, "br-four", (Subnet(ip_network("10.99.0.0/24"), ip_address("10.99.0.1")),))
    site.lan.host.run(lambda: site.side.add(four))

    def setting(bridge: str, key: str) -> str:
        return site.lan.host.run(lambda: Path(f"/proc/sys/net/ipv6/conf/{bridge}/{key}").read_text().strip())

    assert setting("br-web", "accept_ra") == "0"
    assert setting("br-four", "accept_ra") == "0"
    assert setting("br-four", "disable_ipv6") == "1"
    assert setting("br-web", "accept_dad") == "0", "the host would ask for no neighbour for two seconds"
    assert setting("eth0", "accept_ra") == "2", "the host, now a router, must still hear its own"


def test_becoming_a_router_for_containers_is_not_becoming_one_for_strangers(site: Site) -> None:
    lan = site.lan
    site.network("br-web")
    with machines(1) as (other,), lan.host.run(NetlinkSocket) as sock:
        sock.create_bridge("lan1", mac="02:42:c6:33:64:01")
        index = sock.link_index("lan1")
        for address in ("203.0.113.1/24", "2001:db8:3::1/64"):
            sock.add_address(index, address)
        sock.set_up(index)
        wire = Interface("eth0", "vother", "lan1", "02:42:c6:33:64:09", ["203.0.113.9/24", "2001:db8:3::9/64"],
                         ["203.0.113.1", "2001:db8:3::1"])  # fmt: skip
        other.plug(wire, lan.host)
        lan.peer.route("203.0.113.0/24", lan.host_address)
        lan.peer.route("2001:db8:3::/64", lan.host_address6)
        expect(
            reached=[Probe(lan.host, "icmp", "203.0.113.9"), Probe(lan.host, "icmp", "2001:db8:3::9")],
            silent=[Probe(lan.peer, "icmp", "203.0.113.9"), Probe(lan.peer, "icmp", "2001:db8:3::9")],
        )
