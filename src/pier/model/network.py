"""Networks and endpoints as containers carry them (Engine API: NetworkingConfig, NetworkSettings, EndpointSettings)."""

from __future__ import annotations

from typing import Annotated

from msgspec import field

from .wire import OMIT, Struct


class EndpointIPAMConfig(Struct):
    """Addresses the user asked for on one network."""

    ipv4_address: Annotated[str, OMIT] = field(name="IPv4Address", default="")
    ipv6_address: Annotated[str, OMIT] = field(name="IPv6Address", default="")
    link_local_ips: Annotated[list[str] | None, OMIT] = field(name="LinkLocalIPs", default=None)


class EndpointSettings(Struct):
    """One container on one network: what was asked for (to `gw_priority`), then what it got."""

    ipam_config: EndpointIPAMConfig | None = field(name="IPAMConfig", default=None)
    links: list[str] | None = None
    aliases: list[str] | None = None
    mac_address: str = ""
    driver_opts: dict[str, str] | None = None
    gw_priority: int = 0
    network_id: str = field(name="NetworkID", default="")
    endpoint_id: str = field(name="EndpointID", default="")
    gateway: str = ""
    ip_address: str = field(name="IPAddress", default="")
    ip_prefix_len: int = field(name="IPPrefixLen", default=0)
    ipv6_gateway: str = field(name="IPv6Gateway", default="")
    global_ipv6_address: str = field(name="GlobalIPv6Address", default="")
    global_ipv6_prefix_len: int = field(name="GlobalIPv6PrefixLen", default=0)
    dns_names: list[str] | None = field(name="DNSNames", default=None)


class NetworkingConfig(Struct):
    """The networks a new container joins, by name or id."""

    endpoints_config: dict[str, EndpointSettings] | None = None


class PortBinding(Struct):
    """A host address and port: both as text, empty for any."""

    host_ip: str = ""
    host_port: str = ""


PortMap = dict[str, list[PortBinding] | None]
"""`80/tcp` -> bindings; None: exposed and not published."""


class Address(Struct):
    addr: str = ""
    prefix_len: int = 0


class NetworkSettings(Struct):
    """A container's networking as inspect shows it.

    `bridge` and what follows `ports` repeat the default bridge's endpoint for old clients; API 1.52 dropped them
    (`api.versions` does that).
    """

    bridge: str = ""
    sandbox_id: str = field(name="SandboxID", default="")
    sandbox_key: str = ""
    ports: PortMap = field(default_factory=dict)
    hairpin_mode: bool = False
    link_local_ipv6_address: str = field(name="LinkLocalIPv6Address", default="")
    link_local_ipv6_prefix_len: int = field(name="LinkLocalIPv6PrefixLen", default=0)
    secondary_ip_addresses: list[Address] | None = field(name="SecondaryIPAddresses", default=None)
    secondary_ipv6_addresses: list[Address] | None = field(name="SecondaryIPv6Addresses", default=None)
    endpoint_id: str = field(name="EndpointID", default="")
    gateway: str = ""
    global_ipv6_address: str = field(name="GlobalIPv6Address", default="")
    global_ipv6_prefix_len: int = field(name="GlobalIPv6PrefixLen", default=0)
    ip_address: str = field(name="IPAddress", default="")
    ip_prefix_len: int = field(name="IPPrefixLen", default=0)
    ipv6_gateway: str = field(name="IPv6Gateway", default="")
    mac_address: str = ""
    networks: dict[str, EndpointSettings] = field(default_factory=dict)


class NetworkSettingsSummary(Struct):
    """As in the list of containers."""

    networks: dict[str, EndpointSettings] = field(default_factory=dict)
