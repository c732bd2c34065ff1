"""Which subnet a network gets, and which address a container: pure decisions, nothing here touches the machine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Literal, TypeAlias

from pier.errors import InvalidParameter, PierError

__all__ = [
    "DEFAULT_POOLS",
    "Address",
    "AddressPool",
    "AddressesExhausted",
    "BadSubnets",
    "Network",
    "PoolOverlaps",
    "Subnet",
    "SubnetPool",
    "SubnetsExhausted",
    "check_overlap",
    "choose_subnet",
    "first_gateway",
    "open_pool",
    "overlaps",
    "parse_subnet",
    "ula_pool",
]

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network
Family: TypeAlias = Literal[4, 6]


class SubnetsExhausted(PierError):
    """all predefined address pools have been fully subnetted"""

    status = 400
    remedy = "every one overlaps a route of this machine or a network; set `default-address-pools` in daemon.json"


class AddressesExhausted(PierError):
    """no available IPv{version} addresses on this network's address pools: {network}"""

    remedy = "remove containers of this network, or give it a larger subnet"


class AddressInUse(PierError):
    """Address already in use"""

    status = 403


class GatewayInUse(PierError):
    """failed to allocate gateway ({address}): Address already in use"""

    status = 403


class AuxAddressInUse(PierError):
    """failed to allocate secondary ip address ({name}:{address}): Address already in use"""

    status = 403


class AddressOutside(InvalidParameter):
    """no configured subnet contains IP address {address}"""


class PoolOverlaps(PierError):
    """invalid pool request: Pool overlaps with other one on this address space"""

    status = 403
    remedy = "{subnet} overlaps {other}"


class BadSubnets(InvalidParameter):
    """invalid network config:
    {problems}"""

    @property
    def message(self) -> str:
        problems = self.fields["problems"]
        assert isinstance(problems, Sequence)
        return "invalid network config:\n" + "\n".join(f"* {text}" if len(problems) > 1 else text for text in problems)


@dataclass(frozen=True, slots=True)
class SubnetPool:
    """Networks are cut from `base` in pieces of prefix length `size` (daemon.json `default-address-pools`)."""

    base: Network
    size: int


DEFAULT_POOLS = (
    SubnetPool(IPv4Network("172.17.0.0/16"), 16),
    SubnetPool(IPv4Network("172.18.0.0/16"), 16),
    SubnetPool(IPv4Network("172.19.0.0/16"), 16),
    SubnetPool(IPv4Network("172.20.0.0/14"), 16),
    SubnetPool(IPv4Network("172.24.0.0/14"), 16),
    SubnetPool(IPv4Network("172.28.0.0/14"), 16),
    SubnetPool(IPv4Network("192.168.0.0/16"), 20),
)
"""Docker's, in Docker's order."""


def ula_pool(seed: str) -> SubnetPool:
    """The unique local IPv6 prefix of a daemon (RFC 4193, section 3.2): always the same for one `seed`, its engine id.

    A /48 from which networks are cut as /64.
    """
    global_id = hashlib.sha256(seed.encode()).digest()[:5]
    return SubnetPool(IPv6Network((b"\xfd" + global_id + bytes(10), 48)), 64)


@dataclass(frozen=True, slots=True)
class Subnet:
    """One address range of a network."""

    network: Network
    gateway: Address | None = None
    """The bridge's own address; None where it has none (an isolated network)."""
    ip_range: Network | None = None
    """What is handed out, where that is not all of `network`."""
    aux: Mapping[str, Address] = field(default_factory=dict, hash=False)
    """Addresses that others on this network have, by their names: never handed out."""

    @property
    def version(self) -> int:
        return self.network.version

    @property
    def gateway_address(self) -> str:
        """The gateway with the prefix length, as the bridge carries it; empty without one."""
        return f"{self.gateway}/{self.network.prefixlen}" if self.gateway else ""


def overlaps(one: Network, other: Network) -> bool:
    """Do two networks share an address? Those of different families do not."""
    return one.version == other.version and one.overlaps(other)


# --- what a user asks for


def parse_subnet(
    subnet: str, gateway: str = "", ip_range: str = "", aux: Mapping[str, str] | None = None
) -> tuple[Subnet | None, list[str]]:
    """(the range, what is wrong with it in Docker's words) of one entry of an IPAM configuration.

    The range is None where anything is wrong; the caller raises BadSubnets with the problems of all entries.
    """
    network = read_network(subnet)
    if network is None:
        return None, [f"invalid subnet {subnet}: invalid CIDR block notation"]
    problems = []
    if subnet.partition("/")[0] != str(network.network_address) and read_address(subnet) != network.network_address:
        problems.append(f"invalid subnet {subnet}: it should be {network}")
    problems += [f"invalid ip-range {ip_range}: {text}" for text in [range_problem(ip_range, network)] if text]
    problems += [f"invalid gateway {gateway}: {text}" for text in [address_problem(gateway, network)] if text]
    problems += [
        f"invalid auxiliary address {name}: {text}"
        for name, address in (aux or {}).items()
        if (text := address_problem(address, network) if address else "invalid address")
    ]
    if problems:
        return None, problems
    found = Subnet(
        network,
        ip_address(gateway) if gateway else None,
        read_network(ip_range) if ip_range else None,
        {name: ip_address(address) for name, address in (aux or {}).items()},
    )
    return found, []


def read_network(text: str) -> Network | None:
    """`10.0.0.5/24` as its network; None for what is no CIDR block."""
    try:
        return ip_network(text, strict=False) if "/" in text and text.partition("/")[2].isdecimal() else None
    except ValueError:
        return None


def read_address(text: str) -> Address | None:
    """The address of `10.0.0.5` or `10.0.0.5/24`; None for what is none."""
    try:
        return ip_address(text.partition("/")[0])
    except ValueError:
        return None


def range_problem(text: str, network: Network) -> str:
    part = read_network(text)
    if not text:
        return ""
    if part is None:
        return "invalid CIDR block notation"
    if part.version != network.version:
        return f"parent subnet is an IPv{network.version} block"
    if part.prefixlen < network.prefixlen:
        return f"CIDR block is bigger than its parent subnet {network}"
    if part.network_address not in network:
        return f"parent subnet {network} doesn't contain ip-range"
    return "" if read_address(text) == part.network_address else f"it should be {part}"


def address_problem(text: str, network: Network) -> str:
    address = read_address(text) if "/" not in text else None
    if not text:
        return ""
    if address is None:
        return "invalid address"
    if address.version != network.version:
        return f"parent subnet is an IPv{network.version} block"
    return "" if address in network else f"parent subnet {network} doesn't contain this address"


def check_overlap(subnet: Network, occupied: Iterable[Network]) -> None:
    """Raises PoolOverlaps when a subnet that a user names overlaps one of `occupied`."""
    for other in occupied:
        if overlaps(subnet, other):
            raise PoolOverlaps(subnet=subnet, other=other)


# --- what Pier chooses


def choose_subnet(
    family: Family, pools: Iterable[SubnetPool], occupied: Iterable[Network], *, recent: Sequence[Network] = ()
) -> Network:
    """The first piece of the pools of a family that overlaps nothing in `occupied`; raises SubnetsExhausted.

    `recent` are subnets of networks removed lately, the oldest first: one of those comes again only where nothing else
    is left, for peers may still have routes, caches and rules for it.
    """
    wanted = [pool for pool in pools if pool.base.version == family]
    taken = [network for network in occupied if network.version == family]
    shy = [network for network in recent if network.version == family]
    for first in range(len(shy) + 1):
        for pool in wanted:
            found = first_free(pool, [*taken, *shy[first:]])
            if found is not None:
                return found
    raise SubnetsExhausted()


def first_free(pool: SubnetPool, occupied: Sequence[Network]) -> Network | None:
    """The first piece of a pool that overlaps none of `occupied`; steps over what is occupied, however large it is."""
    step = 1 << (pool.base.max_prefixlen - pool.size)
    number, end = int(pool.base.network_address), int(pool.base.broadcast_address)
    blocks = sorted((int(network.network_address), int(network.broadcast_address)) for network in occupied)
    while number <= end:
        hit = next((last for first, last in blocks if first < number + step and last >= number), None)
        if hit is None:
            packed = number.to_bytes(pool.base.max_prefixlen // 8, "big")
            return ip_network((packed, pool.size))
        number += max(1, -(-(hit + 1 - number) // step)) * step
    return None


def first_gateway(subnet: Subnet) -> Address:
    """The gateway of a network whose user named none: the first address handed out. Raises AddressesExhausted."""
    pool = AddressPool(subnet.network, reserved=subnet.aux.values(), within=subnet.ip_range)
    return pool.allocate(str(subnet.network))


def edges(network: Network) -> set[int]:
    """The addresses that no host can have: network and broadcast (RFC 3021), the routers' anycast (RFC 4291, 2.6.1)."""
    first, last = int(network.network_address), int(network.broadcast_address)
    if network.prefixlen >= network.max_prefixlen - 1:
        return set()
    return {first, last} if network.version == 4 else {first}


class AddressPool:
    """The addresses of one network and family.

    Handed out in order, each time from where the last one was found, so that an address that has just become free is
    the last to be used again: neighbours' ARP caches and clients' connections have forgotten it by then.
    """

    def __init__(self, subnet: Network, *, reserved: Iterable[Address] = (), within: Network | None = None) -> None:
        """`reserved` is never handed out (gateway, auxiliary addresses); `within` narrows what is (`ip-range`)."""
        self.subnet = subnet
        part = within or subnet
        self._first, self._size = int(part.network_address), part.num_addresses
        self._never = edges(subnet) | {int(address) for address in reserved}
        self._used: set[int] = set()
        self._next = 0

    def allocate(self, network: str = "bridge", preferred: Address | None = None) -> Address:
        """`preferred`, or else the next free address.

        `network` is its name for messages. Raises AddressesExhausted, for `preferred` AddressOutside and AddressInUse.
        """
        if preferred is not None:
            self._mark(preferred)
            return preferred
        for offset in self._offsets():
            number = self._first + offset
            if number not in self._never and number not in self._used:
                self._used.add(number)
                self._next = offset + 1
                return self.subnet.network_address + (number - int(self.subnet.network_address))
        raise AddressesExhausted(network=network, version=self.subnet.version)

    def take(self, address: Address) -> None:
        """Mark the address of a container that runs already; later ones follow it. Raises AddressOutside, AddressInUse.

        One outside `within` may be taken, as in Docker: that only says what is handed out to those who do not ask.
        """
        self._mark(address)
        offset = int(address) - self._first
        if 0 <= offset < self._size:
            self._next = max(self._next, offset + 1)

    def release(self, address: Address) -> None:
        """Free an address; one that was not in use stays so."""
        self._used.discard(int(address))

    def __len__(self) -> int:
        """How many addresses are in use."""
        return len(self._used)

    def counts(self) -> tuple[int, int]:
        """(addresses of the subnet that are in use or never handed out, those that can still be handed out)."""
        gone = self._never | self._used
        last = self._first + self._size
        return len(gone), self._size - sum(self._first <= number < last for number in gone)

    def _mark(self, address: Address) -> None:
        if address not in self.subnet:
            raise AddressOutside(address=address)
        if int(address) in self._used or int(address) in self._never:
            raise AddressInUse()
        self._used.add(int(address))

    def _offsets(self) -> Iterator[int]:
        """Every offset once, from the next one on; never longer than what is taken, plus one, where one is free."""
        yield from range(self._next, self._size)
        yield from range(min(self._next, self._size))


def open_pool(subnet: Subnet) -> AddressPool:
    """The pool of a range, its gateway and auxiliary addresses out of it. Raises GatewayInUse, AuxAddressInUse."""
    never = edges(subnet.network)
    if subnet.gateway is not None and int(subnet.gateway) in never:
        raise GatewayInUse(address=subnet.gateway)
    seen = never | ({int(subnet.gateway)} if subnet.gateway else set())
    for name, address in subnet.aux.items():
        if int(address) in seen:
            raise AuxAddressInUse(name=name, address=address)
        seen.add(int(address))
    reserved = [*([subnet.gateway] if subnet.gateway else []), *subnet.aux.values()]
    return AddressPool(subnet.network, reserved=reserved, within=subnet.ip_range)
