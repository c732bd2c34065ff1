"""Address pools: what is handed out, in which order, and what never is."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pier.networks.ipam import (
    DEFAULT_POOLS,
    AddressesExhausted,
    AddressInUse,
    AddressOutside,
    AddressPool,
    Ipv4Pool,
    SubnetsExhausted,
    choose_subnet,
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
    assert choose_subnet(DEFAULT_POOLS, map(IPv4Network, taken)) == IPv4Network(expected)


def test_no_subnet_left() -> None:
    with pytest.raises(SubnetsExhausted, match=r"fully subnetted.*default-address-pools"):
        choose_subnet(DEFAULT_POOLS, [IPv4Network("172.16.0.0/12"), IPv4Network("192.168.0.0/16")])


@given(st.lists(NETWORKS, max_size=8))
def test_a_chosen_subnet_overlaps_nothing(taken: list[IPv4Network]) -> None:
    pools = (AddressPool(IPv4Network("10.0.0.0/8"), 20), *DEFAULT_POOLS)
    try:
        chosen = choose_subnet(pools, taken)
    except SubnetsExhausted:
        return
    assert not any(chosen.overlaps(network) for network in taken)
    assert any(chosen.subnet_of(pool.base) for pool in pools)


def pool(subnet: str = "10.0.0.0/29", **options: IPv4Network) -> Ipv4Pool:
    network = IPv4Network(subnet)
    return Ipv4Pool(network, reserved=[network.network_address + 1], **options)


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
