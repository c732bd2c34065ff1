"""What containers have of their networks, as data: endpoints as the state keeps them, and a container's sandbox."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import msgspec

from pier.model.network import EndpointSettings, PortBinding, PortMap
from pier.networks.firewall import Forward
from pier.networks.ports import port_map
from pier.networks.records import PREDEFINED
from pier.runtime.request import Interface
from pier.state import Delete, Put

__all__ = ["ENDPOINT", "Ask", "Endpoint", "Publishing", "Sandbox", "load_endpoints"]

ENDPOINT = "endpoint"
"""The kind of the records; key: `CONTAINER/NETWORK`."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What a container asks of one network."""

    network: str
    """Name or id."""
    ipv4: str = ""
    ipv6: str = ""
    link_local: tuple[str, ...] = ()
    """Further addresses of its interface."""
    mac: str = ""
    names: tuple[str, ...] = ()
    """By which others of the network find it, its own first; none where the network has no name server."""
    links: tuple[tuple[str, str], ...] = ()
    """(alias, name): by what it finds others, it alone."""
    gw_priority: int = 0
    """The network with the highest gives the default route."""
    options: Mapping[str, str] = field(default_factory=dict)
    """`driver-opt`."""


@dataclass(frozen=True, slots=True)
class Publishing:
    """The ports of a container."""

    ports: Mapping[str, Sequence[PortBinding] | None] = field(default_factory=dict)
    """HostConfig.PortBindings."""
    publish_all: bool = False
    exposed: Sequence[str] = ()
    """`80/tcp`."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One container on one network. Without an interface on `host` and `none`."""

    container_id: str
    container: str
    """Its name."""
    network_id: str
    network: str
    """Its name."""
    driver: str
    """The network's."""
    endpoint_id: str
    interface: Interface | None = None
    ip: str = ""
    prefix_len: int = 0
    gateway: str = ""
    """The network's; the container's default route only where `Sandbox.gateways` says so."""
    ip6: str = ""
    prefix_len6: int = 0
    gateway6: str = ""
    mac: str = ""
    names: list[str] = field(default_factory=list)
    links: list[tuple[str, str]] = field(default_factory=list)
    gw_priority: int = 0
    internal: bool = False
    host: list[str] = field(default_factory=list)
    """Addresses of the host on this network."""
    forwards: list[Forward] = field(default_factory=list)
    """Ports published through this endpoint."""
    exposed: list[str] = field(default_factory=list)
    """`80/tcp`, of the container; with the published ones this makes `Sandbox.ports`."""

    @property
    def key(self) -> str:
        return f"{self.container_id}/{self.network_id}"

    @property
    def addresses(self) -> list[str]:
        """Those that others find it by; without prefix lengths."""
        return [address for address in (self.ip, self.ip6) if address]

    def fill(self, asked: EndpointSettings) -> EndpointSettings:
        """An entry of `NetworkSettings.Networks`: what was asked for with what it has got."""
        return msgspec.structs.replace(
            asked,
            mac_address=self.mac,
            network_id=self.network_id,
            endpoint_id=self.endpoint_id,
            gateway=self.gateway,
            ip_address=self.ip,
            ip_prefix_len=self.prefix_len,
            ipv6_gateway=self.gateway6,
            global_ipv6_address=self.ip6,
            global_ipv6_prefix_len=self.prefix_len6,
            dns_names=list(self.names) or None,
        )

    def put(self) -> Put:
        """The change that writes this endpoint."""
        return Put(ENDPOINT, self.key, msgspec.json.encode(self))

    def delete(self) -> Delete:
        return Delete(ENDPOINT, self.key)

    @classmethod
    def decode(cls, data: bytes) -> Endpoint:
        """Raises msgspec.DecodeError."""
        return msgspec.json.decode(data, type=cls)


@dataclass(frozen=True)
class Sandbox:
    """All that one container has of networks while it runs; empty where it joins another container's."""

    endpoints: tuple[Endpoint, ...] = ()
    """In the order of their interfaces."""

    def on(self, network_id: str) -> Endpoint | None:
        """The endpoint on a network."""
        return next((one for one in self.endpoints if one.network_id == network_id), None)

    def named(self, network: str) -> Endpoint | None:
        """The endpoint on the network of this name."""
        for one in self.endpoints:
            if one.network == network:
                return one
        return None

    @property
    def finds_names(self) -> bool:
        """Whether the container is on a network whose containers find each other by name."""
        return any(one.names for one in self.endpoints)

    @property
    def first(self) -> Endpoint | None:
        return self.endpoints[0] if self.endpoints else None

    @property
    def interfaces(self) -> list[Interface]:
        return [one.interface for one in self.endpoints if one.interface is not None]

    @property
    def forwards(self) -> list[Forward]:
        return [forward for one in self.endpoints for forward in one.forwards]

    @property
    def gateways(self) -> tuple[Endpoint | None, Endpoint | None]:
        """The endpoints that give the default route of IPv4 and of IPv6."""
        return gateway_endpoints(self.endpoints)

    @property
    def host(self) -> list[str]:
        """The host as the container sees it (`host-gateway`): by its default routes, else by any network."""
        found = [address for one in self.gateways if one is not None for address in one.host]
        return list(dict.fromkeys(found)) or next((one.host for one in self.endpoints if one.host), [])

    @cached_property
    def ports(self) -> PortMap:
        """`NetworkSettings.Ports` as inspect shows it, not to be changed; empty without a network of one's own."""
        exposed = self.endpoints[0].exposed if self.endpoints else []
        return port_map(self.forwards, exposed)

    def having(self, endpoint: Endpoint) -> Sandbox:
        """With this endpoint added, or in the place of the one on its network."""
        if self.on(endpoint.network_id) is None:
            return Sandbox((*self.endpoints, endpoint))
        return Sandbox(tuple(endpoint if one.network_id == endpoint.network_id else one for one in self.endpoints))

    def without(self, network_id: str) -> Sandbox:
        return Sandbox(tuple(one for one in self.endpoints if one.network_id != network_id))


def gateway_endpoints(endpoints: Iterable[Endpoint]) -> tuple[Endpoint | None, Endpoint | None]:
    """Who gives the default routes (IPv4, IPv6): the highest priority, then no internal network, then the one with
    both families, then the first by name: dockerd's order."""
    ordered = sorted(endpoints, key=_rank)
    ipv4 = next((one for one in ordered if one.gateway), None)
    ipv6 = next((one for one in ordered if one.gateway6), None)
    return ipv4, ipv6


def _rank(endpoint: Endpoint) -> tuple[int, bool, int, str]:
    families = bool(endpoint.gateway) + bool(endpoint.gateway6)
    return -endpoint.gw_priority, endpoint.internal, -families, endpoint.network


class _Older(msgspec.Struct):
    """What was kept by the container's id, of the one network it could have."""

    mode: str
    network_id: str
    endpoint_id: str
    interfaces: list[Interface] = []
    ip: str = ""
    prefix_len: int = 0
    gateway: str = ""
    mac: str = ""
    forwards: list[Forward] = []
    exposed: list[str] = []


def load_endpoints(stored: Mapping[str, bytes]) -> tuple[list[Endpoint], list[Put | Delete]]:
    """(endpoints, changes that bring the store in line): records of older daemons are taken over, damaged ones go."""
    found: list[Endpoint] = []
    changes: list[Put | Delete] = []
    for key, value in stored.items():
        try:
            endpoint = Endpoint.decode(value) if "/" in key else _take_over(key, value)
        except msgspec.MsgspecError:
            endpoint = None
        if endpoint is not None:
            found.append(endpoint)
        if endpoint is None or endpoint.key != key:
            changes.append(Delete(ENDPOINT, key))
            changes += [endpoint.put()] if endpoint is not None else []
    return found, changes


def _take_over(container_id: str, value: bytes) -> Endpoint | None:
    older = msgspec.json.decode(value, type=_Older)
    if older.mode not in PREDEFINED:  # it joined another container's
        return None
    return Endpoint(
        container_id=container_id,
        container="",
        network_id=older.network_id,
        network=older.mode,
        driver=PREDEFINED[older.mode],
        endpoint_id=older.endpoint_id,
        interface=older.interfaces[0] if older.interfaces else None,
        ip=older.ip,
        prefix_len=older.prefix_len,
        gateway=older.gateway,
        mac=older.mac,
        forwards=older.forwards,
        exposed=older.exposed,
    )
