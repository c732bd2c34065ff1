"""The default bridge's addresses: configured, kept, or chosen."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from pier.networks.default_bridge import BadBridgeAddress, NetworkConfig, check_addresses, default_bridge
from pier.networks.ipam import SubnetPool

POOLS = (SubnetPool(ip_network("10.0.0.0/8"), 24), SubnetPool(ip_network("fd33::/48"), 64))


@pytest.mark.parametrize(
    ("config", "earlier", "occupied", "in_use", "expected"),
    [
        ({}, [], [], False, ["172.17.0.1/16"]),
        ({}, [], ["172.17.0.0/24"], False, ["172.18.0.1/16"]),
        ({}, ["172.19.0.0/16"], [], False, ["172.19.0.1/16"]),
        ({}, ["172.19.0.0/16"], ["172.19.1.0/24"], False, ["172.17.0.1/16"]),
        ({}, ["172.19.0.0/16"], ["172.19.1.0/24"], True, ["172.19.0.1/16"]),
        ({"bip": "10.5.0.9/24"}, ["172.19.0.0/16"], ["10.0.0.0/8"], True, ["10.5.0.9/24"]),
        ({"ipv6": True, "seed": "x"}, [], [], False, ["172.17.0.1/16", "fd2d:7116:42b7::1/64"]),
        (
            {"ipv6": True, "seed": "x"},
            [],
            ["fd2d:7116:42b7::/64"],
            False,
            ["172.17.0.1/16", "fd2d:7116:42b7:1::1/64"],
        ),
        ({"ipv6": True}, ["172.17.0.0/16", "fd09::/64"], [], False, ["172.17.0.1/16", "fd09::1/64"]),
        ({"ipv6": True, "fixed_cidr_v6": "2001:db8:1::/64"}, [], [], False, ["172.17.0.1/16", "2001:db8:1::1/64"]),
        ({"ipv6": True, "bip6": "2001:db8::9/64"}, [], [], False, ["172.17.0.1/16", "2001:db8::9/64"]),
        (
            {"ipv6": True, "pools": POOLS},
            [],
            [],
            False,
            ["10.0.0.1/24", "fd33::1/64"],
        ),
    ],
)
def test_the_bridges_addresses(
    config: dict[str, Any], earlier: list[str], occupied: list[str], in_use: bool, expected: list[str]
) -> None:
    networks = [ip_network(text) for text in occupied]
    made = default_bridge(NetworkConfig(**config), "1" * 64, earlier=earlier, occupied=networks, in_use=in_use)
    assert made.addresses == expected


def test_containers_may_be_routed_elsewhere() -> None:
    config = NetworkConfig(bip="10.5.0.1/24", default_gateway="10.5.0.254")
    made = default_bridge(config, "1" * 64, earlier=[], occupied=[], in_use=False)
    assert made.gateway(4) == "10.5.0.254"
    assert made.subnets[0].aux == {"DefaultGatewayIPv4": ip_network("10.5.0.254").network_address}


@pytest.mark.parametrize(
    "config",
    [
        {"bip": "nonsense"},
        {"bip": "10.0.0.0/24"},
        {"bip": "10.0.0.255/24"},
        {"bip": "10.0.0.1"},
        {"bip": "fd00::1/64"},
        {"bip6": "10.0.0.1/24"},
        {"bip6": "fd00::/64"},
        {"bip": "10.0.0.1/24", "fixed_cidr": "10.0.1.0/28"},
        {"bip": "10.0.0.1/24", "fixed_cidr": "10.0.0.1/28"},
        {"fixed_cidr": "10.0.1.0/28"},
        {"fixed_cidr_v6": "10.0.1.0/28"},
        {"default_gateway": "fd00::1"},
        {"default_gateway": "nonsense"},
    ],
)
def test_wrong_addresses_are_refused(config: dict[str, str]) -> None:
    with pytest.raises(BadBridgeAddress, match="invalid address of the default bridge"):
        check_addresses(NetworkConfig(**config))
