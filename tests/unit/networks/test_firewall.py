"""The firewall's text and plans, without a kernel."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest

from pier.networks.firewall import (
    FirewallConfig,
    Forward,
    InstallTable,
    PublishPorts,
    RemoveTable,
    element,
    ruleset,
)

CONFIG = FirewallConfig("pier0", IPv4Network("172.17.0.0/16"), IPv4Address("172.17.0.1"))
WEB = Forward("tcp", "0.0.0.0", 8080, "172.17.0.2", 80)
DNS = Forward("udp", "127.0.0.1", 5353, "172.17.0.2", 53)
SIX = Forward("tcp", "::", 8080, "172.17.0.2", 80)


class Recorder:
    def __init__(self) -> None:
        self.ran: list[str] = []

    def run(self, commands: str) -> str:
        self.ran.append(commands)
        return ""


@pytest.mark.parametrize(
    ("forward", "expected"),
    [
        (WEB, ("publish4_any", "tcp . 8080 : 172.17.0.2 . 80")),
        (DNS, ("publish4", "127.0.0.1 . udp . 5353 : 172.17.0.2 . 53")),
    ],
)
def test_a_port_is_one_element(forward: Forward, expected: tuple[str, str]) -> None:
    assert element(forward) == expected


def test_publish_is_one_transaction_and_its_undo_takes_the_same_elements() -> None:
    nft, plan = Recorder(), PublishPorts((WEB, DNS, SIX))
    plan.execute(nft)
    plan.undo(nft)
    assert nft.ran == [
        "add element inet pier publish4_any { tcp . 8080 : 172.17.0.2 . 80 }\n"
        "add element inet pier publish4 { 127.0.0.1 . udp . 5353 : 172.17.0.2 . 53 }\n",
        "delete element inet pier publish4_any { tcp . 8080 : 172.17.0.2 . 80 }\n"
        "delete element inet pier publish4 { 127.0.0.1 . udp . 5353 : 172.17.0.2 . 53 }\n",
    ]
    assert "0.0.0.0:8080->172.17.0.2:80/tcp" in plan.describe()


def test_nothing_to_translate_runs_nothing() -> None:
    nft = Recorder()
    PublishPorts((SIX,)).execute(nft)
    PublishPorts(()).undo(nft)
    assert nft.ran == []


def test_install_replaces_in_one_transaction_and_undo_removes() -> None:
    nft, plan = Recorder(), InstallTable(CONFIG, (WEB,))
    plan.execute(nft)
    assert nft.ran[0].startswith("add table inet pier\ndelete table inet pier\ntable inet pier {")
    plan.undo(nft)
    assert nft.ran[1] == "add table inet pier\ndelete table inet pier\n"
    assert plan.describe() == "install nftables table inet pier for pier0 with 1 published ports"
    assert RemoveTable().describe() == "remove nftables table inet pier"


@pytest.mark.parametrize(
    ("options", "present", "absent"),
    [
        ({}, 'ip saddr 172.17.0.0/16 oifname != "pier0" masquerade', "policy drop"),
        ({"masquerade": False}, 'ip saddr 127.0.0.0/8 masquerade', 'oifname != "pier0" masquerade'),
        ({"icc": False}, 'iifname "pier0" oifname "pier0" drop', 'iifname "pier0" oifname "pier0" accept'),
        ({"router": False}, "hook forward priority filter; policy drop", "hook forward priority filter; policy accept"),
    ],
)  # fmt: skip
def test_each_setting_changes_its_rule(options: dict[str, bool], present: str, absent: str) -> None:
    config = FirewallConfig(CONFIG.bridge, CONFIG.subnet, CONFIG.gateway, **options)
    assert present in ruleset(config)
    assert absent not in ruleset(config)


@pytest.mark.parametrize(
    "rule",
    [
        'iifname != "lo" ip daddr 127.0.0.0/8 drop',
        'iifname != "lo" ip6 daddr ::1 drop',
        'iifname != { "lo", "pier0" } ip daddr 172.17.0.0/16 ip daddr != 172.17.0.1 drop',
        'oifname "pier0" drop',
    ],
)
def test_attack_21_each_guard_stands(rule: str) -> None:
    """Some of them stand behind one another, so that the tests with packets cannot miss one alone."""
    assert rule in [line.strip() for line in ruleset(CONFIG).splitlines()]


def test_elements_stand_in_their_own_maps() -> None:
    text = ruleset(CONFIG, (WEB, DNS, SIX))
    assert "elements = { tcp . 8080 : 172.17.0.2 . 80 }" in text
    assert "elements = { 127.0.0.1 . udp . 5353 : 172.17.0.2 . 53 }" in text
    assert "::" not in text.replace("ip6 daddr ::1 drop", "")
