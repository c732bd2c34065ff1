"""What a container's name server answers itself, and what it passes on. Pure, but for the order of addresses."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from pier.networks.dns.message import (
    AAAA,
    BADVERS,
    IN,
    PTR,
    A,
    Query,
    address_of,
    address_records,
    pointer_record,
    reply,
)
from pier.networks.dns.names import NameTable
from pier.networks.resolv import Upstream

__all__ = ["Settings", "answer"]

ANY = 255
IPV4, IPV6 = 4, 16


@dataclass(frozen=True, slots=True)
class Settings:
    """How one container's name server works, besides the names it knows."""

    servers: tuple[Upstream, ...] = ()
    """In the order they are asked."""
    forwards: bool = True
    """False on internal networks alone: nothing is sent from the host's namespace for the container."""
    single_label_is_local: bool = False
    """`ndots` is set: an unknown name without a dot is left to the search domains, as with Docker."""
    host_addresses: dict[bytes, tuple[bytes, ...]] = field(default_factory=dict)
    """`host.docker.internal` and its like -> packed addresses."""


def answer(table: NameTable, container_id: str, settings: Settings, query: Query, *, limit: int) -> bytes | None:
    """The reply of at most `limit` bytes; None for what another server has to say."""
    if query.qclass != IN:
        return None
    found = records(table, container_id, settings, query)
    if found is not None:
        if query.edns is not None and query.edns.version:
            return reply(query, BADVERS)
        return reply(query, answers=found, limit=limit)
    if settings.single_label_is_local and query.qtype in (A, AAAA) and b"." not in query.name:
        return reply(query)
    return None


def records(table: NameTable, container_id: str, settings: Settings, query: Query) -> list[bytes] | None:
    """The records asked for; none of a name that exists, None for a name that is not ours."""
    name, qtype = query.name, query.qtype
    if qtype == A:
        addresses = addresses_of(table, container_id, settings, name, IPV4)
    elif qtype == AAAA:
        addresses = addresses_of(table, container_id, settings, name, IPV6)
    elif qtype == PTR:
        address = address_of(name)
        owner = None if address is None else table.reverse(container_id, address)
        record = None if owner is None else pointer_record(owner)
        return None if record is None else [record]
    else:
        addresses = addresses_of(table, container_id, settings, name, IPV4)
        if addresses is not None:
            also = addresses_of(table, container_id, settings, name, IPV6) or []
            addresses = [*addresses, *also] if qtype == ANY else []
    if addresses is None:
        return None
    if len(addresses) > 1:
        addresses = list(addresses)
        random.shuffle(addresses)
    return address_records(addresses)


def addresses_of(table: NameTable, container_id: str, settings: Settings, name: bytes, size: int) -> list[bytes] | None:
    found = table.resolve(container_id, name, size)
    if found is None and name in settings.host_addresses:
        return [address for address in settings.host_addresses[name] if len(address) == size]
    return found
