"""What macvlan and ipvlan networks have in common: a parent on the host, and nothing else there."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from ipaddress import ip_interface, ip_network

from pier.errors import InvalidParameter, PierError, Unavailable
from pier.kernel.netlink import NetlinkSocket
from pier.networks.announce import OPTIONS, wrong_options
from pier.networks.bridge_options import MTU
from pier.networks.driver import Place
from pier.networks.parent import ensure_parent, find_parent, remove_parent
from pier.networks.records import NetworkRecord
from pier.runtime.request import Interface

__all__ = ["PARENT", "BadMode", "BadMtu", "ParentDriver", "ParentInUse", "parent_of"]

PARENT = "parent"
MAX_MTU = 65535


class ParentUnavailable(Unavailable):
    """failed to set up container networking: {reason}"""


class KindMissing(Unavailable):
    """failed to create the {kind} network: operation not supported: this kernel has no {kind} devices"""

    remedy = "load the module {kind}, or take a kernel that has it"


class BadMode(InvalidParameter):
    """requested {kind} {what} '{value}' is not valid, {default} is the {kind} driver default"""


class BadMtu(InvalidParameter):
    """invalid value {value} for the option com.docker.network.driver.mtu"""

    remedy = "a number of bytes from 68 to 65535; 0 or nothing: the parent's"


class ParentInUse(PierError):
    """{reason}"""

    status = 403


def parent_of(record: NetworkRecord) -> str:
    """The name of a network's parent device. Raises BadParent."""
    return find_parent(record.driver, record.options.get(PARENT, ""), record.id)[0]


class ParentDriver:
    """The common half. `make` and `unmake` are called in one thread."""

    kind: str
    known_options: frozenset[str]

    def __init__(self) -> None:
        self._users: dict[str, set[str]] = {}
        """Parent -> ids of the networks on it."""
        self._broken: dict[str, str] = {}
        """Id of a network -> why no container can join."""

    def without_gateway(self, record: NetworkRecord) -> Collection[int]:
        return () if self.leads_out(record) else (4, 6)

    def check(self, record: NetworkRecord, others: Iterable[NetworkRecord]) -> list[str]:
        find_parent(self.kind, record.options.get(PARENT, ""), record.id)
        mtu_of(record)
        self.check_mode(record)
        for other in others:
            if other.driver == self.kind and not other.config_only and parent_of(other) == parent_of(record):
                self.check_neighbour(record, other)
        known = self.known_options | {PARENT, MTU, *OPTIONS}
        return wrong_options(record.options) + [
            f"Pier does not know the option {option[:80]}. It has no effect."
            for option in sorted(set(record.options) - known)
        ]

    def check_mode(self, record: NetworkRecord) -> None:
        """Raises BadMode."""
        raise NotImplementedError

    def check_neighbour(self, record: NetworkRecord, other: NetworkRecord) -> None:
        """Whether both can be on one parent. Raises ParentInUse."""
        raise NotImplementedError

    def forget(self, record: NetworkRecord) -> None:
        self._broken.pop(record.id, None)

    def make(self, record: NetworkRecord) -> None:
        name, nowhere = find_parent(self.kind, record.options.get(PARENT, ""), record.id)
        try:
            with NetlinkSocket() as netlink:
                if not netlink.knows(self.kind):
                    raise KindMissing(kind=self.kind)
                ensure_parent(netlink, name, nowhere=nowhere, network_id=record.id)
        except (OSError, PierError) as error:
            self._broken[record.id] = error.message if isinstance(error, PierError) else str(error)
            raise
        self._broken.pop(record.id, None)
        self._users.setdefault(name, set()).add(record.id)

    def unmake(self, record: NetworkRecord) -> None:
        name = parent_of(record)
        users = self._users.get(name, set())
        if not users - {record.id}:
            with NetlinkSocket() as netlink:
                remove_parent(netlink, name)
            self._users.pop(name, None)
        users.discard(record.id)
        self._broken.pop(record.id, None)

    def require(self, record: NetworkRecord) -> None:
        if reason := self._broken.get(record.id):
            raise ParentUnavailable(reason=reason)

    def gateway(self, record: NetworkRecord, version: int) -> str:
        if not self.leads_out(record):
            return ""
        return next((subnet.gateway for subnet in record.subnets if subnet.version == version), "")

    def leads_out(self, record: NetworkRecord) -> bool:
        """Whether containers reach more than each other."""
        return not record.internal and bool(record.options.get(PARENT))

    def host_addresses(self, record: NetworkRecord) -> list[str]:
        return []  # the kernel keeps a parent and what is on it apart

    def interface(self, record: NetworkRecord, place: Place) -> Interface | None:
        return Interface(
            name=place.name,
            host_name="",
            parent=parent_of(record),
            mac=place.mac,
            addresses=list(place.addresses),
            gateways=gateways_of(record, place),
            mtu=mtu_of(record),
            kind=self.kind,
            mode=self.mode(record),
            flag=self.flag(record),
            routes=self.routes(record, place),
            sysctls=dict(place.sysctls),
        )

    def mode(self, record: NetworkRecord) -> str:
        raise NotImplementedError

    def flag(self, record: NetworkRecord) -> str:
        return ""

    def routes(self, record: NetworkRecord, place: Place) -> list[tuple[str, str]]:
        return []


def mtu_of(record: NetworkRecord) -> int:
    """The interfaces' MTU in bytes; 0: the parent's. Raises BadMtu."""
    text = record.options.get(MTU, "") or "0"
    if not (text.isascii() and text.isdecimal() and (int(text) == 0 or 68 <= int(text) <= MAX_MTU)):
        raise BadMtu(value=text)
    return int(text)


def gateways_of(record: NetworkRecord, place: Place) -> list[str]:
    """Those of the subnets that the addresses are in: a network on a parent may have several of one family."""
    addresses = [ip_interface(item).ip for item in place.addresses]
    subnets = [one for one in record.subnets if any(address in ip_network(one.subnet) for address in addresses)]
    return [
        next((one.gateway for one in subnets if one.version == (6 if ":" in gateway else 4) and one.gateway), gateway)
        for gateway in place.gateways
    ]
