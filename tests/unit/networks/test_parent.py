"""Parents of macvlan and ipvlan networks: found, made, removed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from netlab import Machine, machines
from pier.kernel.netlink import NetlinkSocket
from pier.networks.parent import BadParent, ParentFailed, ensure_parent, find_parent, parse_vlan, remove_parent

ID = "0123456789ab" + 52 * "c"


@pytest.fixture
def host() -> Iterator[Machine]:
    """A host with a device `lan0`."""
    with machines(1) as (made,):
        with made.run(NetlinkSocket) as sock:
            sock.create_pair("lan0", "lan0-peer")
            sock.set_up(sock.link_index("lan0"))
        yield made


def names(host: Machine) -> set[str]:
    with host.run(NetlinkSocket) as sock:
        return {link.name for link in sock.links()}


def ensure(host: Machine, name: str, *, nowhere: bool = False) -> None:
    def make() -> None:
        with NetlinkSocket() as sock:
            ensure_parent(sock, name, nowhere=nowhere, network_id=ID)

    host.run(make)


def remove(host: Machine, name: str) -> None:
    with host.run(NetlinkSocket) as sock:
        remove_parent(sock, name)


@pytest.mark.parametrize(("name", "found"), [("eth0.50", ("eth0", 50)), ("lan.4094", ("lan", 4094)), (".5", ("", 5))])
def test_vlans(name: str, found: tuple[str, int]) -> None:
    assert parse_vlan(name) == found


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nosuch", "invalid subinterface vlan name nosuch, example formatting is eth0.10"),
        ("eth0.5000", "vlan id must be between 1-4094, received: 5000"),
        ("eth0.0", "vlan id must be between 1-4094, received: 0"),
        ("eth0.", "unable to parse a valid vlan id from:  (ex. eth0.10 for vlan 10)"),
        ("eth0.x", "unable to parse a valid vlan id from: x (ex. eth0.10 for vlan 10)"),
        (
            "eth0.1.2",
            "required interface name format is: name.vlan_id, ex. eth0.10 for vlan 10, instead received eth0.1.2",
        ),
    ],
)
def test_what_is_no_vlan(name: str, words: str) -> None:
    with pytest.raises(BadParent) as found:
        parse_vlan(name)
    assert found.value.wire == words


def test_who_is_the_parent() -> None:
    assert find_parent("macvlan", "eth0", ID) == ("eth0", False)
    assert find_parent("macvlan", "", ID) == ("dm-0123456789ab", True)
    assert find_parent("ipvlan", "", ID) == ("di-0123456789ab", True)
    with pytest.raises(BadParent, match="loopback interface is not a valid ipvlan parent link"):
        find_parent("ipvlan", "lo", ID)


@pytest.mark.root
def test_a_parent_that_is_there_is_neither_made_nor_removed(host: Machine) -> None:
    ensure(host, "lan0")
    remove(host, "lan0")
    remove(host, "nosuch")
    assert names(host) == {"lo", "lan0", "lan0-peer"}


@pytest.mark.root
def test_a_dead_end_has_a_carrier_no_ipv6_and_goes_whole(host: Machine) -> None:
    ensure(host, "dm-0123456789ab", nowhere=True)
    ensure(host, "dm-0123456789ab", nowhere=True)  # after a restart of the daemon
    with host.run(NetlinkSocket) as sock:
        made = sock.link("dm-0123456789ab")
        assert made.up
        assert made.alias == f"made by Pier for network {ID}"
        assert [item for item in sock.addresses() if item.index == made.index] == []
    remove(host, "dm-0123456789ab")
    assert names(host) == {"lo", "lan0", "lan0-peer"}


@pytest.mark.root
def test_a_sub_interface_is_made_of_a_device_that_is_there(host: Machine) -> None:
    with pytest.raises(BadParent, match="-o parent interface was not found on the host: eth7"):
        ensure(host, "eth7.50")
    with host.run(NetlinkSocket) as sock:
        has_vlans = sock.knows("vlan")
    if has_vlans:
        ensure(host, "lan0.50")
        assert "lan0.50" in names(host)
        remove(host, "lan0.50")
    else:
        with pytest.raises(
            ParentFailed, match=r"failed to create lan0.50 vlan link: operation not supported \(this ker"
        ):
            ensure(host, "lan0.50")
    assert names(host) == {"lo", "lan0", "lan0-peer"}


@pytest.mark.root
def test_a_kernel_says_what_it_knows(host: Machine) -> None:
    with host.run(NetlinkSocket) as sock:
        assert not sock.knows("pier-no-such-kind")
        before = sock.knows("macvlan")
    assert names(host) == {"lo", "lan0", "lan0-peer"}
    assert before
