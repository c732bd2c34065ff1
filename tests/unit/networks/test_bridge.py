"""The bridge's plan: what is missing, in order, and undone when a step fails."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import cast

import pytest

from pier.kernel.netlink import Address, Link, NetlinkSocket, Route
from pier.networks.bridge import (
    BridgeConfig,
    device_plan,
    host_networks,
    run_plan,
    sysctl_plan,
    wanted_sysctls,
)
from pier.networks.host import BadBridgeAddress, NetworkConfig, check_addresses, choose_address, foreign_drops

CONFIG = BridgeConfig("pier0", IPv4Network("172.17.0.0/16"), IPv4Address("172.17.0.1"))
LO = Link(1, "lo", "", 0, 65536, "00:00:00:00:00:00", up=True)
BRIDGE = Link(5, "pier0", "bridge", 0, 1500, "02:42:ac:11:00:01", up=True)
GATEWAY = Address(5, "172.17.0.1", 16)


@pytest.mark.parametrize(
    ("links", "addresses", "expected"),
    [
        ([LO], [], ["create bridge pier0", "add 172.17.0.1/16 to pier0", "set pier0 up"]),
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
    assert [step.describe() for step in device_plan(CONFIG, links, addresses)] == expected


def test_another_device_of_that_name_is_left_alone() -> None:
    with pytest.raises(ValueError, match="pier0 exists and is no bridge"):
        device_plan(CONFIG, [Link(5, "pier0", "veth", 0, 1500, "", up=True)], [])


def test_sysctls_that_differ() -> None:
    present = {"net/ipv4/conf/pier0/route_localnet": "0", "net/ipv4/ip_forward": "1"}
    steps = sysctl_plan(wanted_sysctls(CONFIG, icc=True), present.get)
    assert [step.describe() for step in steps] == ["set net.ipv4.conf.pier0.route_localnet = 1"]


def test_isolation_that_this_kernel_cannot_give_is_refused() -> None:
    present = dict.fromkeys(wanted_sysctls(CONFIG, icc=True), "1")
    with pytest.raises(ValueError, match=r"no net\.bridge\.bridge-nf-call-iptables"):
        sysctl_plan(wanted_sysctls(CONFIG, icc=False), present.get)


class Step:
    def __init__(self, name: str, log: list[str], failure: OSError | None = None) -> None:
        self.name, self.log, self.failure = name, log, failure

    def describe(self) -> str:
        return self.name

    def execute(self, netlink: NetlinkSocket) -> None:
        if self.failure:
            raise self.failure
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
        Route("fd00::/64", "", 2, 254),
    ]
    addresses = [Address(2, "192.0.2.2", 24), Address(5, "172.17.0.1", 16), Address(2, "fd00::2", 64)]
    assert host_networks(routes, addresses, except_index=5) == [
        IPv4Network("10.8.0.0/16"),
        IPv4Network("192.0.2.0/24"),
    ]


@pytest.mark.parametrize(
    ("config", "earlier", "occupied", "in_use", "expected"),
    [
        ({}, "", [], False, "172.17.0.1/16"),
        ({}, "", ["172.17.0.0/24"], False, "172.18.0.1/16"),
        ({}, "172.19.0.0/16", [], False, "172.19.0.1/16"),
        ({}, "172.19.0.0/16", ["172.19.1.0/24"], False, "172.17.0.1/16"),
        ({}, "172.19.0.0/16", ["172.19.1.0/24"], True, "172.19.0.1/16"),
        ({"bip": "10.5.0.9/24"}, "172.19.0.0/16", ["10.0.0.0/8"], True, "10.5.0.9/24"),
    ],
)
def test_the_bridges_address(
    config: dict[str, str], earlier: str, occupied: list[str], in_use: bool, expected: str
) -> None:
    networks = [IPv4Network(text) for text in occupied]
    assert str(choose_address(NetworkConfig(**config), earlier, networks, in_use=in_use)) == expected


@pytest.mark.parametrize(
    "config",
    [
        {"bip": "nonsense"},
        {"bip": "10.0.0.0/24"},
        {"bip": "10.0.0.255/24"},
        {"bip": "10.0.0.1"},
        {"bip": "10.0.0.1/24", "fixed_cidr": "10.0.1.0/28"},
        {"bip": "10.0.0.1/24", "fixed_cidr": "10.0.0.1/28"},
        {"fixed_cidr": "10.0.1.0/28"},
    ],
)
def test_wrong_addresses_are_refused(config: dict[str, str]) -> None:
    with pytest.raises(BadBridgeAddress, match="invalid address of the default bridge"):
        check_addresses(NetworkConfig(**config))


def test_another_firewall_that_drops_is_named() -> None:
    def chain(table: str, policy: str, hook: str = "forward") -> dict[str, dict[str, str]]:
        return {"chain": {"family": "ip", "table": table, "name": "FORWARD", "hook": hook, "policy": policy}}

    listed = [chain("filter", "drop"), chain("pier", "drop"), chain("x", "accept"), chain("y", "drop", "input")]
    assert foreign_drops(listed, "pier0") == [
        "WARNING: ip filter FORWARD drops forwarded packets by default, those of containers too, unless it accepts "
        "device pier0 in and out"
    ]
