"""macvlan and ipvlan: what is asked for, what an interface is, and who reaches whom on a LAN of namespaces."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from lan import Lan, Probe, expect, lan
from netlab import Machine, machines, stop
from pier.errors import PierError
from pier.kernel.netlink import NetlinkSocket
from pier.networks.bridge_options import MTU
from pier.networks.driver import Place
from pier.networks.ipvlan import IpvlanDriver
from pier.networks.macvlan import MacvlanDriver
from pier.networks.parent import BadParent
from pier.networks.parent_driver import KindMissing, ParentDriver, ParentInUse, ParentUnavailable
from pier.networks.records import NetworkRecord, SubnetRecord

V4 = SubnetRecord("192.0.2.0/24", "192.0.2.254")
V6 = SubnetRecord("2001:db8:1::/64", "2001:db8:1::fe")
OTHER = SubnetRecord("10.9.0.0/16", "10.9.0.1")


def network(driver: str, number: int = 1, *subnets: SubnetRecord, **more: Any) -> NetworkRecord:
    options = {key: value for key, value in more.pop("options", {}).items() if value}
    return NetworkRecord(
        id=f"{number:064x}",
        name=f"net{number}",
        driver=driver,
        subnets=list(subnets or (V4,)),
        options=options,
        **more,
    )


def macvlan(number: int = 1, *subnets: SubnetRecord, parent: str = "eth0", **options: str) -> NetworkRecord:
    return network("macvlan", number, *subnets, options={"parent": parent, **options})


def ipvlan(number: int = 1, *subnets: SubnetRecord, parent: str = "eth0", **options: str) -> NetworkRecord:
    return network("ipvlan", number, *subnets, options={"parent": parent, **options})


def place(*addresses: str, gateways: tuple[str, ...] = ("192.0.2.254",)) -> Place:
    return Place("e" * 64, "eth0", "02:42:c0:00:02:15", addresses or ("192.0.2.21/24",), gateways)


# --- what is asked for


@pytest.mark.parametrize(
    ("driver", "record", "versions"),
    [
        (MacvlanDriver(), macvlan(), ()),
        (MacvlanDriver(), network("macvlan", internal=True, options={"parent": "eth0"}), (4, 6)),
        (MacvlanDriver(), macvlan(parent=""), (4, 6)),
        (IpvlanDriver(), ipvlan(), ()),
        (IpvlanDriver(), ipvlan(ipvlan_mode="l3"), (4, 6)),
    ],
)
def test_where_no_address_is_kept_for_a_gateway(
    driver: ParentDriver, record: NetworkRecord, versions: tuple[int, ...]
) -> None:
    assert driver.without_gateway(record) == versions


@pytest.mark.parametrize("mode", ["", "bridge", "vepa", "private", "passthru"])
def test_modes_of_a_macvlan(mode: str) -> None:
    record = macvlan(macvlan_mode=mode)
    assert MacvlanDriver().check(record, []) == []
    found = MacvlanDriver().interface(record, place())
    assert found is not None
    assert (found.kind, found.mode, found.parent, found.mac) == ("macvlan", mode or "bridge", "eth0", place().mac)
    assert (found.gateways, found.mtu, found.host_name) == (["192.0.2.254"], 0, "")


@pytest.mark.parametrize(
    ("mode", "flag", "routes"),
    [("", "", []), ("l3", "private", [("0.0.0.0/0", "")]), ("l3s", "vepa", [("0.0.0.0/0", "")])],
)
def test_modes_of_an_ipvlan(mode: str, flag: str, routes: list[tuple[str, str]]) -> None:
    record = ipvlan(ipvlan_mode=mode, ipvlan_flag=flag)
    driver = IpvlanDriver()
    assert driver.check(record, []) == []
    assert driver.gateway(record, 4) == ("" if mode else "192.0.2.254")
    found = driver.interface(record, replace(place(gateways=()), mac=driver.mac("192.0.2.21")))
    assert found is not None
    assert (found.kind, found.mode, found.flag, found.mac) == ("ipvlan", mode or "l2", flag or "bridge", driver.mac(""))
    assert found.routes == routes


@pytest.mark.parametrize(
    ("driver", "record", "words"),
    [
        (
            MacvlanDriver(),
            macvlan(macvlan_mode="foo"),
            "requested macvlan mode 'foo' is not valid, 'bridge' mode is the macvlan driver default",
        ),
        (
            IpvlanDriver(),
            ipvlan(ipvlan_mode="foo"),
            "requested ipvlan mode 'foo' is not valid, 'l2' mode is the ipvlan driver default",
        ),
        (
            IpvlanDriver(),
            ipvlan(ipvlan_flag="foo"),
            "requested ipvlan flag 'foo' is not valid, 'bridge' is the ipvlan driver default",
        ),
        (MacvlanDriver(), macvlan(parent="lo"), "loopback interface is not a valid macvlan parent link"),
        (MacvlanDriver(), macvlan(**{MTU: "67"}), f"invalid value 67 for the option {MTU}"),
    ],
)
def test_what_cannot_be(driver: ParentDriver, record: NetworkRecord, words: str) -> None:
    with pytest.raises(PierError) as found:
        driver.check(record, [])
    assert found.value.message == words


def test_who_may_share_a_parent() -> None:
    first, second, through = macvlan(1), macvlan(2), macvlan(3, macvlan_mode="passthru")
    driver = MacvlanDriver()
    assert driver.check(second, [first, ipvlan(4)]) == []
    assert driver.check(through, [macvlan(1, parent="eth1")]) == []
    for one, other, words in (
        (
            through,
            first,
            f"cannot use mode passthru, macvlan network {first.id} is already using parent interface eth0",
        ),
        (first, through, f"macvlan network {through.id} is already using parent interface eth0 in mode passthru"),
    ):
        with pytest.raises(ParentInUse) as found:
            driver.check(one, [other])
        assert found.value.message == words
    with pytest.raises(ParentInUse, match="network di-000000000000 is already using parent interface eth0"):
        IpvlanDriver().check(ipvlan(2), [ipvlan(1)])


def test_an_option_without_a_meaning_is_told() -> None:
    record = macvlan(bogus="x", **{MTU: "1400"})
    assert MacvlanDriver().check(record, []) == ["Pier does not know the option bogus. It has no effect."]
    found = MacvlanDriver().interface(record, place())
    assert found is not None
    assert found.mtu == 1400


def test_a_network_that_leads_nowhere_has_no_gateway() -> None:
    driver = MacvlanDriver()
    assert driver.gateway(macvlan(), 4) == "192.0.2.254"
    assert driver.gateway(macvlan(1, V4, V6), 6) == "2001:db8:1::fe"
    assert driver.gateway(macvlan(parent=""), 4) == ""
    assert driver.gateway(network("macvlan", internal=True, options={"parent": "eth0"}), 4) == ""
    assert driver.host_addresses(macvlan()) == []


def test_each_of_several_subnets_has_its_gateway() -> None:
    spot = place("10.9.0.7/16", "2001:db8:1::7/64", gateways=("192.0.2.254", "2001:db8:1::fe"))
    found = MacvlanDriver().interface(macvlan(1, V4, OTHER, V6), spot)
    assert found is not None
    assert found.gateways == ["10.9.0.1", "2001:db8:1::fe"]


# --- on a LAN


@pytest.fixture(scope="module")
def site() -> Iterator[Lan]:
    with lan() as found:
        yield found


@pytest.fixture
def containers() -> Iterator[list[Machine]]:
    with machines(2) as found:
        yield found


def join(site: Lan, record: NetworkRecord, machine: Machine, number: int, driver: ParentDriver | None = None) -> None:
    driver = driver or MacvlanDriver()
    site.host.run(lambda: driver.make(record))
    spot = place(f"192.0.2.{number}/24", f"2001:db8:1::{number}/64", gateways=("192.0.2.254", "2001:db8:1::fe"))
    interface = driver.interface(record, replace(spot, mac=f"02:42:c0:00:02:{number:02x}"))
    assert interface is not None
    machine.plug(interface, site.host)


@pytest.mark.root
def test_containers_of_a_macvlan_are_hosts_of_the_lan(site: Lan, containers: list[Machine]) -> None:
    one, two = containers
    record = macvlan(1, V4, V6)
    join(site, record, one, 21)
    join(site, record, two, 22)
    servers = [machine.serve("tcp", 80, "::") for machine in (one, site.peer, site.far)]
    servers += [machine.serve("tcp", 80) for machine in (one, site.peer, site.far)]
    expect(
        reached=[
            Probe(two, "tcp", "192.0.2.21", 80, seen_as="192.0.2.22"),
            Probe(two, "tcp", "2001:db8:1::21", 80, seen_as="2001:db8:1::22"),
            Probe(site.peer, "tcp", "192.0.2.21", 80, seen_as=site.peer_address),
            Probe(site.second, "tcp", "2001:db8:1::21", 80, seen_as=site.second_address6),
            Probe(site.far, "tcp", "192.0.2.21", 80, seen_as=site.far_address),
            Probe(one, "tcp", site.peer_address, 80, seen_as="192.0.2.21"),
            Probe(one, "tcp", site.far_address, 80, seen_as="192.0.2.21"),
            Probe(one, "tcp", site.far_address6, 80, seen_as="2001:db8:1::21"),
        ],
        silent=[Probe(one, "icmp", site.host_address), Probe(site.host, "icmp", "192.0.2.21")],
    )
    for server in servers:
        stop(server)


@pytest.mark.root
@pytest.mark.parametrize(("mode", "between"), [("private", False), ("vepa", True)])
def test_macvlan_modes(site: Lan, containers: list[Machine], mode: str, *, between: bool) -> None:
    """On a switch that sends frames back where they came from, which `vepa` makes use of."""
    one, two = containers
    record = macvlan(2, V4, V6, macvlan_mode=mode)
    first = 31 if between else 33
    join(site, record, one, first)
    join(site, record, two, first + 1)
    among = Probe(one, "icmp", f"192.0.2.{first + 1}")
    expect(reached=[Probe(site.peer, "icmp", f"192.0.2.{first}")], silent=[among])
    site.reflect(wanted=True)
    expect(reached=[among] if between else [], silent=[] if between else [among])
    site.reflect(wanted=False)


@pytest.mark.root
def test_a_passthru_has_the_parent_for_itself(site: Lan, containers: list[Machine]) -> None:
    one, two = containers
    with site.host.run(NetlinkSocket) as sock:
        sock.create_pair("own0", "own1")
    try:
        record = macvlan(3, parent="own0", macvlan_mode="passthru")
        join(site, record, one, 41)
        with pytest.raises(OSError, match="create macvlan eth0: Invalid argument"):
            join(site, record, two, 42)
    finally:
        with site.host.run(NetlinkSocket) as sock:
            sock.delete_link(sock.link_index("own0"))


@pytest.mark.root
def test_without_a_parent_containers_reach_each_other_alone(site: Lan, containers: list[Machine]) -> None:
    one, two = containers
    driver = MacvlanDriver()
    records = [macvlan(4, V4, V6, parent=""), macvlan(5, V4, parent="")]
    join(site, records[0], one, 51, driver)
    join(site, records[0], two, 52, driver)
    expect(
        reached=[Probe(one, "icmp", "192.0.2.52"), Probe(two, "icmp", "2001:db8:1::51")],
        silent=[Probe(one, "icmp", site.peer_address), Probe(site.peer, "icmp", "192.0.2.51")],
    )
    site.host.run(lambda: driver.unmake(records[0]))
    with site.host.run(NetlinkSocket) as sock:
        assert not [link.name for link in sock.links() if link.name[1:3] == "m-"]


@pytest.mark.root
def test_a_parent_goes_with_its_last_network(site: Lan) -> None:
    driver = MacvlanDriver()
    name = f"dm-{'0' * 12}"  # as both ids begin
    records = [macvlan(6, parent=""), macvlan(7, parent="")]

    def there() -> bool:
        with site.host.run(NetlinkSocket) as sock:
            return any(link.name == name for link in sock.links())

    for record in records:
        site.host.run(lambda record=record: driver.make(record))  # type: ignore[misc]
    site.host.run(lambda: driver.unmake(records[0]))
    assert there()
    site.host.run(lambda: driver.unmake(records[1]))
    assert not there()
    site.host.run(lambda: driver.unmake(records[1]))


@pytest.mark.root
def test_what_cannot_be_made_keeps_containers_out(site: Lan) -> None:
    driver = MacvlanDriver()
    record = macvlan(8, parent="nosuch0")
    with pytest.raises(BadParent):
        site.host.run(lambda: driver.make(record))
    with pytest.raises(ParentUnavailable, match="container networking: invalid subinterface vlan name nosuch0"):
        driver.require(record)
    driver.forget(record)
    driver.require(record)


@pytest.mark.root
def test_a_kernel_without_ipvlan_says_so(site: Lan) -> None:
    driver = IpvlanDriver()
    with site.host.run(NetlinkSocket) as sock:
        known = sock.knows("ipvlan")
    if known:
        site.host.run(lambda: driver.make(ipvlan(9)))
        site.host.run(lambda: driver.unmake(ipvlan(9)))
    else:
        with pytest.raises(KindMissing, match="operation not supported: this kernel has no ipvlan devices"):
            site.host.run(lambda: driver.make(ipvlan(9)))
