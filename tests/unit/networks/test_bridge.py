"""The bridge's plan: what is missing, in order, and undone when a step fails."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any, cast

import pytest

from pier.kernel.netlink import Address, Link, NetlinkSocket, Route
from pier.networks.bridge import (
    device_plan,
    device_sysctls,
    forwarding_plan,
    host_networks,
    port_mode,
    run_plan,
    sysctl_plan,
)
from pier.networks.bridge_options import BridgeNetwork
from pier.networks.ipam import Subnet

FOUR = Subnet(ip_network("172.17.0.0/16"), ip_address("172.17.0.1"))
SIX = Subnet(ip_network("fd00::/64"), ip_address("fd00::1"))
LO = Link(1, "lo", "", 0, 65536, "00:00:00:00:00:00", up=True)
BRIDGE = Link(5, "pier0", "bridge", 0, 1500, "02:42:ac:11:00:01", up=True)
GATEWAY = Address(5, "172.17.0.1", 16)
SETTINGS = {
    "net/ipv4/conf/pier0/route_localnet": "1",
    "net/ipv6/conf/pier0/accept_ra": "0",
    "net/ipv6/conf/pier0/disable_ipv6": "1",
}


def network(*subnets: Subnet, **options: Any) -> BridgeNetwork:
    return BridgeNetwork("1" * 64, "pier0", subnets or (FOUR,), **options)


def described(links: list[Link], addresses: list[Address], made: BridgeNetwork | None = None) -> list[str]:
    return [step.describe() for step in device_plan(made or network(), links, addresses, SETTINGS.get)]


@pytest.mark.parametrize(
    ("links", "addresses", "expected"),
    [
        ([LO, BRIDGE], [GATEWAY], []),
        ([LO, BRIDGE], [], ["add 172.17.0.1/16 to pier0"]),
        (
            [LO, BRIDGE],
            [Address(5, "10.0.0.1", 8), Address(5, "fe80::1", 64), Address(1, "127.0.0.1", 8)],
            ["delete 10.0.0.1/8 from pier0", "add 172.17.0.1/16 to pier0"],
        ),
        ([LO, Link(5, "pier0", "bridge", 0, 1500, "", up=False)], [GATEWAY], ["set pier0 up"]),
    ],
)
def test_only_what_is_missing(links: list[Link], addresses: list[Address], expected: list[str]) -> None:
    assert described(links, addresses) == expected


def test_attack_21_a_new_bridge_never_listens_to_router_advertisements() -> None:
    """CVE-2020-13401: the settings come before the device is up."""
    assert described([LO], [], network(FOUR, SIX)) == [
        "create bridge pier0",
        "set net.ipv4.conf.pier0.route_localnet = 1",
        "set net.ipv6.conf.pier0.accept_ra = 0",
        "set net.ipv6.conf.pier0.accept_dad = 0",
        "set net.ipv6.conf.pier0.disable_ipv6 = 0",
        "add 172.17.0.1/16 to pier0",
        "add fd00::1/64 to pier0",
        "set pier0 up",
    ]


@pytest.mark.parametrize(
    ("options", "addresses"),
    [
        ({}, ["172.17.0.1/16", "fd00::1/64"]),
        ({"inhibit_ipv4": True}, ["fd00::1/64"]),
        ({"internal": True}, ["172.17.0.1/16", "fd00::1/64"]),
        ({"internal": True, "gateway_mode_v4": "isolated"}, ["fd00::1/64"]),
    ],
)
def test_what_the_bridge_carries(options: dict[str, Any], addresses: list[str]) -> None:
    assert network(FOUR, SIX, **options).addresses == addresses


def test_an_isolated_network_does_not_know_the_host() -> None:
    """No address, no link-local one either, and nothing taken from a source that no route leads to."""
    modes: dict[str, Any] = {"gateway_mode_v4": "isolated", "gateway_mode_v6": "isolated"}
    subnets = [replace(subnet, gateway=None) for subnet in (FOUR, SIX)]
    assert described([LO], [], network(*subnets, internal=True, **modes)) == [
        "create bridge pier0",
        "set net.ipv4.conf.pier0.rp_filter = 1",
        "set net.ipv6.conf.pier0.accept_ra = 0",
        "set net.ipv6.conf.pier0.disable_ipv6 = 1",
        "set pier0 up",
    ]


@pytest.mark.parametrize(
    ("subnets", "options", "expected"),
    [
        ((FOUR,), {}, ["route_localnet"]),
        ((FOUR, SIX), {}, ["route_localnet", "disable_ipv6"]),
        ((FOUR,), {"internal": True, "gateway_mode_v4": "isolated"}, []),
    ],
)
def test_a_bridge_that_was_there_before_keeps_its_settings(
    subnets: tuple[Subnet, ...], options: dict[str, Any], expected: list[str]
) -> None:
    """It may be the host's own way to the world: the router it has learned, and its IPv6 addresses, stay."""
    found = device_sysctls(network(*subnets, adopted=True, **options))
    assert [key.rpartition("/")[2] for key in found] == expected


def test_another_device_of_that_name_is_left_alone() -> None:
    with pytest.raises(ValueError, match="pier0 exists and is no bridge"):
        device_plan(network(), [Link(5, "pier0", "veth", 0, 1500, "", up=True)], [])


def test_settings_that_differ() -> None:
    present = SETTINGS | {"net/ipv4/conf/pier0/route_localnet": "0"}
    steps = sysctl_plan(device_sysctls(network()), present.get)
    assert [step.describe() for step in steps] == ["set net.ipv4.conf.pier0.route_localnet = 1"]


def test_a_kernel_without_ipv6_is_told_nothing_of_it_and_refused_where_it_is_wanted() -> None:
    without = {"net/ipv4/conf/pier0/route_localnet": "1"}
    assert sysctl_plan(device_sysctls(network()), without.get) == []
    with pytest.raises(ValueError, match=r"this kernel has no net\.ipv6\.conf\.pier0\.disable_ipv6"):
        sysctl_plan(device_sysctls(network(FOUR, SIX)), without.get)


def test_a_host_that_becomes_an_ipv6_router_still_hears_its_own() -> None:
    present = {
        "net/ipv6/conf/all/forwarding": "0",
        "net/ipv6/conf/eth0/accept_ra": "1",
        "net/ipv6/conf/eth1/accept_ra": "0",
    }
    steps = forwarding_plan(6, ["eth0", "eth1"], present.get)
    assert [step.describe() for step in steps] == [
        "set net.ipv6.conf.eth0.accept_ra = 2",
        "set net.ipv6.conf.all.forwarding = 1",
    ]
    assert forwarding_plan(6, ["eth0"], {"net/ipv6/conf/all/forwarding": "1"}.get) == []


class Step:
    def __init__(self, name: str, log: list[str], error: OSError | None = None) -> None:
        self.name, self.log, self.error = name, log, error

    def describe(self) -> str:
        return self.name

    def execute(self, netlink: NetlinkSocket) -> None:
        if self.error:
            raise self.error
        self.log.append(f"do {self.name}")

    def undo(self, netlink: NetlinkSocket) -> None:
        self.log.append(f"undo {self.name}")


def test_a_failed_plan_is_undone_in_reverse() -> None:
    log: list[str] = []
    steps = [Step("a", log), Step("b", log), Step("c", log, OSError("no")), Step("d", log)]
    with pytest.raises(OSError, match="no"):
        run_plan(steps, cast(NetlinkSocket, None))
    assert log == ["do a", "do b", "undo b", "undo a"]


def test_host_networks_are_those_of_other_devices_and_no_default_routes() -> None:
    routes = [
        Route("0.0.0.0/0", "192.0.2.1", 2, 254),
        Route("0.0.0.0/1", "10.8.0.1", 3, 254),
        Route("10.8.0.0/16", "10.8.0.1", 3, 254),
        Route("172.17.0.0/16", "", 5, 254),
        Route("fd01::/64", "", 2, 254),
        Route("::/0", "fe80::1", 2, 254),
        Route("2000::/3", "fe80::1", 2, 254),
        Route("fe80::/64", "", 2, 254),
        Route("ff00::/8", "", 2, 255),
    ]
    addresses = [Address(2, "192.0.2.2", 24), Address(5, "172.17.0.1", 16), Address(2, "fd00::2", 64)]
    found = host_networks(routes, addresses, except_indexes=[5])
    assert [str(item) for item in found] == ["10.8.0.0/16", "fd01::/64", "192.0.2.0/24", "fd00::/64"]


@pytest.mark.parametrize(
    ("icc", "br_netfilter", "planned", "mode"),
    [(True, True, False, ""), (False, True, True, ""), (False, False, False, "isolated")],
)
def test_containers_are_kept_apart_by_rules_or_ports(icc: bool, br_netfilter: bool, planned: bool, mode: str) -> None:
    settings = SETTINGS | ({"net/bridge/bridge-nf-call-iptables": "0"} if br_netfilter else {})
    made = network(icc=icc)
    steps = [step.describe() for step in device_plan(made, [LO], [], settings.get)]
    assert ("filter inside of pier0" in steps) == planned
    assert port_mode(made, settings.get) == mode
