"""Who carries a published port: a table of machines and ports."""

from __future__ import annotations

from typing import Any

import pytest

from pier.networks.carriage import Carriage
from pier.networks.firewall import Forward

FOUR, SIX = "172.17.0.2", "fd00::2"


def port(host_ip: str, container_ip: str, protocol: str = "tcp", host_port: int = 80) -> Forward:
    return Forward(protocol, host_ip, host_port, container_ip, 80)


@pytest.mark.parametrize(
    ("settings", "forward", "translated", "relayed"),
    [
        ({}, port("0.0.0.0", FOUR), True, False),
        ({}, port("127.0.0.1", FOUR), True, False),
        ({}, port("::", SIX), True, True),  # what comes to ::1
        ({}, port("2001:db8::1", SIX), True, False),
        ({}, port("::1", SIX), False, True),
        ({}, port("::", FOUR), False, True),
        ({}, port("0.0.0.0", SIX), False, True),
        ({}, port("0.0.0.0", FOUR, host_port=0), True, False),  # a routed network's
        ({}, port("::", FOUR, "sctp"), False, False),
        ({}, port("::", SIX, "sctp"), True, False),
        ({"proxy": False}, port("::", SIX), True, False),
        ({"proxy": False}, port("::", FOUR), False, False),
        ({"table": False}, port("0.0.0.0", FOUR), False, True),
        ({"table": False}, port("0.0.0.0", FOUR, "sctp"), False, False),
        ({"table": False, "proxy": False}, port("0.0.0.0", FOUR), False, False),
        ({"plain": frozenset({6})}, port("::", SIX), False, True),
        ({"host_rules": True}, port("0.0.0.0", FOUR), True, True),
        ({"host_rules": True}, port("127.0.0.1", FOUR), True, False),
        ({"host_rules": True, "proxy": False}, port("0.0.0.0", FOUR), True, True),
    ],
)
def test_who_carries(settings: dict[str, Any], forward: Forward, translated: bool, relayed: bool) -> None:
    carriage = Carriage(**settings)
    assert (carriage.translated(forward), carriage.relayed(forward)) == (translated, relayed)
    assert carriage.possible(forward) == (translated or relayed)


def test_sctp_cannot_pass_the_hosts_firewall() -> None:
    assert not Carriage(host_rules=True).possible(port("0.0.0.0", FOUR, "sctp"))
    assert Carriage(host_rules=True).possible(port("127.0.0.1", FOUR, "sctp"))
