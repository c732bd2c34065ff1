"""Records of networks and endpoints: what older daemons kept is taken over, what is damaged is dropped."""

from __future__ import annotations

import json

import pytest

from pier.errors import PierError
from pier.model.filters import Filters
from pier.networks.endpoint import Endpoint, gateway_endpoints, load_endpoints
from pier.networks.records import NetworkRecord, load_networks
from pier.networks.registry import AmbiguousNetwork, NetworkNotFound, Registry, matcher
from pier.state import Delete

ID, OTHER = "a" * 64, "ab" * 32


def test_a_fresh_daemon_has_the_three_networks() -> None:
    found, changes, repaired = load_networks({})
    assert {record.name: record.driver for record in found.values()} == {
        "bridge": "bridge",
        "host": "host",
        "none": "null",
    }
    assert (len(changes), repaired) == (3, [])


def test_networks_of_older_daemons_keep_their_ids() -> None:
    stored = {
        "bridge": json.dumps({"id": ID, "subnet": "172.18.0.0/16"}).encode(),
        "host": json.dumps({"id": OTHER}).encode(),
    }
    found, changes, _ = load_networks(stored)
    assert (found[ID].name, found[ID].subnets[0].gateway) == ("bridge", "172.18.0.1")
    assert found[OTHER].name == "host"
    assert [change for change in changes if isinstance(change, Delete)] == [
        Delete("network", "bridge"),
        Delete("network", "host"),
    ]
    again = {record.id: record.put().value for record in found.values()}
    assert load_networks(again) == (found, [], [])


def test_a_damaged_network_is_dropped_and_said_to_be() -> None:
    found, changes, repaired = load_networks({ID: b"{", "none": b"[]"})
    assert ID not in found
    assert {change.key for change in changes if isinstance(change, Delete)} == {ID, "none"}
    assert repaired[0] == f"network {ID[:12]}: its record was damaged and is dropped"


def test_endpoints_of_older_daemons_are_taken_over() -> None:
    interface = {"name": "eth0", "host_name": "veth1", "parent": "pier0", "mac": "", "addresses": [], "gateways": []}
    kept = {
        "mode": "bridge",
        "network_id": ID,
        "endpoint_id": "e" * 64,
        "interfaces": [interface],
        "ip": "172.17.0.2",
        "prefix_len": 16,
        "gateway": "172.17.0.1",
        "exposed": ["80/tcp"],
    }
    joined = {"mode": f"container:{ID}", "network_id": "", "endpoint_id": ""}
    stored = {"c" * 64: json.dumps(kept).encode(), "d" * 64: json.dumps(joined).encode(), "x/y": b"{"}
    (endpoint,), changes = load_endpoints(stored)
    assert (endpoint.key, endpoint.ip, endpoint.driver) == (f"{'c' * 64}/{ID}", "172.17.0.2", "bridge")
    assert endpoint.interface is not None
    assert endpoint.interface.parent == "pier0"
    assert sorted(change.key for change in changes if isinstance(change, Delete)) == ["c" * 64, "d" * 64, "x/y"]
    assert load_endpoints({endpoint.key: endpoint.put().value}) == ([endpoint], [])


def endpoint(
    network: str, *, ipv4: bool = True, ipv6: bool = False, internal: bool = False, priority: int = 0
) -> Endpoint:
    return Endpoint(
        "c" * 64,
        "web",
        network * 64,
        network,
        "bridge",
        "e" * 64,
        gateway="10.0.0.1" if ipv4 and not internal else "",
        gateway6="fd00::1" if ipv6 and not internal else "",
        internal=internal,
        gw_priority=priority,
    )


@pytest.mark.parametrize(
    ("endpoints", "expected"),
    [
        ([], (None, None)),
        ([endpoint("a", internal=True)], (None, None)),
        ([endpoint("b"), endpoint("a")], ("a", None)),
        ([endpoint("a", internal=True), endpoint("b")], ("b", None)),
        ([endpoint("a"), endpoint("b", priority=1)], ("b", None)),
        ([endpoint("a"), endpoint("b", ipv6=True)], ("b", "b")),
        ([endpoint("a", priority=1), endpoint("b", ipv6=True)], ("a", "b")),
        ([endpoint("a", priority=-1, ipv6=True), endpoint("b", ipv4=False, ipv6=True)], ("a", "b")),
        ([endpoint("a", priority=5, internal=True), endpoint("b")], ("b", None)),
    ],
)
def test_who_gives_the_default_routes(endpoints: list[Endpoint], expected: tuple[str | None, str | None]) -> None:
    found = gateway_endpoints(endpoints)
    assert tuple(one.network if one else None for one in found) == expected


def test_networks_are_found_by_id_name_and_prefix() -> None:
    registry = Registry()
    for id, name in ((ID, "one"), (OTHER, "two"), ("c" * 64, "a" * 3)):
        registry.put(NetworkRecord(id=id, name=name, driver="bridge"))
    assert [registry.find(ref).name for ref in (ID, "one", "aba", "aaa", "cc")] == ["one", "one", "two", "aaa", "aaa"]
    with pytest.raises(AmbiguousNetwork, match="2 matches found"):
        registry.find("a")
    for ref in ("", "x"):
        with pytest.raises(NetworkNotFound):
            registry.find(ref)


@pytest.mark.parametrize(
    ("filters", "shown"),
    [
        ({}, {"bridge", "web", "db"}),
        ({"name": ("we",)}, {"web"}),
        ({"name": ("^b", "^d")}, {"bridge", "db"}),
        ({"driver": ("macvlan",)}, {"db"}),
        ({"label": ("k", "k=v")}, {"web"}),
        ({"type": ("builtin",)}, {"bridge"}),
        ({"dangling": ("1",)}, {"db"}),
        ({"dangling": ("false",)}, {"bridge", "web"}),
        ({"scope": ("global",)}, set()),
    ],
)
def test_filters(filters: dict[str, tuple[str, ...]], shown: set[str]) -> None:
    records = [
        NetworkRecord(id="1", name="bridge", driver="bridge"),
        NetworkRecord(id="2", name="web", driver="bridge", labels={"k": "v"}),
        NetworkRecord(id="3", name="db", driver="macvlan"),
    ]
    matches = matcher(Filters(filters), lambda id: id == "2")
    assert {record.name for record in records if matches(record)} == shown


@pytest.mark.parametrize(
    ("filters", "words"),
    [
        ({"colour": ("red",)}, "invalid filter 'colour'"),
        ({"type": ("x",)}, "invalid filter: 'type'='x'"),
        ({"dangling": ("x",)}, "invalid value for filter 'dangling'"),
        ({"dangling": ("1", "0")}, 'got more than one value for filter key "dangling"'),
    ],
)
def test_filters_that_are_refused(filters: dict[str, tuple[str, ...]], words: str) -> None:
    with pytest.raises(PierError) as caught:
        matcher(Filters(filters), lambda _: False)
    assert caught.value.message.startswith(words)
