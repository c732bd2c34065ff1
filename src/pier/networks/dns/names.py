"""Which names a container sees: those of the endpoints on the networks that it is on itself.

Filled by the network service, read for every query. A name is looked up as Docker does: in all of the container's
networks; then, since a name and a network's name may hold dots, `a.b.c` as `a.b` on network `c` and `a` on `b.c`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address

__all__ = ["NameTable"]

Packed = bytes
"""An address in network byte order: 4 bytes or 16."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One endpoint's names on one network."""

    container_id: str
    names: tuple[bytes, ...]
    """Lower case, the first is the one that its addresses are called by."""
    addresses: tuple[Packed, ...]
    links: Mapping[bytes, bytes]
    """Alias -> name: for the lookups of this container alone."""


@dataclass(slots=True)
class Network:
    """One network's endpoints, by id and by what they are looked up by."""

    name: bytes = b""
    endpoints: dict[str, Entry] = field(default_factory=dict)
    by_name: dict[bytes, list[Entry]] = field(default_factory=dict)
    by_address: dict[Packed, list[Entry]] = field(default_factory=dict)

    def add(self, endpoint_id: str, entry: Entry) -> None:
        self.endpoints[endpoint_id] = entry
        for name in entry.names:
            self.by_name.setdefault(name, []).append(entry)
        for address in entry.addresses:
            self.by_address.setdefault(address, []).append(entry)

    def remove(self, endpoint_id: str) -> Entry | None:
        entry = self.endpoints.pop(endpoint_id, None)
        if entry is not None:
            drop(self.by_name, entry.names, entry)
            drop(self.by_address, entry.addresses, entry)
        return entry


def drop(index: dict[bytes, list[Entry]], keys: Iterable[bytes], entry: Entry) -> None:
    for key in keys:
        left = [item for item in index[key] if item is not entry]
        if left:
            index[key] = left
        else:
            del index[key]


def key_of(name: str) -> bytes:
    """A name as queries are compared with it: without a final dot, in lower case (RFC 4343)."""
    return name.removesuffix(".").lower().encode()


class NameTable:
    """The names of all networks that have a resolver."""

    def __init__(self) -> None:
        self._networks: dict[str, Network] = {}
        self._scopes: dict[str, dict[str, str]] = {}
        """Container -> the networks it is on, in the order it came to them: network -> its endpoint there."""

    def put(
        self,
        network_id: str,
        endpoint_id: str,
        container_id: str,
        names: Sequence[str],
        addresses: Sequence[str],
        *,
        network_name: str = "",
        links: Mapping[str, str] | None = None,
    ) -> None:
        """Say by which `names` an endpoint is found, the container's own first; what was said before is replaced.

        `addresses` are plain (`172.18.0.2`, `fd00::2`); `network_name` is what `NAME.NETWORK` and reverse look-ups say;
        `links` (alias -> name on the same network) are seen by this container only.
        """
        network = self._networks.setdefault(network_id, Network())
        network.remove(endpoint_id)
        if network_name:
            network.name = key_of(network_name)
        entry = Entry(
            container_id,
            tuple(dict.fromkeys(key_of(name) for name in names if name)),
            tuple(ip_address(address).packed for address in addresses),
            {key_of(alias): key_of(name) for alias, name in (links or {}).items()},
        )
        network.add(endpoint_id, entry)
        self._scopes.setdefault(container_id, {})[network_id] = endpoint_id

    def remove(self, network_id: str, endpoint_id: str) -> None:
        """Forget an endpoint; one that is not known is no error."""
        network = self._networks.get(network_id)
        entry = network.remove(endpoint_id) if network is not None else None
        if network is None or entry is None:
            return
        if not network.endpoints:
            del self._networks[network_id]
        scope = self._scopes[entry.container_id]
        if scope.get(network_id) == endpoint_id:
            del scope[network_id]
        if not scope:
            del self._scopes[entry.container_id]

    def resolve(self, container_id: str, name: bytes, size: int) -> list[Packed] | None:
        """The addresses of `size` bytes (4, 16) that `name` (lower case, no final dot) has for a container.

        None: no such name on the networks it is on. Empty: there is one, but it has no address of that family.
        """
        known = False
        for label, network_name in readings(name):
            for network, own in self._seen_by(container_id):
                if network_name and network_name != network.name:
                    continue
                entries = network.by_name.get(own.links.get(label, label))
                if entries:
                    known = True
                    found = [address for entry in entries for address in entry.addresses if len(address) == size]
                    if found:
                        return found
            if known:
                return []
        return None

    def reverse(self, container_id: str, address: Packed) -> bytes | None:
        """`NAME.NETWORK` of an address on the networks that a container is on."""
        for network, _ in self._seen_by(container_id):
            for entry in network.by_address.get(address, ()):
                if entry.names:
                    return b".".join((entry.names[0], network.name)) if network.name else entry.names[0]
        return None

    def _seen_by(self, container_id: str) -> Iterator[tuple[Network, Entry]]:
        """The networks that a container is on, each with its own entry there."""
        for network_id, endpoint_id in self._scopes.get(container_id, {}).items():
            network = self._networks[network_id]
            yield network, network.endpoints[endpoint_id]


def readings(name: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(name, network) in the order they are tried; an empty network stands for any."""
    yield name, b""
    end = len(name)
    while (end := name.rfind(b".", 0, end)) > 0:
        yield name[:end], name[end + 1 :]
