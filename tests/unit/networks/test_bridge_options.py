"""What the options of a bridge network mean, and Docker's words for those that mean nothing."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from pier.errors import InvalidParameter
from pier.networks.bridge_options import BridgeNetwork, bridge_network, unknown_options, without_gateway
from pier.networks.ipam import Subnet

ID = "0123456789abcdef" * 4
FOUR = Subnet(ip_network("172.18.0.0/16"), ip_address("172.18.0.1"))
SIX = Subnet(ip_network("fd00::/64"), ip_address("fd00::1"))
B = "com.docker.network.bridge"


def made(key: str = "", value: str = "", **options: Any) -> BridgeNetwork:
    return bridge_network(ID, [FOUR, SIX], {key: value} if key else {}, **options)


def test_without_options() -> None:
    assert made() == BridgeNetwork(ID, "br-0123456789ab", (FOUR, SIX))


@pytest.mark.parametrize(
    ("key", "value", "field", "expected"),
    [
        (f"{B}.name", "mine", "bridge", "mine"),
        (f"{B}.name", "", "bridge", "br-0123456789ab"),
        (f"{B}.enable_icc", "false", "icc", False),
        (f"{B}.enable_icc", "T", "icc", True),
        (f"{B}.enable_ip_masquerade", "0", "masquerade", False),
        (f"{B}.host_binding_ipv4", "127.0.0.1", "host_binding", "127.0.0.1"),
        (f"{B}.host_binding_ipv4", "::1", "host_binding", "::1"),
        (f"{B}.gateway_mode_ipv4", "routed", "gateway_mode_v4", "routed"),
        (f"{B}.gateway_mode_ipv6", "nat-unprotected", "gateway_mode_v6", "nat-unprotected"),
        (f"{B}.inhibit_ipv4", "true", "inhibit_ipv4", True),
        (f"{B}.trusted_host_interfaces", "eth1:wg0", "trusted_interfaces", ("eth1", "wg0")),
        ("com.docker.network.host_ipv4", "192.0.2.1", "snat_v4", "192.0.2.1"),
        ("com.docker.network.host_ipv6", "2001:DB8::1", "snat_v6", "2001:db8::1"),
        ("com.docker.network.driver.mtu", "9000", "mtu", 9000),
        ("com.docker.network.driver.mtu", "0", "mtu", 1500),
        ("com.docker.network.container_iface_prefix", "net", "container_prefix", "net"),
    ],
)
def test_each_option(key: str, value: str, field: str, expected: object) -> None:
    assert getattr(made(key, value), field) == expected


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        (f"{B}.enable_icc", "foo",
         f'failed to parse {B}.enable_icc value: foo (strconv.ParseBool: parsing "foo": invalid syntax)'),
        (f"{B}.enable_ip_masquerade", "",
         f'failed to parse {B}.enable_ip_masquerade value:  (strconv.ParseBool: parsing "": invalid syntax)'),
        (f"{B}.host_binding_ipv4", "foo", f"failed to parse {B}.host_binding_ipv4 value: foo (nil ip)"),
        (f"{B}.gateway_mode_ipv4", "foo",
         f"failed to parse {B}.gateway_mode_ipv4 value: foo (unknown gateway mode foo)"),
        (f"{B}.gateway_mode_ipv4", "isolated", "gateway mode 'isolated' can only be used for an internal network"),
        ("com.docker.network.driver.mtu", "foo",
         'failed to parse com.docker.network.driver.mtu value: foo (strconv.Atoi: parsing "foo": invalid syntax)'),
        ("com.docker.network.driver.mtu", "-1", "invalid MTU number: -1 "),
        ("com.docker.network.driver.mtu", "1000", "invalid MTU number: 1000 (a network takes 1280 to 65535)"),
        ("com.docker.network.driver.mtu", "70000", "invalid MTU number: 70000 "),
        ("com.docker.network.host_ipv6", "1.2.3.4", "not an IPv6 address"),
        (f"{B}.name", "toolongbridgename123", f"failed to parse {B}.name value: toolongbridgename123"),
        (f"{B}.name", "a/b", f"failed to parse {B}.name value: a/b"),
        (f"{B}.name", 'x" drop; "', f"failed to parse {B}.name value"),
        (f"{B}.name", "br*", f"failed to parse {B}.name value"),
        (f"{B}.trusted_host_interfaces", "eth1:a b", f"failed to parse {B}.trusted_host_interfaces value: a b"),
        ("com.docker.network.container_iface_prefix", "../x", "container_iface_prefix value: ../x"),
    ],
)  # fmt: skip
def test_nonsense_is_refused(key: str, value: str, words: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        made(key, value)
    assert words in caught.value.wire


def test_an_internal_network_may_be_isolated_and_has_no_way_out() -> None:
    isolated = made(f"{B}.gateway_mode_ipv4", "isolated", internal=True)
    assert isolated.gateway(4) == ""
    assert isolated.addresses == ["fd00::1/64"]
    assert not isolated.publishes(6)


@pytest.mark.parametrize(
    ("options", "internal", "versions"),
    [
        ({}, True, set()),
        ({f"{B}.gateway_mode_ipv4": "isolated"}, True, {4}),
        ({f"{B}.gateway_mode_ipv4": "isolated", f"{B}.gateway_mode_ipv6": "isolated"}, True, {4, 6}),
        ({f"{B}.inhibit_ipv4": "true"}, True, {4}),
        ({f"{B}.inhibit_ipv4": "true"}, False, set()),
        ({f"{B}.gateway_mode_ipv4": "routed"}, True, set()),
    ],
)
def test_where_no_address_is_kept_for_a_gateway(options: dict[str, str], internal: bool, versions: set[int]) -> None:
    assert without_gateway(options, internal=internal) == versions


def test_isolated_is_refused_before_addresses_are_chosen() -> None:
    with pytest.raises(InvalidParameter, match="gateway mode 'isolated' can only be used for an internal network"):
        without_gateway({f"{B}.gateway_mode_ipv6": "isolated"}, internal=False)


def test_what_nobody_knows_is_named() -> None:
    assert unknown_options({"foo": "1", f"{B}.enable_icc": "1", f"{B}.nosuch": ""}) == [f"{B}.nosuch", "foo"]
