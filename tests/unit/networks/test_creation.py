"""Requests for networks: what becomes a record, what is refused, in whose words."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from pier.errors import PierError
from pier.model.networks import IPAM, ConfigReference, IPAMConfig, NetworkCreateRequest
from pier.networks.creation import draft, with_subnets
from pier.networks.ipam import Network
from pier.networks.records import NetworkRecord, SubnetRecord
from pier.networks.registry import Registry

DRIVERS = ("bridge", "host", "null", "macvlan")
CHOSEN = {4: ip_network("172.30.0.0/16"), 6: ip_network("fd00:30::/64")}


def choose(family: int) -> Network:
    return CHOSEN[family]


def made(**asked: Any) -> NetworkRecord:
    config = asked.pop("config", None)
    if config is not None:
        asked["ipam"] = IPAM(config=[IPAMConfig(**one) for one in config])
    request = NetworkCreateRequest(name=asked.pop("name", "n"), **asked)
    return with_subnets(draft(request, registry(), drivers=DRIVERS, defaults={}), registry(), choose)


def registry() -> Registry:
    found = Registry()
    found.put(
        NetworkRecord(id="a" * 64, name="taken", driver="bridge", subnets=[SubnetRecord("10.1.0.0/16", "10.1.0.1")])
    )
    source = IPAM(config=[IPAMConfig(subnet="10.2.0.0/24")])
    found.put(
        NetworkRecord(
            id="b" * 64, name="conf", driver="null", config_only=True, ipam=source, labels={"a": "b"}, enable_ipv6=True
        )
    )
    return found


@pytest.mark.parametrize("name", ["a b", " a", "a/b", "-a", "ü", "a:b", "a%2Fb?c#d", "a" * 255])
def test_a_name_is_nearly_any_text(name: str) -> None:
    assert made(name=name).name == name


def test_what_is_chosen_is_shown_with_its_gateway() -> None:
    record = made(enable_ipv6=True)
    assert [(one.subnet, one.gateway, one.asked) for one in record.subnets] == [
        ("172.30.0.0/16", "172.30.0.1", False),
        ("fd00:30::/64", "fd00:30::1", False),
    ]
    assert [(one.subnet, one.gateway) for one in record.ipam.config or []] == [
        ("172.30.0.0/16", "172.30.0.1"),
        ("fd00:30::/64", "fd00:30::1"),
    ]


def test_a_network_that_needs_no_gateway_keeps_no_address_for_one() -> None:
    """Unless its user names one: that is somebody's, and given to no container."""
    asked = NetworkCreateRequest(
        name="n", enable_ipv6=True, ipam=IPAM(config=[IPAMConfig(subnet="10.3.0.0/24", gateway="10.3.0.9")])
    )
    wanted = draft(asked, registry(), drivers=DRIVERS, defaults={})
    record = with_subnets(wanted, registry(), choose, without_gateway=(4, 6))
    assert [(one.subnet, one.gateway) for one in record.subnets] == [("10.3.0.0/24", "10.3.0.9"), ("fd00:30::/64", "")]
    assert [one.gateway for one in record.ipam.config or []] == ["10.3.0.9", ""]


def test_what_is_asked_for_is_shown_as_it_was_asked_for() -> None:
    record = made(
        config=[{"subnet": "10.3.0.0/16", "ip_range": "10.3.5.0/24", "auxiliary_addresses": {"a": "10.3.5.0"}}]
    )
    (subnet,) = record.subnets
    assert (subnet.gateway, subnet.asked, subnet.aux) == ("10.3.5.1", True, {"a": "10.3.5.0"})
    assert (record.ipam.config or [])[0].gateway == ""


def test_ipv4_is_shown_first() -> None:
    record = made(enable_ipv6=True, config=[{"subnet": "fd00:3::/64"}, {"subnet": "10.3.0.0/24"}])
    assert [one.subnet for one in record.ipam.config or []] == ["10.3.0.0/24", "fd00:3::/64"]


def test_a_subnet_of_a_family_that_is_off_is_not_used() -> None:
    record = made(config=[{"subnet": "fd00:3::/64"}])
    assert [one.subnet for one in record.subnets] == ["172.30.0.0/16"]
    assert [one.subnet for one in made(enable_ipv4=False, enable_ipv6=True).subnets] == ["fd00:30::/64"]


def test_a_config_only_network_without_subnets_shows_none() -> None:
    assert made(config_only=True, config=[]).ipam.config is None


def test_settings_come_from_a_config_only_network() -> None:
    record = made(config_from=ConfigReference("conf"))
    assert (record.config_from, record.labels, record.driver) == ("conf", {"a": "b"}, "bridge")
    assert [one.subnet for one in record.subnets] == ["10.2.0.0/24", "fd00:30::/64"]


def test_options_of_the_daemon_come_first() -> None:
    request = NetworkCreateRequest(name="n", options={"a": "1"})
    record = draft(
        request, Registry(), drivers=DRIVERS, defaults={"bridge": {"a": "0", "b": "2"}, "macvlan": {"c": "3"}}
    )
    assert record.options == {"a": "1", "b": "2"}


@pytest.mark.parametrize(
    ("asked", "status", "words"),
    [
        ({"name": " "}, 400, "invalid name: name is empty"),
        ({"name": "../x"}, 400, 'invalid name: "../x"'),
        ({"name": "a//b"}, 400, 'invalid name: "a//b"'),
        ({"name": "a\nb"}, 400, 'invalid name: "a?b"'),
        ({"name": "a" * 256}, 400, "invalid name"),
        ({"name": "container:x"}, 400, "invalid name"),
        ({"name": "host"}, 403, "operation is not permitted on predefined host network"),
        ({"name": "taken"}, 409, "network with name taken already exists"),
        ({"driver": "null"}, 403, 'only one instance of "null" network is allowed'),
        ({"driver": "x"}, 404, 'plugin "x" not found'),
        ({"driver": "overlay"}, 403, "This node is not a swarm manager"),
        ({"scope": "swarm"}, 403, "cannot create a swarm scoped network"),
        ({"scope": "x"}, 400, "invalid network scope: x"),
        ({"ingress": True}, 403, "Ingress network can only be global scope network"),
        ({"enable_ipv4": False}, 400, "IPv4 or IPv6 must be enabled"),
        ({"ipam": IPAM(driver="x")}, 404, 'plugin "x" not found'),
        ({"ipam": IPAM(driver="null")}, 400, "ipv4 pool is empty"),
        ({"config": [{"subnet": "10.1.2.0/24"}]}, 403, "Pool overlaps with other one on this address space"),
        ({"config": [{"subnet": "10.3.0.0/24"}, {"subnet": "10.3.0.0/16"}]}, 403, "Pool overlaps with other one"),
        ({"config": [{"subnet": "10.3.0.1/24"}]}, 400, "invalid subnet 10.3.0.1/24: it should be 10.3.0.0/24"),
        ({"config": [{"subnet": "224.0.0.0/8"}]}, 400, "no host of a network has such an address"),
        ({"config": [{"subnet": "127.0.0.0/8"}]}, 400, "no host of a network has such an address"),
        ({"config": [{"gateway": "10.3.0.1"}]}, 400, "invalid subnet : invalid CIDR block notation"),
        ({"config": [{"subnet": "10.3.0.0/24", "gateway": "10.3.0.0"}]}, 403, "failed to allocate gateway (10.3.0.0)"),
        ({"config_from": ConfigReference("taken")}, 404, 'configuration network "taken" does not exist'),
        ({"config_from": ConfigReference("conf"), "config_only": True}, 403, "cannot depend on another configuration"),
        (
            {"config_from": ConfigReference("conf"), "options": {"a": "b"}},
            403,
            "network driver options are not supported",
        ),
        ({"config_from": ConfigReference("conf"), "labels": {"a": "b"}}, 403, "user specified configurations are not"),
        ({"labels": {str(number): "" for number in range(257)}}, 400, "a network has at most 256 labels"),
        ({"options": {"a": "x" * 4097}}, 400, "at most 4096 characters"),
    ],
)
def test_refusals(asked: dict[str, Any], status: int, words: str) -> None:
    with pytest.raises(PierError) as caught:
        made(**asked)
    assert (caught.value.status, words in caught.value.message) == (status, True), caught.value.message
