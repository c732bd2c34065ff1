"""Interfaces that come and go in a running container's namespace, and what neighbours are told."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Iterator

import pytest

from netlab import Machine, machines
from pier.kernel.netlink import NetlinkSocket, Route
from pier.networks import announce
from pier.networks.inside import run_inside
from pier.networks.live import attach, detach, free_name, move_default_routes
from pier.runtime.request import Interface

MAC = "02:42:0a:00:00:02"
ETH_P_ARP, ETH_P_IPV6 = 0x0806, 0x86DD


def veth(name: str = "eth0", bridge: str = "br0", **more: object) -> Interface:
    fields: dict[str, object] = {"mac": MAC, "addresses": ["10.0.0.2/24"], "gateways": []}
    return Interface(name=name, host_name=f"h{name}", parent=bridge, **fields | more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[Machine, Machine]]:
    """A host with bridges `br0` at 10.0.0.1/24 and `br1` at fd00::1/64, and a container."""
    with machines(2) as (host, guest):
        with host.run(NetlinkSocket) as sock:
            for name, address in (("br0", "10.0.0.1/24"), ("br1", "fd00::1/64")):
                sock.create_bridge(name, mac=f"02:42:0a:00:00:0{name[2]}")
                index = sock.link_index(name)
                sock.add_address(index, address)
                sock.set_up(index)
        yield host, guest


def names(machine: Machine) -> set[str]:
    with machine.run(NetlinkSocket) as sock:
        return {link.name for link in sock.links()}


def defaults(machine: Machine) -> set[tuple[str, str]]:
    with machine.run(NetlinkSocket) as sock:
        name = {link.index: link.name for link in sock.links()}
        return {
            (name[route.index], route.gateway)
            for route in sock.routes()
            if route.destination in ("0.0.0.0/0", "::/0") and route.table == 254
        }


@pytest.mark.parametrize(
    ("taken", "name"),
    [([], "eth0"), (["eth0"], "eth1"), (["eth1"], "eth0"), (["eth0", "eth2", "lo"], "eth1"), (["lan7"], "eth0")],
)
def test_the_first_free_name(taken: list[str], name: str) -> None:
    assert free_name(taken) == name


@pytest.mark.root
def test_deeds_inside_are_done_there_and_leave_the_daemons_threads_where_they_are(
    pair: tuple[Machine, Machine],
) -> None:
    host, guest = pair
    here = host.run(lambda: os.stat("/proc/thread-self/ns/net").st_ino)
    there, thread = host.run(
        lambda: run_inside(guest.fd, lambda: (os.stat("/proc/thread-self/ns/net").st_ino, threading.get_ident()))
    )
    assert there == os.fstat(guest.fd).st_ino != here
    assert host.run(lambda: os.stat("/proc/thread-self/ns/net").st_ino) == here
    assert thread not in {item.ident for item in threading.enumerate()}


@pytest.mark.root
def test_errors_come_back_from_inside(pair: tuple[Machine, Machine]) -> None:
    _, guest = pair
    with pytest.raises(ZeroDivisionError):
        run_inside(guest.fd, lambda: 1 // 0)
    with open("/dev/null") as file, pytest.raises(OSError, match="Invalid argument"):
        run_inside(file.fileno(), lambda: None)


@pytest.mark.root
def test_an_interface_comes_works_and_goes(pair: tuple[Machine, Machine]) -> None:
    host, guest = pair
    before = names(host)
    wanted = veth()
    host.run(lambda: attach(guest.fd, wanted))
    guest.serve("udp", 7)
    assert host.ask("udp", "10.0.0.2", 7) == "10.0.0.1"
    host.run(lambda: detach(guest.fd, wanted))
    assert names(guest) == {"lo"}
    assert names(host) == before
    host.run(lambda: detach(guest.fd, wanted))  # and once more


@pytest.mark.root
@pytest.mark.parametrize(
    ("wanted", "error", "words"),
    [
        (veth(addresses=["10.0.0.2/24", "10.0.0.2/24"]), FileExistsError, "add address 10"),
        (veth(gateways=["192.0.2.1"]), OSError, r"add default route by 192\.0\.2\.1: Network is unreachable"),
        (veth(sysctls={"net.ipv4.conf.IFNAME.nothing": "1"}), FileNotFoundError, "eth0/nothing"),
        (veth(bridge="nobr"), OSError, "find network device nobr: No such device"),
        (veth(name="lo"), FileExistsError, "the container has one of that name"),
        (veth(kind="macvlan", mode="odd"), ValueError, "'odd' is no macvlan mode"),
    ],
)
def test_nothing_is_left_of_an_interface_that_fails(
    pair: tuple[Machine, Machine], wanted: Interface, error: type[Exception], words: str
) -> None:
    host, guest = pair
    before = names(host)
    with pytest.raises(error, match=words):
        host.run(lambda: attach(guest.fd, wanted))
    assert names(guest) == {"lo"}
    assert names(host) == before


@pytest.mark.root
def test_a_macvlan_comes_and_goes(pair: tuple[Machine, Machine]) -> None:
    host, guest = pair
    wanted = veth(kind="macvlan", mtu=0, mode="private")
    host.run(lambda: attach(guest.fd, wanted))
    assert names(guest) == {"lo", "eth0"}
    host.run(lambda: detach(guest.fd, wanted))
    assert names(guest) == {"lo"}


@pytest.mark.root
def test_the_default_route_moves(pair: tuple[Machine, Machine]) -> None:
    host, guest = pair
    one = veth(gateways=["10.0.0.1"])
    two = veth("eth1", "br1", addresses=["fd00::2/64"], gateways=[], mac="02:42:0a:00:00:07")
    host.run(lambda: attach(guest.fd, one))
    host.run(lambda: attach(guest.fd, two))
    own = Route("0.0.0.0/1", "10.0.0.9", 0, 254)
    with guest.run(NetlinkSocket) as sock:
        sock.add_route(sock.link_index("eth0"), own.destination, own.gateway)
    try:
        after = [veth(), veth("eth1", gateways=["fd00::1"])]
        host.run(lambda: move_default_routes(guest.fd, [one, two], after))
        assert defaults(guest) == {("eth1", "fd00::1")}
        host.run(lambda: move_default_routes(guest.fd, after, [one, two]))
        assert defaults(guest) == {("eth0", "10.0.0.1")}
        with guest.run(NetlinkSocket) as sock:
            assert "10.0.0.9" in {route.gateway for route in sock.routes()}
        wrong = [veth("eth1", gateways=["fd00::1"]), veth("eth7", gateways=["10.0.0.1"])]
        with pytest.raises(OSError, match=r"the container has no device eth7"):
            host.run(lambda: move_default_routes(guest.fd, [one], wrong))
        assert defaults(guest) == {("eth0", "10.0.0.1")}
        host.run(lambda: detach(guest.fd, one))
        host.run(lambda: move_default_routes(guest.fd, [one], [veth("eth1", gateways=["fd00::1"])]))
        assert defaults(guest) == {("eth1", "fd00::1")}
    finally:
        for item in (one, two):
            host.run(lambda item=item: detach(guest.fd, item))  # type: ignore[misc]


@pytest.mark.parametrize(
    ("mac", "addresses", "news"),
    [
        (MAC, ["10.0.0.2/24"], False),
        (MAC, ["10.0.0.2/24", "fd00::2/64"], True),
        (MAC, ["10.0.0.3/24"], True),
        (MAC, ["10.0.0.2/24", "169.254.1.1/16"], True),
        ("", ["10.0.0.2/24"], True),
    ],
)
def test_neighbours_are_told_news_only(mac: str, addresses: list[str], news: bool) -> None:
    assert announce.is_news(veth(mac=mac, addresses=addresses)) is news


@pytest.mark.root
def test_neighbours_are_told_who_has_an_address_now(pair: tuple[Machine, Machine]) -> None:
    host, guest = pair
    mac = "02:42:00:00:00:77"
    wanted = veth(mac=mac, addresses=["10.0.0.2/24", "fd00::2/64"])

    def listener(protocol: int) -> socket.socket:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(protocol))
        sock.bind(("br0", protocol))
        sock.settimeout(10)
        return sock

    host.run(lambda: attach(guest.fd, wanted))
    try:
        with host.run(lambda: listener(ETH_P_ARP)) as arp, host.run(lambda: listener(ETH_P_IPV6)) as ipv6:
            telling = announce.announce(guest.fd, wanted, times=40, interval_s=0.05)
            thread = threading.Thread(target=asyncio.run, args=(telling,))
            thread.start()
            assert arp.recv(2000)[:28] == announce.gratuitous_arp("10.0.0.2", mac)
            expected = announce.advertisement("fd00::2", mac)
            while True:
                packet = ipv6.recv(2000)
                if packet[40] == announce.ND_NEIGHBOR_ADVERT and packet[44:] == expected[4:]:
                    break
            assert packet[7] == 255, "the hop limit that neighbour discovery wants"
    finally:
        host.run(lambda: detach(guest.fd, wanted))
    thread.join(10)
    assert not thread.is_alive(), "it ends with the interface"


@pytest.mark.root
def test_who_is_gone_tells_nothing(pair: tuple[Machine, Machine]) -> None:
    _, guest = pair
    asyncio.run(announce.announce(guest.fd, veth("eth5")))


@pytest.mark.parametrize(
    ("options", "cadence", "warnings"),
    [
        ({}, (3, 1.0), 0),
        ({announce.TIMES_OPTION: "0", announce.INTERVAL_OPTION: "100"}, (0, 0.1), 0),
        ({announce.TIMES_OPTION: "4", announce.INTERVAL_OPTION: "99"}, (3, 1.0), 2),
        ({announce.TIMES_OPTION: "x", announce.INTERVAL_OPTION: ""}, (3, 1.0), 2),
    ],
)
def test_how_often_neighbours_are_told(options: dict[str, str], cadence: tuple[int, float], warnings: int) -> None:
    assert announce.cadence(options) == cadence
    assert len(announce.wrong_options(options)) == warnings
