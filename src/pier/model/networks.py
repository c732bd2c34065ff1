"""Networks of the Engine API: what a client sends to make one or to join one, what it reads back."""

from __future__ import annotations

from typing import Annotated

from msgspec import field

from .network import EndpointSettings
from .wire import OMIT, Struct

__all__ = [
    "IPAM",
    "ConfigReference",
    "EndpointResource",
    "IPAMConfig",
    "IPAMStatus",
    "NetworkConnectRequest",
    "NetworkCreateRequest",
    "NetworkCreateResponse",
    "NetworkDisconnectRequest",
    "NetworkInspect",
    "NetworkStatus",
    "NetworkSummary",
    "SubnetStatus",
    "is_network_name",
]

NAME_MAX = 255
NO_SEGMENTS = {"", ".", ".."}
"""What the path of a request does not keep: clients and proxies take it out."""


def is_network_name(text: str) -> bool:
    """Whether a network can be called that: it can be shown, and found again by its name in the path of a request."""
    return len(text) <= NAME_MAX and text.isprintable() and NO_SEGMENTS.isdisjoint(text.split("/"))


class IPAMConfig(Struct):
    """One subnet, as it was asked for, or with the gateway that was chosen for it."""

    subnet: Annotated[str, OMIT] = ""
    ip_range: Annotated[str, OMIT] = field(name="IPRange", default="")
    gateway: Annotated[str, OMIT] = ""
    auxiliary_addresses: Annotated[dict[str, str] | None, OMIT] = None
    """Name -> address that is never handed out."""


class IPAM(Struct):
    """How a network's addresses are managed."""

    driver: str = "default"
    options: dict[str, str] | None = None
    config: list[IPAMConfig] | None = None


class ConfigReference(Struct):
    """The config-only network that others take their settings from, by name."""

    network: str = ""


class NetworkCreateRequest(Struct):
    """POST /networks/create."""

    name: str = ""
    check_duplicate: bool = False
    """Of API 1.43 and before: names are always unique."""
    driver: str = ""
    scope: str = ""
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_only: bool = False
    config_from: ConfigReference | None = None
    ipam: IPAM | None = field(name="IPAM", default=None)
    enable_ipv4: bool | None = field(name="EnableIPv4", default=None)
    enable_ipv6: bool | None = field(name="EnableIPv6", default=None)
    options: dict[str, str] | None = None
    labels: dict[str, str] | None = None


class NetworkCreateResponse(Struct):
    id: str = ""
    warning: str = ""


class NetworkConnectRequest(Struct):
    """POST /networks/{id}/connect: a container by name or id."""

    container: str = ""
    endpoint_config: EndpointSettings | None = None


class NetworkDisconnectRequest(Struct):
    """POST /networks/{id}/disconnect."""

    container: str = ""
    force: bool = False


class NetworkSummary(Struct):
    """One network in the list."""

    name: str
    id: str
    created: str
    """RFC 3339 with nanoseconds."""
    scope: str = "local"
    driver: str = "bridge"
    enable_ipv4: bool = field(name="EnableIPv4", default=True)
    enable_ipv6: bool = field(name="EnableIPv6", default=False)
    ipam: IPAM = field(name="IPAM", default_factory=IPAM)
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_from: ConfigReference = field(default_factory=ConfigReference)
    config_only: bool = False
    options: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)


class EndpointResource(Struct):
    """A container on a network, as the network shows it; addresses with prefix length."""

    name: str = ""
    endpoint_id: str = field(name="EndpointID", default="")
    mac_address: str = ""
    ipv4_address: str = field(name="IPv4Address", default="")
    ipv6_address: str = field(name="IPv6Address", default="")


class SubnetStatus(Struct):
    """Addresses of one subnet; both saturate at 2**64 - 1."""

    ips_in_use: int = field(name="IPsInUse", default=0)
    """Handed out or reserved."""
    dynamic_ips_available: int = field(name="DynamicIPsAvailable", default=0)
    """Free to be handed out, within the range."""


class IPAMStatus(Struct):
    subnets: dict[str, SubnetStatus] = field(default_factory=dict)


class NetworkStatus(Struct):
    ipam: IPAMStatus = field(name="IPAM", default_factory=IPAMStatus)


class NetworkInspect(NetworkSummary):
    """One network, with the containers that are on it (id -> endpoint); those that do not run are not shown."""

    containers: dict[str, EndpointResource] = field(default_factory=dict)
    status: Annotated[NetworkStatus | None, OMIT] = None
    """Since API 1.52."""
