"""What a container asks of a network (EndpointSettings): judged in Docker's words, and made an `Ask`. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import ip_address, ip_network

from pier.errors import InvalidParameter
from pier.model.network import EndpointIPAMConfig, EndpointSettings
from pier.networks.creation import joined_faults
from pier.networks.endpoint import Ask
from pier.networks.mac import parse_mac
from pier.networks.records import NetworkRecord

__all__ = ["BadEndpoint", "ask_of", "check_borrowed", "check_settings", "parse_links", "unknown_options"]

IFNAME = "com.docker.network.endpoint.ifname"
SYSCTLS = "com.docker.network.endpoint.sysctls"
KNOWN_OPTIONS = (IFNAME, SYSCTLS)
MAX_ALIASES = 256
NO_CHOICE = "user specified IP address is supported on user defined networks only"
_DEVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}", re.ASCII)
_DNS_NAME = re.compile(r"[^\s\x00-\x1f\x7f]{1,255}")
_SYSCTL = re.compile(r"net\.(ipv4|ipv6|mpls)\.(conf|neigh)\.(IFNAME|ifname)\.[a-z0-9_]+=[^\s,]+")


class BadEndpoint(InvalidParameter):
    """invalid endpoint settings:\n{reason}"""


class BadEndpointMac(InvalidParameter):
    """invalid MAC address {text}"""

    remedy = "write six pairs of hexadecimal digits, e.g. 02:42:ac:11:00:02; the first must be even"


def check_settings(record: NetworkRecord, asked: EndpointSettings) -> None:
    """Raises BadEndpoint with everything that is wrong, BadEndpointMac."""
    if asked.mac_address:
        try:
            parse_mac(asked.mac_address)
        except InvalidParameter:
            raise BadEndpointMac(text=asked.mac_address[:64]) from None
    ipam = asked.ipam_config or EndpointIPAMConfig()
    faults = []
    if asked.aliases and not record.user_defined:
        faults.append("network-scoped alias is supported only for containers in user defined networks")
    if (ipam.ipv4_address or ipam.ipv6_address) and not record.user_defined:
        faults.append(NO_CHOICE)
    faults += _address_faults(ipam)
    for version, text in ((4, ipam.ipv4_address), (6, ipam.ipv6_address)):
        if text and (fault := _outside(record, version, text)):
            faults.append(fault)
    faults += _name_faults(asked)
    if faults:
        raise BadEndpoint(reason=joined_faults(faults))


def check_borrowed(asked: EndpointSettings) -> None:
    """Raises BadEndpoint for an address of one's own where the network is another container's."""
    ipam = asked.ipam_config or EndpointIPAMConfig()
    if ipam.ipv4_address or ipam.ipv6_address:
        raise BadEndpoint(reason=NO_CHOICE)


def _address_faults(ipam: EndpointIPAMConfig) -> list[str]:
    faults = []
    for what, text, version in (
        ("IPv4 address", ipam.ipv4_address, 4),
        ("IPv6 address", ipam.ipv6_address, 6),
        *(("link-local IP address", text, 0) for text in ipam.link_local_ips or ()),
    ):
        if text and not (_is_address(text, version) and (version or ip_address(text).is_link_local)):
            faults.append(f"invalid {what}: {text[:64]}")
    return faults


def _is_address(text: str, version: int) -> bool:
    """`version` 0: of either family."""
    try:
        return version in (0, ip_address(text).version)
    except ValueError:
        return False


def _outside(record: NetworkRecord, version: int, text: str) -> str:
    """Why a container may not have an address of its choice; empty: it may."""
    subnets = [one for one in record.subnets if one.version == version and (one.asked or record.predefined)]
    if not subnets:
        return "user specified IP address is supported only when connecting to networks with user configured subnets"
    if _is_address(text, version) and any(ip_address(text) in ip_network(one.subnet) for one in subnets):
        return ""
    return f"no configured subnet or ip-range contain the IP address {text[:64]}"


def _name_faults(asked: EndpointSettings) -> list[str]:
    faults = [f"invalid alias: {alias[:64]!r}" for alias in asked.aliases or () if not _DNS_NAME.fullmatch(alias)]
    if len(asked.aliases or ()) > MAX_ALIASES:
        faults = [f"more than {MAX_ALIASES} aliases"]
    options = asked.driver_opts or {}
    if IFNAME in options and not _DEVICE.fullmatch(options[IFNAME]):
        faults.append(f"invalid interface name: {options[IFNAME][:64]!r}")
    for setting in filter(None, options.get(SYSCTLS, "").split(",")):
        if not _SYSCTL.fullmatch(setting):
            faults.append(
                f"unrecognised network interface sysctl '{setting[:64]}'; represent 'net.X.Y.ethN.Z=V' as "
                "'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or 'mpls'"
            )
    return faults


def parse_links(links: Sequence[str] | None) -> tuple[tuple[str, str], ...]:
    """(alias, name) of `NAME` and `NAME:ALIAS`. Raises InvalidParameter."""
    found = []
    for text in links or ():
        name, _, alias = text.removeprefix("/").partition(":")
        if not name or ":" in alias:
            raise InvalidParameter(f"bad format for links: {text[:80]}")
        found.append(((alias or name).rpartition("/")[2], name))
    return tuple(found)


def ask_of(network: str, asked: EndpointSettings, *, names: Sequence[str] = ()) -> Ask:
    """`network` is its name or id, `names` those of the container and its own. Raises InvalidParameter, BadMac."""
    ipam = asked.ipam_config or EndpointIPAMConfig()
    return Ask(
        network=network,
        ipv4=ipam.ipv4_address,
        ipv6=str(ip_address(ipam.ipv6_address)) if ipam.ipv6_address else "",
        link_local=tuple(ipam.link_local_ips or ()),
        mac=parse_mac(asked.mac_address) if asked.mac_address else "",
        names=tuple(names),
        links=parse_links(asked.links),
        gw_priority=asked.gw_priority,
        options=dict(asked.driver_opts or {}),
    )


def sysctls(options: str) -> dict[str, str]:
    """Setting -> value of the endpoint option `sysctls`; `docker` sends what stands there in small letters."""
    pairs = (setting.split("=", 1) for setting in options.split(",") if "=" in setting)
    return {key.replace(".ifname.", ".IFNAME."): value for key, value in pairs}


def unknown_options(asked: EndpointSettings) -> list[str]:
    """What of the `driver-opt`s means nothing here."""
    return sorted(option for option in asked.driver_opts or {} if option not in KNOWN_OPTIONS)
