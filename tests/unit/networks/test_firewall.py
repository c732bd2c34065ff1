"""The firewall's text, without a kernel; whether the kernel takes it and what it does is tested with packets."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from pier.kernel.nfelements import SetElement
from pier.networks.bridge_options import BridgeNetwork
from pier.networks.firewall import Firewall, Forward, add_elements, delete_elements, in_words, table_of
from pier.networks.ipam import Subnet

FOUR = Subnet(ip_network("172.18.0.0/16"), ip_address("172.18.0.1"))
SIX = Subnet(ip_network("fd00::/64"), ip_address("fd00::1"))
WEB = Forward("tcp", "0.0.0.0", 8080, "172.18.0.2", 80, "br-a")
DNS = Forward("udp", "127.0.0.1", 5353, "172.18.0.2", 53, "br-a")
WEB6 = Forward("tcp", "::", 8080, "fd00::2", 80, "br-a")
ONE6 = Forward("sctp", "2001:db8::1", 8080, "fd00::2", 80, "br-a")
CROSS = Forward("tcp", "::", 8080, "172.18.0.2", 80, "br-a")


def network(bridge: str = "br-a", **options: Any) -> BridgeNetwork:
    return BridgeNetwork("1" * 64, bridge, (FOUR, SIX), **options)


def firewall(*networks: BridgeNetwork, **options: Any) -> Firewall:
    return Firewall(networks={item.bridge: item for item in networks or [network()]}, **options)


def rules(made: Firewall, chain: str) -> list[str]:
    (found,) = [made.chains(item)[chain] for item in made.networks.values() if chain in made.chains(item)]
    return found


@pytest.mark.parametrize(
    ("forward", "expected"),
    [
        (WEB, SetElement("publish4_any", ("tcp", 8080), ("172.18.0.2", 80))),
        (DNS, SetElement("publish4", ("127.0.0.1", "udp", 5353), ("172.18.0.2", 53))),
        (WEB6, SetElement("publish6_any", ("tcp", 8080), ("fd00::2", 80))),
        (ONE6, SetElement("publish6", ("2001:db8::1", "sctp", 8080), ("fd00::2", 80))),
    ],
)
def test_a_port_is_one_element(forward: Forward, expected: SetElement) -> None:
    made = firewall()
    assert made.publish([forward]) == [expected]
    assert made.unpublish([forward]) == [expected]
    assert made.forwards == []


def test_nothing_is_translated_between_families() -> None:
    assert firewall().publish([CROSS]) == []


@pytest.mark.parametrize(
    ("options", "daemon", "forward", "opened"),
    [
        ({}, {}, WEB, False),
        ({}, {"direct_routing": True}, WEB, True),
        ({}, {"direct_routing": True}, DNS, False),
        ({"trusted_interfaces": ("eth1",)}, {}, WEB, True),
        ({"gateway_mode_v4": "routed"}, {}, Forward("tcp", "0.0.0.0", 0, "172.18.0.2", 80, "br-a"), True),
        ({"gateway_mode_v4": "routed"}, {}, WEB6, False),
        ({"internal": True}, {"direct_routing": True}, WEB, False),
    ],
)
def test_what_is_reached_at_the_containers_own_address(
    options: dict[str, Any], daemon: dict[str, Any], forward: Forward, opened: bool
) -> None:
    made = firewall(network(**options), **daemon)
    owners = [element.owner for element in made.publish([forward])]
    assert ("open4" in owners or "open6" in owners) == opened


def test_an_opening_that_two_ports_share_goes_with_the_last() -> None:
    made = firewall(direct_routing=True)
    other = Forward("tcp", "0.0.0.0", 9090, "172.18.0.2", 80, "br-a")
    opening = SetElement("open4", ("172.18.0.2", "tcp", 80))
    assert opening in made.publish([WEB])
    assert opening not in made.publish([other])
    assert opening not in made.unpublish([WEB])
    assert opening in made.unpublish([other])


def test_a_port_that_is_not_published_is_not_unpublished() -> None:
    assert firewall().unpublish([WEB]) == []


def test_the_whole_is_put_in_the_place_of_what_was_there() -> None:
    text = firewall().ruleset()
    assert text.startswith("add table inet pier\ndelete table inet pier\ntable inet pier {")
    assert table_of("pier0") == "inet pier"
    assert table_of("br1") == "inet pier-br1"


def test_a_network_is_elements_and_chains_of_its_own_whatever_is_there() -> None:
    made = firewall(*(network(f"br-{number}") for number in range(50)))
    text = made.add_commands(network("br-new"))
    assert "br-7" not in text
    assert text.count("chain ") == 3
    assert text.count("add element") == 6
    removed = made.remove_commands(network("br-new"))
    assert removed.count("delete element") == 6
    assert removed.count("delete chain") == 3


@pytest.mark.parametrize(
    ("options", "chain", "expected"),
    [
        ({}, "leave-br-a", "meta nfproto ipv4 masquerade"),
        ({}, "leave-br-a", "meta nfproto ipv6 masquerade"),
        ({"snat_v4": "192.0.2.7"}, "leave-br-a", "meta nfproto ipv4 snat ip to 192.0.2.7"),
        ({"snat_v6": "2001:db8::7"}, "leave-br-a", "meta nfproto ipv6 snat ip6 to 2001:db8::7"),
        ({"icc": False}, "into-br-a", 'iifname "br-a" drop'),
        ({}, "into-br-a", "meta nfproto ipv6 ct status dnat accept"),
        ({"gateway_mode_v4": "nat-unprotected"}, "into-br-a", "meta nfproto ipv4 accept"),
        ({"gateway_mode_v4": "routed"}, "into-br-a", "meta nfproto ipv4 meta l4proto icmp accept"),
        ({"gateway_mode_v6": "routed"}, "into-br-a", "meta nfproto ipv6 meta l4proto ipv6-icmp accept"),
        ({"gateway_mode_v6": "routed"}, "into-br-a", "ip6 daddr . meta l4proto . th dport @open6 accept"),
        ({"trusted_interfaces": ("eth1",)}, "guard-br-a", 'iifname { "lo", "br-a", "eth1" } return'),
        ({}, "guard-br-a", "ip daddr 172.18.0.1 return"),
        ({"internal": True}, "confine-br-a", "meta nfproto { ipv4, ipv6 } drop"),
    ],
)
def test_each_setting_has_its_rule(options: dict[str, Any], chain: str, expected: str) -> None:
    assert expected in rules(firewall(network(**options)), chain)


@pytest.mark.parametrize(
    ("options", "chain", "absent"),
    [
        ({"masquerade": False}, "leave-br-a", "meta nfproto ipv4 masquerade"),
        ({"gateway_mode_v6": "routed"}, "leave-br-a", "meta nfproto ipv6 masquerade"),
        ({"internal": True}, "into-br-a", "meta nfproto ipv4 ct status dnat accept"),
        ({"internal": True}, "guard-br-a", "ip daddr 172.18.0.1 return"),
    ],
)
def test_what_a_setting_takes_away(options: dict[str, Any], chain: str, absent: str) -> None:
    assert absent not in rules(firewall(network(**options)), chain)


@pytest.mark.parametrize(
    ("options", "daemon", "guarded"),
    [
        ({}, {}, {4, 6}),
        ({}, {"direct_routing": True}, set()),
        ({"gateway_mode_v4": "routed"}, {}, {6}),
        ({"gateway_mode_v6": "nat-unprotected"}, {}, {4}),
        ({"internal": True}, {"direct_routing": True}, {4, 6}),
    ],
)
def test_attack_21_nobody_routes_around_the_published_ports(
    options: dict[str, Any], daemon: dict[str, Any], guarded: set[int]
) -> None:
    made = firewall(network(**options), **daemon)
    assert {subnet.version for subnet in made.guarded(network(**options))} == guarded
    for version in guarded:
        assert f"add element inet pier guarded{version} {{" in made.ruleset()


def test_what_cannot_be_forwarded_is_not_translated() -> None:
    lines = [line.strip() for line in firewall().ruleset().splitlines()]
    first = next(number for number, line in enumerate(lines) if "dnat ip6" in line)
    assert lines[first - 1] == "ip6 saddr fe80::/10 return"


@pytest.mark.parametrize("rule", ['iifname != "lo" ip daddr 127.0.0.0/8 drop', 'iifname != "lo" ip6 daddr ::1 drop'])
def test_attack_21_each_guard_stands(rule: str) -> None:
    """Some of them stand behind one another, so that the tests with packets cannot miss one alone."""
    assert rule in [line.strip() for line in firewall().ruleset().splitlines()]


@pytest.mark.parametrize("options", [{}, {"internal": True}, {"gateway_mode_v4": "routed"}])
def test_attack_21_a_network_lets_in_nothing_else(options: dict[str, Any]) -> None:
    assert rules(firewall(network(**options)), "into-br-a")[-1] == "drop"


def test_what_was_not_forwarded_before_stays_so_for_strangers() -> None:
    assert "add element inet pier closed { ipv4, ipv6 }" in firewall(closed={4, 6}).ruleset()
    assert "closed {" not in firewall().ruleset().replace("set closed {", "")


def test_elements_are_one_command_a_map() -> None:
    ports = [WEB, DNS, Forward("tcp", "0.0.0.0", 81, "172.18.0.2", 81, "br-a")]
    elements = [in_words(element) for element in firewall().port_elements(ports)]
    assert add_elements("inet pier", elements) == (
        "add element inet pier publish4_any { tcp . 8080 : 172.18.0.2 . 80, tcp . 81 : 172.18.0.2 . 81 }\n"
        "add element inet pier publish4 { 127.0.0.1 . udp . 5353 : 172.18.0.2 . 53 }\n"
    )
    assert delete_elements("inet pier", elements) == (
        "delete element inet pier publish4_any { tcp . 8080, tcp . 81 }\n"
        "delete element inet pier publish4 { 127.0.0.1 . udp . 5353 }\n"
    )


def test_attack_21_what_comes_from_other_machines_is_left_to_the_hosts_firewall_where_that_is_asked_for() -> None:
    assert "iifname != @bridges return" in firewall(host_rules=True).ruleset()
    assert "iifname != @bridges return" not in firewall().ruleset()


def test_an_ip_version_without_rules() -> None:
    made = firewall(plain=frozenset({6}))
    assert rules(made, "into-br-a")[0] == "meta nfproto ipv6 accept"
    assert "add element inet pier guarded6" not in made.ruleset()
    assert "add element inet pier leaving6" not in made.ruleset()
    assert made.publish([WEB6]) == []
