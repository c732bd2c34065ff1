"""Which subnet a network gets, and which address a container: pure decisions, nothing here touches the machine."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from pier.errors import InvalidParameter, PierError

__all__ = ["DEFAULT_POOLS", "AddressPool", "AddressesExhausted", "Ipv4Pool", "SubnetsExhausted", "choose_subnet"]


class SubnetsExhausted(PierError):
    """all predefined address pools have been fully subnetted"""

    status = 400
    remedy = "every one overlaps a route of this machine; set `default-address-pools` or `bip` in daemon.json"


class AddressesExhausted(PierError):
    """no available IPv4 addresses on this network's address pools: {network}"""

    remedy = "remove containers of this network, or give it a larger subnet"


class AddressInUse(PierError):
    """Address already in use"""

    status = 403


class AddressOutside(InvalidParameter):
    """no configured subnet contains IP address {address}"""


@dataclass(frozen=True, slots=True)
class AddressPool:
    """Networks are cut from `base` in pieces of prefix length `size` (daemon.json `default-address-pools`)."""

    base: IPv4Network
    size: int

    def subnets(self) -> Iterable[IPv4Network]:
        return self.base.subnets(new_prefix=self.size)


DEFAULT_POOLS = (
    AddressPool(IPv4Network("172.17.0.0/16"), 16),
    AddressPool(IPv4Network("172.18.0.0/16"), 16),
    AddressPool(IPv4Network("172.19.0.0/16"), 16),
    AddressPool(IPv4Network("172.20.0.0/14"), 16),
    AddressPool(IPv4Network("172.24.0.0/14"), 16),
    AddressPool(IPv4Network("172.28.0.0/14"), 16),
    AddressPool(IPv4Network("192.168.0.0/16"), 20),
)
"""Docker's, in Docker's order."""


def choose_subnet(pools: Iterable[AddressPool], taken: Iterable[IPv4Network]) -> IPv4Network:
    """The first subnet of the pools that overlaps nothing in `taken`; raises SubnetsExhausted."""
    occupied = list(taken)
    for pool in pools:
        for subnet in pool.subnets():
            if not any(subnet.overlaps(other) for other in occupied):
                return subnet
    raise SubnetsExhausted()


class Ipv4Pool:
    """The addresses of one network.

    Handed out in order, each time from where the last one was found, so that an address that has just become free is
    the last to be used again: neighbours' ARP caches and clients' connections have forgotten it by then.
    """

    def __init__(
        self, subnet: IPv4Network, *, reserved: Iterable[IPv4Address], within: IPv4Network | None = None
    ) -> None:
        """`reserved` is never handed out (the gateway); `within` narrows what is (daemon.json `fixed-cidr`)."""
        self.subnet = subnet
        part = within or subnet
        # Network and broadcast address exist where there is room for hosts beside them (RFC 3021).
        edges = {subnet.network_address, subnet.broadcast_address} if subnet.prefixlen < 31 else set()
        self._first, self._size = int(part.network_address), part.num_addresses
        self._never = {int(address) for address in (*edges, *reserved)}
        self._used: set[int] = set()
        self._next = 0

    def allocate(self, network: str = "bridge") -> IPv4Address:
        """The next free address; raises AddressesExhausted naming `network`."""
        for step in range(self._size):
            offset = (self._next + step) % self._size
            number = self._first + offset
            if number not in self._never and number not in self._used:
                self._used.add(number)
                self._next = offset + 1
                return IPv4Address(number)
        raise AddressesExhausted(network=network)

    def take(self, address: IPv4Address) -> None:
        """Mark one address as in use: a container that is already running. Raises AddressOutside, AddressInUse."""
        if address not in self.subnet:
            raise AddressOutside(address=address)
        if int(address) in self._used or int(address) in self._never:
            raise AddressInUse()
        self._used.add(int(address))
        self._next = max(self._next, int(address) - self._first + 1) % self._size

    def release(self, address: IPv4Address) -> None:
        """Free an address; one that was not in use stays so."""
        self._used.discard(int(address))

    def __len__(self) -> int:
        """How many addresses are in use."""
        return len(self._used)
