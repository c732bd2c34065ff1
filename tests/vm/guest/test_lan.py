"""Devices that the development host's kernel lacks: ipvlan, 802.1q sub-interfaces, dummies.

one, two ── host ── lan0 ── peer
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from netlab import Machine, machines, stop
from pier.kernel.netlink import NetlinkSocket, VethPair
from pier.runtime.request import Interface

SILENCE_S = 0.5


class Lan:
    """A host and its neighbour, joined by `lan0` and `eth0`; two machines without interfaces."""

    def __init__(self, host: Machine, peer: Machine, one: Machine, two: Machine) -> None:
        self.host, self.peer, self.one, self.two = host, peer, one, two
        with host.run(NetlinkSocket) as sock:
            sock.create_bridge("br0", mac="02:42:0a:00:00:01")
            sock.create_veth(VethPair("lan0", sock.link_index("br0"), "eth0", "02:42:0a:00:00:09", peer.fd, 1500))
            sock.delete_link(sock.link_index("br0"))
            sock.add_address(sock.link_index("lan0"), "10.0.0.1/24")
        with peer.run(NetlinkSocket) as sock:
            index = sock.link_index("eth0")
            sock.set_up(index)
            for address in ("10.0.0.9/24", "fd00::9/64"):
                sock.add_address(index, address)

    def plug(self, machine: Machine, number: int, **more: Any) -> None:
        fields: dict[str, Any] = {
            "parent": "lan0",
            "mac": "",
            "addresses": [f"10.0.0.{number}/24", f"fd00::{number}/64"],
            "gateways": [],
            "mtu": 0,
        }
        machine.plug(Interface(name="eth0", host_name="", **fields | more), self.host)


@pytest.fixture
def lan() -> Iterator[Lan]:
    with machines(4) as (host, peer, one, two):
        yield Lan(host, peer, one, two)


def reaches(source: Machine, target: Machine, address: str, timeout_s: float = 20.0) -> bool:
    server = target.serve("udp", 7, "::")
    try:
        return source.ask("udp", address, 7, timeout_s) is not None
    finally:
        stop(server)


@pytest.mark.parametrize("flag", ["", "bridge", "private", "vepa"])
def test_ipvlan_l2(lan: Lan, flag: str) -> None:
    lan.plug(lan.one, 2, kind="ipvlan", mode="l2", flag=flag)
    lan.plug(lan.two, 3, kind="ipvlan", mode="l2", flag=flag)
    with lan.host.run(NetlinkSocket) as outside, lan.one.run(NetlinkSocket) as inside:
        assert inside.link("eth0").mac == outside.link("lan0").mac
        assert inside.link("eth0").mtu == 1500
    assert lan.one.ping("10.0.0.9")
    assert lan.peer.ping("10.0.0.2")
    assert lan.one.ping("fd00::9")
    between = flag in ("", "bridge")
    assert lan.one.ping("10.0.0.3", 20.0 if between else SILENCE_S) is between


@pytest.mark.parametrize("mode", ["l3", "l3s"])
def test_ipvlan_l3_is_routed_by_the_host(lan: Lan, mode: str) -> None:
    everywhere = [("0.0.0.0/0", ""), ("::/0", "")]
    settings = {"kind": "ipvlan", "mode": mode, "routes": everywhere}
    lan.plug(lan.one, 2, addresses=["10.77.1.2/24", "fd77:1::2/64"], **settings)
    lan.plug(lan.two, 3, addresses=["10.77.2.3/24", "fd77:2::3/64"], **settings)
    assert lan.one.ping("10.77.2.3"), "another subnet of the same parent"
    assert lan.one.ping("fd77:2::3")
    lan.peer.route("10.77.1.0/24", "10.0.0.1")
    assert lan.one.ping("10.0.0.9")
    assert lan.peer.ping("10.77.1.2")


def test_ipvlans_of_one_parent_have_one_mode(lan: Lan) -> None:
    lan.plug(lan.one, 2, kind="ipvlan", mode="l2")
    with pytest.raises(OSError, match="create macvlan eth0: Device or resource busy"):
        lan.plug(lan.two, 3, kind="macvlan")


def test_a_macvlan_on_a_sub_interface_is_tagged(lan: Lan) -> None:
    for machine, device in ((lan.host, "lan0"), (lan.peer, "eth0")):
        with machine.run(NetlinkSocket) as sock:
            sock.create_vlan(f"{device}.50", sock.link_index(device), 50)
    with lan.peer.run(NetlinkSocket) as sock:
        sock.add_address(sock.link_index("eth0.50"), "10.50.0.9/24")
    lan.plug(lan.one, 2, kind="macvlan", parent="lan0.50", addresses=["10.50.0.2/24"])
    lan.plug(lan.two, 3, kind="macvlan", parent="lan0", addresses=["10.50.0.3/24"])
    assert lan.one.ping("10.50.0.9")
    assert not lan.two.ping("10.50.0.9", SILENCE_S), "not on that VLAN"


def test_a_dummy_is_a_parent_that_leads_nowhere(lan: Lan) -> None:
    with lan.host.run(NetlinkSocket) as sock:
        assert sock.knows("ipvlan")
        assert sock.knows("vlan")
        sock.create_dummy("nowhere0")
        sock.set_up(sock.link_index("nowhere0"))
    for number, machine in ((2, lan.one), (3, lan.two)):
        lan.plug(machine, number, kind="macvlan", parent="nowhere0")
    assert reaches(lan.one, lan.two, "fd00::3")
    assert not lan.one.ping("10.0.0.9", SILENCE_S)
