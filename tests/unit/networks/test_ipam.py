"""Address pools: what is handed out, in which order, and what never is."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pier.errors import PierError
from pier.networks.ipam import (
    DEFAULT_POOLS,
    AddressesExhausted,
    AddressInUse,
    AddressOutside,
    AddressPool,
    BadSubnets,
    PoolOverlaps,
    Subnet,
    SubnetPool,
    SubnetsExhausted,
    check_overlap,
    choose_subnet,
    first_gateway,
    open_pool,
    parse_subnet,
    ula_pool,
)

NETWORKS = st.builds(
    lambda address, length: IPv4Network((address, length), strict=False),
    st.integers(0x0A000000, 0xDFFFFFFF),
    st.integers(8, 32),
)


@pytest.mark.parametrize(
    ("taken", "expected"),
    [
        ([], "172.17.0.0/16"),
        (["172.17.5.0/24"], "172.18.0.0/16"),
        (["172.16.0.0/12"], "192.168.0.0/20"),
        (["172.16.0.0/12", "192.168.1.0/24"], "192.168.16.0/20"),
        (["172.17.0.0/16", "172.18.0.0/16", "172.19.0.0/16", "172.20.255.1/32"], "172.21.0.0/16"),
    ],
)
def test_the_first_default_subnet_that_is_free(taken: list[str], expected: str) -> None:
    assert choose_subnet(4, DEFAULT_POOLS, map(IPv4Network, taken)) == IPv4Network(expected)


def test_no_subnet_left() -> None:
    with pytest.raises(SubnetsExhausted, match=r"fully subnetted.*default-address-pools"):
        choose_subnet(4, DEFAULT_POOLS, [IPv4Network("172.16.0.0/12"), IPv4Network("192.168.0.0/16")])


@given(st.lists(NETWORKS, max_size=8))
def test_a_chosen_subnet_overlaps_nothing(taken: list[IPv4Network]) -> None:
    pools = (SubnetPool(IPv4Network("10.0.0.0/8"), 20), *DEFAULT_POOLS)
    try:
        chosen = choose_subnet(4, pools, taken)
    except SubnetsExhausted:
        return
    assert not any(chosen.overlaps(network) for network in taken)
    assert any(chosen.subnet_of(pool.base) for pool in pools)


def pool(subnet: str = "10.0.0.0/29", **options: IPv4Network) -> AddressPool:
    network = IPv4Network(subnet)
    return AddressPool(network, reserved=[network.network_address + 1], **options)


def test_addresses_come_in_order_without_edges_and_gateway() -> None:
    made = pool()
    assert [str(made.allocate()) for _ in range(5)] == [f"10.0.0.{number}" for number in range(2, 7)]
    with pytest.raises(AddressesExhausted, match="address pools: bridge"):
        made.allocate()


def test_a_freed_address_is_the_last_to_come_again() -> None:
    made = pool()
    first = made.allocate()
    made.release(first)
    assert [made.allocate() for _ in range(5)][-1] == first


def test_only_a_part_is_handed_out() -> None:
    made = pool("10.0.0.0/24", within=IPv4Network("10.0.0.64/30"))
    assert [str(made.allocate()) for _ in range(4)] == [f"10.0.0.{number}" for number in range(64, 68)]
    with pytest.raises(AddressesExhausted):
        made.allocate()


def test_addresses_of_live_containers_are_taken() -> None:
    made = pool()
    made.take(IPv4Address("10.0.0.3"))
    assert str(made.allocate()) == "10.0.0.4"
    with pytest.raises(AddressInUse):
        made.take(IPv4Address("10.0.0.3"))
    with pytest.raises(AddressInUse):
        made.take(IPv4Address("10.0.0.1"))
    with pytest.raises(AddressOutside, match=r"10\.0\.1\.1"):
        made.take(IPv4Address("10.0.1.1"))


@given(st.lists(st.one_of(st.none(), st.integers(0, 20)), max_size=80))
def test_no_address_is_ever_held_twice(deeds: list[int | None]) -> None:
    """None allocates; a number releases one of those held."""
    made, held = pool("10.0.0.0/28"), []
    for deed in deeds:
        if deed is None:
            try:
                address = made.allocate()
            except AddressesExhausted:
                assert len(held) == 13
                continue
            assert address not in held
            assert IPv4Address("10.0.0.2") <= address <= IPv4Address("10.0.0.14")
            held.append(address)
        elif held:
            made.release(held.pop(deed % len(held)))
        assert len(made) == len(held)


@given(st.integers(1, 12))
def test_recycling_takes_a_whole_round(count: int) -> None:
    made = pool("10.0.0.0/28")
    gone = made.allocate()
    made.release(gone)
    others = []
    for _ in range(count):
        others.append(made.allocate())
        made.release(others[-1])
    assert gone not in others


# --- many networks, both families


def test_a_subnet_freed_lately_comes_again_only_when_nothing_else_is_left() -> None:
    recent = [IPv4Network("172.17.0.0/16"), IPv4Network("172.18.0.0/16")]
    assert choose_subnet(4, DEFAULT_POOLS, [], recent=recent) == IPv4Network("172.19.0.0/16")
    pools = [SubnetPool(IPv4Network("10.0.0.0/23"), 24)]
    both = list(IPv4Network("10.0.0.0/23").subnets())
    assert choose_subnet(4, pools, [], recent=both) == both[0]
    assert choose_subnet(4, pools, [both[0]], recent=both) == both[1]


def test_a_daemons_ipv6_prefix_is_its_own_and_stays() -> None:
    pool = ula_pool("one")
    assert pool == ula_pool("one") != ula_pool("two")
    assert pool.size == 64
    assert pool.base.prefixlen == 48
    assert pool.base.subnet_of(IPv6Network("fd00::/8"))


def test_large_occupied_ranges_are_stepped_over_at_once() -> None:
    pool = SubnetPool(IPv6Network("fd00::/16"), 96)
    assert choose_subnet(6, [pool], [IPv6Network("fd00::/17")]) == IPv6Network("fd00:8000::/96")


V6 = st.builds(
    lambda number, length: IPv6Network((0xFD << 120 | number, length), strict=False),
    st.integers(0, (1 << 120) - 1),
    st.integers(8, 128),
)


@given(st.lists(V6, max_size=6))
def test_a_chosen_ipv6_subnet_overlaps_nothing(taken: list[IPv6Network]) -> None:
    pool = SubnetPool(IPv6Network("fd00::/16"), 64)
    try:
        chosen = choose_subnet(6, [pool], [*taken, IPv4Network("10.0.0.0/8")])
    except SubnetsExhausted:
        assert any(network.supernet_of(pool.base) for network in taken)
        return
    assert not any(chosen.overlaps(network) for network in taken)
    assert chosen.subnet_of(pool.base)


def test_ipv6_addresses_come_in_order_without_the_routers_anycast() -> None:
    made = AddressPool(IPv6Network("fd00::/64"), reserved=[ip_address("fd00::1")])
    assert [str(made.allocate()) for _ in range(3)] == ["fd00::2", "fd00::3", "fd00::4"]
    made.take(ip_address("fd00::ffff:ffff:ffff:ffff"))
    assert str(made.allocate()) == "fd00::5"


def test_an_address_that_is_asked_for_is_given_or_refused() -> None:
    made = pool("10.0.0.0/24", within=IPv4Network("10.0.0.64/30"))
    assert str(made.allocate("web", IPv4Address("10.0.0.9"))) == "10.0.0.9"
    with pytest.raises(AddressInUse, match="Address already in use"):
        made.allocate("web", IPv4Address("10.0.0.9"))
    with pytest.raises(AddressInUse):
        made.allocate("web", IPv4Address("10.0.0.255"))
    with pytest.raises(AddressOutside):
        made.allocate("web", IPv4Address("10.0.1.9"))
    assert str(made.allocate()) == "10.0.0.64"


@pytest.mark.parametrize(
    ("entry", "problems"),
    [
        (("10.240.2.0",), ["invalid subnet 10.240.2.0: invalid CIDR block notation"]),
        (("fd99::/130",), ["invalid subnet fd99::/130: invalid CIDR block notation"]),
        (("",), ["invalid subnet : invalid CIDR block notation"]),
        (("foo", "bar", "baz"), ["invalid subnet foo: invalid CIDR block notation"]),
        (("10.240.2.5/24",), ["invalid subnet 10.240.2.5/24: it should be 10.240.2.0/24"]),
        (
            ("10.240.2.0/24", "10.241.0.1"),
            ["invalid gateway 10.241.0.1: parent subnet 10.240.2.0/24 doesn't contain this address"],
        ),
        (("10.240.2.0/24", "foo"), ["invalid gateway foo: invalid address"]),
        (("10.240.2.0/24", "fd00::1"), ["invalid gateway fd00::1: parent subnet is an IPv4 block"]),
        (
            ("10.240.2.0/24", "", "10.241.0.0/25"),
            ["invalid ip-range 10.241.0.0/25: parent subnet 10.240.2.0/24 doesn't contain ip-range"],
        ),
        (
            ("10.240.2.0/24", "", "10.240.0.0/16"),
            ["invalid ip-range 10.240.0.0/16: CIDR block is bigger than its parent subnet 10.240.2.0/24"],
        ),
        (("10.240.2.0/24", "", "10.240.2.5/25"), ["invalid ip-range 10.240.2.5/25: it should be 10.240.2.0/25"]),
        (("10.240.2.0/24", "", "foo"), ["invalid ip-range foo: invalid CIDR block notation"]),
        (
            ("10.240.2.0/24", "", "", {"a": "10.241.0.1"}),
            ["invalid auxiliary address a: parent subnet 10.240.2.0/24 doesn't contain this address"],
        ),
        (("10.240.2.0/24", "", "", {"a": "foo"}), ["invalid auxiliary address a: invalid address"]),
    ],
)
def test_wrong_ranges_in_dockers_words(entry: tuple[Any, ...], problems: list[str]) -> None:
    assert parse_subnet(*entry) == (None, problems)


def test_problems_are_one_text() -> None:
    assert BadSubnets(problems=["a"]).wire == "invalid network config:\na"
    assert BadSubnets(problems=["a", "b"]).wire == "invalid network config:\n* a\n* b"


def test_a_right_range() -> None:
    subnet, problems = parse_subnet("10.0.0.0/24", "10.0.0.254", "10.0.0.128/25", {"printer": "10.0.0.130"})
    assert problems == []
    assert subnet is not None
    assert subnet.gateway_address == "10.0.0.254/24"
    made = open_pool(subnet)
    assert [str(made.allocate()) for _ in range(3)] == ["10.0.0.128", "10.0.0.129", "10.0.0.131"]


@pytest.mark.parametrize(
    ("subnet", "words"),
    [
        (
            parse_subnet("10.0.0.0/24", "10.0.0.255")[0],
            "failed to allocate gateway (10.0.0.255): Address already in use",
        ),
        (parse_subnet("10.0.0.0/24", "10.0.0.0")[0], "failed to allocate gateway (10.0.0.0): Address already in use"),
        (
            parse_subnet("10.0.0.0/24", "10.0.0.1", "", {"a": "10.0.0.1"})[0],
            "failed to allocate secondary ip address (a:10.0.0.1): Address already in use",
        ),
    ],
)
def test_a_gateway_that_no_host_can_have(subnet: Subnet, words: str) -> None:
    with pytest.raises(PierError) as caught:
        open_pool(subnet)
    assert caught.value.message == words


def test_the_gateway_nobody_named_is_the_first_address_handed_out() -> None:
    subnet, _ = parse_subnet("10.0.0.0/24", "", "10.0.0.128/25", {"a": "10.0.0.128"})
    assert subnet is not None
    assert str(first_gateway(subnet)) == "10.0.0.129"


def test_a_subnet_that_overlaps_another_network() -> None:
    with pytest.raises(PoolOverlaps, match="Pool overlaps with other one on this address space") as caught:
        check_overlap(IPv4Network("10.0.0.0/25"), [IPv6Network("::/0"), IPv4Network("10.0.0.0/8")])
    assert "10.0.0.0/25 overlaps 10.0.0.0/8" in caught.value.wire
    check_overlap(IPv4Network("10.0.0.0/25"), [IPv4Network("10.0.0.128/25")])
