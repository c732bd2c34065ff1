"""What the daemon keeps of a network (kind `network`, key: its id), and what older daemons kept (key: its name)."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from ipaddress import ip_address, ip_network

import msgspec
from msgspec import field

from pier.model.networks import IPAM
from pier.networks.ipam import Subnet
from pier.state import Delete, Put

__all__ = ["NETWORK", "PREDEFINED", "NetworkRecord", "SubnetRecord", "load_networks", "make_id"]

NETWORK = "network"
"""The kind of the records."""
PREDEFINED = {"bridge": "bridge", "host": "host", "none": "null"}
"""Name -> driver of the networks that are always there."""


class SubnetRecord(msgspec.Struct, frozen=True):
    """One subnet that a network really has. Texts as `ipaddress` writes them."""

    subnet: str
    gateway: str
    ip_range: str = ""
    """Addresses are handed out of this part; empty: of the whole."""
    aux: dict[str, str] = field(default_factory=dict)
    """Name -> address that is never handed out."""
    asked: bool = False
    """The user chose it: so containers may choose their addresses."""

    @property
    def version(self) -> int:
        """4 or 6."""
        return 6 if ":" in self.subnet else 4

    @property
    def ranges(self) -> Subnet:
        return Subnet(
            ip_network(self.subnet),
            ip_address(self.gateway) if self.gateway else None,
            ip_network(self.ip_range) if self.ip_range else None,
            {name: ip_address(text) for name, text in self.aux.items()},
        )

    @classmethod
    def of(cls, subnet: Subnet, *, asked: bool = False) -> SubnetRecord:
        return cls(
            subnet=str(subnet.network),
            gateway=str(subnet.gateway or ""),
            ip_range=str(subnet.ip_range or ""),
            aux={name: str(address) for name, address in subnet.aux.items()},
            asked=asked,
        )


class NetworkRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One network, as it was made; the default bridge's subnets follow the daemon's configuration at each start."""

    id: str
    """64 hexadecimal digits."""
    name: str
    driver: str
    """`bridge`, `host`, `null`, `macvlan`, `ipvlan`."""
    created_ns: int = 0
    enable_ipv4: bool = True
    enable_ipv6: bool = False
    ipam: IPAM = field(default_factory=IPAM)
    """As inspect shows it: what was asked for, and what was chosen beside it."""
    subnets: list[SubnetRecord] = field(default_factory=list)
    internal: bool = False
    attachable: bool = False
    options: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    scope: str = "local"
    adopted: bool = False
    """A bridge network on a device that was there before it."""
    config_only: bool = False
    config_from: str = ""

    @property
    def predefined(self) -> bool:
        return self.name in PREDEFINED

    @property
    def user_defined(self) -> bool:
        """Has it names and addresses of the user's choice?"""
        return not self.predefined

    def put(self) -> Put:
        """The change that writes this record."""
        return Put(NETWORK, self.id, msgspec.json.encode(self))


class _Older(msgspec.Struct):
    """What was kept by name, of the predefined networks."""

    id: str
    subnet: str = ""


def make_id() -> str:
    return secrets.token_hex(32)


def load_networks(stored: Mapping[str, bytes]) -> tuple[dict[str, NetworkRecord], list[Put | Delete], list[str]]:
    """(records by id, changes that bring the store in line, what was repaired in words).

    Records of older daemons are taken over with their ids; a predefined network that is not there is made, a record
    that cannot be read is dropped.
    """
    found: dict[str, NetworkRecord] = {}
    changes: list[Put | Delete] = []
    repaired: list[str] = []
    for key, value in stored.items():
        try:
            record = _take_over(key, value) if key in PREDEFINED else msgspec.json.decode(value, type=NetworkRecord)
        except msgspec.MsgspecError:
            changes.append(Delete(NETWORK, key))
            repaired.append(f"network {key[:12]}: its record was damaged and is dropped")
            continue
        if key != record.id:
            changes += [Delete(NETWORK, key), record.put()]
        found[record.id] = record
    names = {record.name for record in found.values()}
    for name in PREDEFINED:
        if name not in names:
            record = predefined(name, make_id())
            found[record.id] = record
            changes.append(record.put())
    return found, changes, repaired


def predefined(name: str, id: str, subnets: list[SubnetRecord] | None = None) -> NetworkRecord:
    """A network that is always there."""
    return NetworkRecord(id=id, name=name, driver=PREDEFINED[name], created_ns=time.time_ns(), subnets=subnets or [])


def _take_over(name: str, value: bytes) -> NetworkRecord:
    older = msgspec.json.decode(value, type=_Older)
    subnets = []
    if older.subnet:
        subnets = [SubnetRecord(older.subnet, str(ip_network(older.subnet)[1]))]
    return predefined(name, older.id, subnets)
