"""What kinds of networks there are: each driver says what it takes, makes the host's side, and describes interfaces.

`make` and `unmake` block: the service calls them in its worker thread, one at a time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import Protocol

import msgspec

from pier.errors import PierError, Unavailable
from pier.networks.announce import wrong_options
from pier.networks.bridge import port_mode
from pier.networks.bridge_options import NAME, BridgeNetwork, bridge_network, unknown_options, without_gateway
from pier.networks.creation import Forbidden
from pier.networks.host import HostSide
from pier.networks.mac import mac_of
from pier.networks.records import NetworkRecord
from pier.runtime.request import Interface

__all__ = ["BridgeDriver", "BridgeUnavailable", "Driver", "HostDriver", "NullDriver", "Place"]


NO_ADVERTISEMENTS = {"net.ipv6.conf.IFNAME.accept_ra": "0"}
"""Its router is named: another container on the bridge shall not name itself."""


class BridgeUnavailable(Unavailable):
    """failed to set up container networking: the bridge network is off: {reason}"""

    remedy = "`--network host` and `--network none` work"


class SameBridge(PierError):
    """cannot create network {id} ({bridge}): conflicts with network {other} ({bridge}): networks have same bridge name"""  # noqa: E501

    status = 403


@dataclass(frozen=True, slots=True)
class Place:
    """What one container gets of a network."""

    endpoint_id: str
    name: str
    """The interface's, inside."""
    mac: str
    """Empty: the kernel's choice."""
    addresses: tuple[str, ...]
    """With prefix length."""
    gateways: tuple[str, ...]
    """Of its default routes; empty where another network gives them."""
    sysctls: Mapping[str, str] = field(default_factory=dict)


class Driver(Protocol):
    """One kind of network."""

    def without_gateway(self, record: NetworkRecord) -> Collection[int]:
        """The IP versions in which a new network needs no gateway that its user has not named. Raises PierError."""
        ...

    def check(self, record: NetworkRecord, others: Iterable[NetworkRecord]) -> list[str]:
        """Judge a new network of this kind; returns warnings. Raises PierError."""
        ...

    def forget(self, record: NetworkRecord) -> None:
        """A network that was judged and not made."""
        ...

    def make(self, record: NetworkRecord) -> None:
        """Make the host's side; what is there already is no error. Raises OSError, PierError. Blocking."""
        ...

    def unmake(self, record: NetworkRecord) -> None:
        """Take the host's side away; what is gone already is no error. Raises OSError, PierError. Blocking."""
        ...

    def require(self, record: NetworkRecord) -> None:
        """Raises Unavailable where no container can join now."""
        ...

    def gateway(self, record: NetworkRecord, version: int) -> str:
        """Where containers send what is not for the network, by IPv4 or IPv6; empty: nowhere."""
        ...

    def mac(self, address: str) -> str:
        """For an interface whose first address is `address` (empty: none); empty: the kernel's choice."""
        ...

    def host_addresses(self, record: NetworkRecord) -> list[str]:
        """By which containers of the network reach this host."""
        ...

    def interface(self, record: NetworkRecord, place: Place) -> Interface | None:
        """A container's interface; None where it has none of its own."""
        ...


class HostDriver:
    """The host's own network, and its twin `NullDriver`: no network at all. Neither has anything to make."""

    def without_gateway(self, record: NetworkRecord) -> Collection[int]:
        return (4, 6)

    def check(self, record: NetworkRecord, others: Iterable[NetworkRecord]) -> list[str]:
        raise Forbidden(f'only one instance of "{record.driver}" network is allowed')

    def forget(self, record: NetworkRecord) -> None:
        """Nothing."""

    def make(self, record: NetworkRecord) -> None:
        """Nothing."""

    def unmake(self, record: NetworkRecord) -> None:
        """Nothing."""

    def require(self, record: NetworkRecord) -> None:
        """Always there."""

    def gateway(self, record: NetworkRecord, version: int) -> str:
        return ""

    def mac(self, address: str) -> str:
        return ""

    def host_addresses(self, record: NetworkRecord) -> list[str]:
        return []

    def interface(self, record: NetworkRecord, place: Place) -> Interface | None:
        return None


class NullDriver(HostDriver):
    """Of the network `none`."""


class BridgeDriver:
    """Bridges of this host, with a firewall table; the default bridge is given with `default`."""

    def __init__(self, host: HostSide) -> None:
        self._host = host
        self._networks: dict[str, BridgeNetwork] = {}
        self.no_default = "the daemon runs with bridge=none"
        """Why there is no default bridge, where there is none."""

    def network(self, record: NetworkRecord) -> BridgeNetwork:
        """The record as the host's side sees it. Raises InvalidParameter, BridgeUnavailable."""
        found = self._networks.get(record.id)
        if found is None and record.predefined:
            self.require(record)
        if found is None:
            subnets = [one.ranges for one in record.subnets]
            found = bridge_network(record.id, subnets, record.options, internal=record.internal)
            found = self._networks[record.id] = replace(found, adopted=record.adopted)
        return found

    def adopt(self, record: NetworkRecord) -> NetworkRecord:
        """The record of a new network, with a note where its bridge is there already. Raises OSError. Blocking."""
        named = record.options.get(NAME, "")
        return msgspec.structs.replace(record, adopted=bool(named) and self._host.has_device(named))

    def default(self, network: BridgeNetwork) -> None:
        """Say what the default bridge is: the daemon's configuration, not options, describes it."""
        self._networks[network.id] = network

    def without_gateway(self, record: NetworkRecord) -> Collection[int]:
        return without_gateway(record.options, internal=record.internal)

    def check(self, record: NetworkRecord, others: Iterable[NetworkRecord]) -> list[str]:
        for version in (4, 6):
            if len([one for one in record.subnets if one.version == version]) > 1:
                raise Forbidden("bridge driver doesn't support multiple subnets")
        own = bridge_network(
            record.id, [one.ranges for one in record.subnets], record.options, internal=record.internal
        )
        for other in others:
            known = self._networks.get(other.id)
            if known is not None and known.bridge == own.bridge:
                raise SameBridge(id=record.id, bridge=own.bridge, other=other.id)
        return wrong_options(record.options) + [
            f"Pier does not know the option {option[:80]}. It has no effect."
            for option in unknown_options(record.options)
        ]

    def make(self, record: NetworkRecord) -> None:
        self._host.add(self.network(record))

    def unmake(self, record: NetworkRecord) -> None:
        self._host.remove(self.network(record))
        self._networks.pop(record.id, None)

    def forget(self, record: NetworkRecord) -> None:
        self._networks.pop(record.id, None)

    def require(self, record: NetworkRecord) -> None:
        reason = self._host.bridge_off or self._host.broken.get(record.id, "")
        if record.predefined and record.id not in self._networks:
            reason = reason or self.no_default
        if reason:
            raise BridgeUnavailable(reason=reason)

    def gateway(self, record: NetworkRecord, version: int) -> str:
        return self.network(record).gateway(version)

    def mac(self, address: str) -> str:
        return mac_of(ip_address(address)) if address else ""

    def host_addresses(self, record: NetworkRecord) -> list[str]:
        return [address.partition("/")[0] for address in self.network(record).addresses]

    def interface(self, record: NetworkRecord, place: Place) -> Interface | None:
        network = self.network(record)
        return Interface(
            name=place.name,
            host_name=f"veth{place.endpoint_id[:7]}",
            parent=network.bridge,
            mac=place.mac,
            addresses=list(place.addresses),
            gateways=list(place.gateways),
            mtu=network.mtu,
            mode=port_mode(network),
            sysctls={**(NO_ADVERTISEMENTS if network.subnet(6) else {}), **place.sysctls},
        )
