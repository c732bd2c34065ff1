"""A bridge network as its options describe it: `com.docker.network.bridge.*` and their kin, with Docker's refusals."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Literal, TypeAlias, cast

from pier.errors import InvalidParameter
from pier.model.booleans import parse_bool
from pier.networks.announce import OPTIONS as ANNOUNCE_OPTIONS
from pier.networks.ipam import Address, Subnet

__all__ = ["BridgeNetwork", "GatewayMode", "bridge_network", "unknown_options", "without_gateway"]

BRIDGE = "com.docker.network.bridge"
NAME = f"{BRIDGE}.name"
ENABLE_ICC = f"{BRIDGE}.enable_icc"
ENABLE_IP_MASQUERADE = f"{BRIDGE}.enable_ip_masquerade"
HOST_BINDING_IPV4 = f"{BRIDGE}.host_binding_ipv4"
GATEWAY_MODE_IPV4, GATEWAY_MODE_IPV6 = f"{BRIDGE}.gateway_mode_ipv4", f"{BRIDGE}.gateway_mode_ipv6"
INHIBIT_IPV4 = f"{BRIDGE}.inhibit_ipv4"
TRUSTED_HOST_INTERFACES = f"{BRIDGE}.trusted_host_interfaces"
DEFAULT_BRIDGE = f"{BRIDGE}.default_bridge"
HOST_IPV4, HOST_IPV6 = "com.docker.network.host_ipv4", "com.docker.network.host_ipv6"
MTU = "com.docker.network.driver.mtu"
CONTAINER_IFACE_PREFIX = "com.docker.network.container_iface_prefix"
KNOWN = (
    NAME, ENABLE_ICC, ENABLE_IP_MASQUERADE, HOST_BINDING_IPV4, GATEWAY_MODE_IPV4, GATEWAY_MODE_IPV6, INHIBIT_IPV4,
    TRUSTED_HOST_INTERFACES, DEFAULT_BRIDGE, HOST_IPV4, HOST_IPV6, MTU, CONTAINER_IFACE_PREFIX, *ANNOUNCE_OPTIONS,
)  # fmt: skip

GatewayMode: TypeAlias = Literal["nat", "nat-unprotected", "routed", "isolated"]
MODES = ("nat", "nat-unprotected", "routed", "isolated")
"""strconv.ParseBool's."""
DEVICE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}")
PREFIX = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,10}")
DEFAULT_MTU, SMALLEST_MTU, LARGEST_MTU, SMALLEST_IPV6_MTU = 1500, 68, 65535, 1280
# RFC 791; linux/if_ether.h; RFC 8200, section 5


class BadOption(InvalidParameter):
    """failed to parse {key} value: {value} ({reason})"""


class BadMtu(InvalidParameter):
    """invalid MTU number: {mtu}"""

    remedy = "a network takes {least} to {most}"


class NotInternal(InvalidParameter):
    """gateway mode 'isolated' can only be used for an internal network"""


@dataclass(frozen=True, slots=True)
class BridgeNetwork:
    """One bridge on this machine and the subnets behind it."""

    id: str
    bridge: str
    """The device's name."""
    subnets: tuple[Subnet, ...]
    """At most one of each family."""
    mtu: int = DEFAULT_MTU
    internal: bool = False
    """No way out of it and none in, but for this host."""
    icc: bool = True
    """May containers reach each other's unpublished ports?"""
    masquerade: bool = True
    """Give what leaves the network the host's address."""
    gateway_mode_v4: GatewayMode = "nat"
    gateway_mode_v6: GatewayMode = "nat"
    host_binding: str = ""
    """Where ports are published that name no address of the host; empty: the daemon's setting."""
    inhibit_ipv4: bool = False
    """The bridge carries no IPv4 address: somebody else's router has the gateway's."""
    trusted_interfaces: tuple[str, ...] = ()
    """Devices of this host from which published ports are reached at the container's own address."""
    snat_v4: str = ""
    """The host's address that what leaves gets; empty: that of the device it leaves by."""
    snat_v6: str = ""
    container_prefix: str = "eth"
    adopted: bool = False
    """The device was there before the network: it keeps its addresses, and stays when the network goes."""
    default_gateway_v4: str = ""
    """The containers' router where that is not the bridge (daemon.json `default-gateway`)."""
    default_gateway_v6: str = ""

    def subnet(self, version: int) -> Subnet | None:
        """Its subnet of IP version 4 or 6."""
        return next((subnet for subnet in self.subnets if subnet.version == version), None)

    def mode(self, version: int) -> GatewayMode:
        return self.gateway_mode_v4 if version == 4 else self.gateway_mode_v6

    def snat(self, version: int) -> str:
        return self.snat_v4 if version == 4 else self.snat_v6

    def publishes(self, version: int) -> bool:
        """Are ports of this family published by translation?"""
        return self.subnet(version) is not None and not self.internal and self.mode(version).startswith("nat")

    def gateway(self, version: int) -> str:
        """Where containers send what is not for their network; empty: nowhere."""
        subnet, other = self.subnet(version), self.default_gateway_v4 if version == 4 else self.default_gateway_v6
        if subnet is None or self.internal or self.mode(version) == "isolated":
            return ""
        return other or (str(subnet.gateway) if subnet.gateway else "")

    @property
    def addresses(self) -> list[str]:
        """What the bridge carries, with prefix lengths."""
        carried = [subnet for subnet in self.subnets if not (subnet.version == 4 and self.inhibit_ipv4)]
        return [item.gateway_address for item in carried if item.gateway and self.mode(item.version) != "isolated"]

    @property
    def mac_seed(self) -> Address:
        """What the bridge's MAC is made of."""
        first = self.subnet(4) or self.subnets[0]
        return first.gateway or first.network.network_address


def bridge_network(
    network_id: str,
    subnets: Sequence[Subnet],
    options: Mapping[str, str],
    *,
    internal: bool = False,
    default_mtu: int = DEFAULT_MTU,
) -> BridgeNetwork:
    """The network that `docker network create` describes. Raises BadOption, BadMtu, NotInternal."""
    modes = read_modes(options, internal=internal)
    return BridgeNetwork(
        id=network_id,
        bridge=read_device(options, NAME) or f"br-{network_id[:12]}",
        subnets=tuple(subnets),
        mtu=read_mtu(options, default_mtu, six=any(subnet.version == 6 for subnet in subnets)),
        internal=internal,
        icc=read_bool(options, ENABLE_ICC, default=True),
        masquerade=read_bool(options, ENABLE_IP_MASQUERADE, default=True),
        gateway_mode_v4=modes[0],
        gateway_mode_v6=modes[1],
        host_binding=read_ip(options, HOST_BINDING_IPV4),
        inhibit_ipv4=read_bool(options, INHIBIT_IPV4, default=False),
        trusted_interfaces=read_devices(options, TRUSTED_HOST_INTERFACES),
        snat_v4=read_ip(options, HOST_IPV4, version=4),
        snat_v6=read_ip(options, HOST_IPV6, version=6),
        container_prefix=read_prefix(options),
    )


def without_gateway(options: Mapping[str, str], *, internal: bool) -> set[int]:
    """The IP versions in which the bridge of such a network has no address, and nobody else on it leads anywhere.

    So no address is kept for a gateway that the user has not named. Raises BadOption, NotInternal.
    """
    modes = read_modes(options, internal=internal)
    found = {version for version, mode in zip((4, 6), modes, strict=True) if mode == "isolated"}
    if internal and read_bool(options, INHIBIT_IPV4, default=False):
        found.add(4)
    return found


def unknown_options(options: Mapping[str, str]) -> list[str]:
    """Options that mean nothing to a bridge network: accepted, as by Docker, and worth a warning."""
    return sorted(key for key in options if key not in KNOWN)


def read_bool(options: Mapping[str, str], key: str, *, default: bool) -> bool:
    text = options.get(key)
    if text is None:
        return default
    try:
        return parse_bool(text)
    except ValueError as error:
        raise BadOption(key=key, value=text, reason=str(error)) from None


def read_modes(options: Mapping[str, str], *, internal: bool) -> list[GatewayMode]:
    """The gateway modes of IPv4 and IPv6. Raises BadOption, NotInternal."""
    modes = [read_mode(options, key) for key in (GATEWAY_MODE_IPV4, GATEWAY_MODE_IPV6)]
    if "isolated" in modes and not internal:
        raise NotInternal()
    return modes


def read_mode(options: Mapping[str, str], key: str) -> GatewayMode:
    text = options.get(key, "nat")
    if text not in MODES:
        raise BadOption(key=key, value=text, reason=f"unknown gateway mode {text}")
    return cast(GatewayMode, text)


def read_mtu(options: Mapping[str, str], default: int, *, six: bool) -> int:
    text = options.get(MTU, "")
    if not re.fullmatch(r"[+-]?[0-9]{1,9}", text or "0"):
        raise BadOption(key=MTU, value=text, reason=f'strconv.Atoi: parsing "{text}": invalid syntax')
    mtu = int(text or 0) or default
    least = SMALLEST_IPV6_MTU if six else SMALLEST_MTU
    if not least <= mtu <= LARGEST_MTU:
        raise BadMtu(mtu=mtu, least=least, most=LARGEST_MTU)
    return mtu


def read_ip(options: Mapping[str, str], key: str, *, version: int = 0) -> str:
    """Normal form of an address, empty where none is given; `version` 0 takes both."""
    text = options.get(key, "")
    try:
        address = ip_address(text) if text else None
    except ValueError:
        raise BadOption(key=key, value=text, reason="nil ip") from None
    if address is None:
        return ""
    if version and address.version != version:
        raise BadOption(key=key, value=text, reason=f"not an IPv{version} address")
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


def read_device(options: Mapping[str, str], key: str) -> str:
    text = options.get(key, "")
    if text and not DEVICE_NAME.fullmatch(text):
        reason = "a device's name has 1 to 15 letters, digits, dots, dashes and underscores"
        raise BadOption(key=key, value=text, reason=reason)
    return text


def read_devices(options: Mapping[str, str], key: str) -> tuple[str, ...]:
    """The devices of a list separated by colons."""
    names = tuple(filter(None, options.get(key, "").split(":")))
    return tuple(read_device({key: name}, key) for name in names)


def read_prefix(options: Mapping[str, str]) -> str:
    text = options.get(CONTAINER_IFACE_PREFIX) or "eth"
    if not PREFIX.fullmatch(text):
        reason = "a device's name begins with 1 to 11 letters, digits, dots, dashes and underscores"
        raise BadOption(key=CONTAINER_IFACE_PREFIX, value=text, reason=reason)
    return text
