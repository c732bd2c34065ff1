"""The addresses of all networks: handed out to endpoints, taken back. State in memory, rebuilt from the records."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from ipaddress import ip_address

from pier.errors import PierError
from pier.networks.ipam import AddressesExhausted, AddressOutside, AddressPool, open_pool
from pier.networks.records import NetworkRecord

__all__ = ["Addresses", "Given"]

Given = dict[int, tuple[str, int]]
"""IP version -> (address, prefix length)."""


class Addresses:
    """One pool for each subnet of each network. Nothing here awaits or blocks."""

    def __init__(self) -> None:
        self._pools: dict[str, list[AddressPool]] = {}

    def open(self, record: NetworkRecord) -> None:
        """Begin to hand out the addresses of a network. Raises GatewayInUse, AuxAddressInUse."""
        self._pools[record.id] = [open_pool(subnet.ranges) for subnet in record.subnets]

    def close(self, network_id: str) -> None:
        self._pools.pop(network_id, None)

    def pools(self, network_id: str) -> list[AddressPool]:
        return self._pools.get(network_id, [])

    def take(self, network_id: str, address: str) -> None:
        """Mark the address of a container that runs already; one of an earlier configuration cannot collide."""
        for pool in self._holding(network_id, address):
            with contextlib.suppress(PierError):
                pool.take(ip_address(address))

    def free(self, network_id: str, address: str) -> None:
        for pool in self._holding(network_id, address):
            pool.release(ip_address(address))

    def allocate(self, record: NetworkRecord, *, ipv4: str, ipv6: str) -> Given:
        """An address of each family that the network has, all or none; empty texts leave the choice to us.

        Raises AddressesExhausted, AddressInUse, AddressOutside.
        """
        given: Given = {}
        try:
            for version, wanted in ((4, ipv4), (6, ipv6)):
                pools = [pool for pool in self.pools(record.id) if pool.subnet.version == version]
                if pools:
                    given[version] = allocate(pools, record, wanted)
        except BaseException:
            for address, _ in given.values():
                self.free(record.id, address)
            raise
        return given

    def _holding(self, network_id: str, address: str) -> list[AddressPool]:
        return [pool for pool in self.pools(network_id) if ip_address(address) in pool.subnet]


def allocate(pools: Sequence[AddressPool], record: NetworkRecord, wanted: str) -> tuple[str, int]:
    """(an address, its prefix length) of one family. Raises AddressesExhausted, AddressInUse, AddressOutside."""
    name = f"{record.name} ({record.id})"
    if wanted:
        address = ip_address(wanted)
        for pool in pools:
            if address in pool.subnet:
                return str(pool.allocate(name, address)), pool.subnet.prefixlen
        raise AddressOutside(address=wanted)
    for pool in pools[:-1]:
        with contextlib.suppress(AddressesExhausted):
            return str(pool.allocate(name)), pool.subnet.prefixlen
    return str(pools[-1].allocate(name)), pools[-1].subnet.prefixlen
