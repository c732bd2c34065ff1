"""Addresses and routes in rtnetlink's words (RTM_NEWADDR, RTM_NEWROUTE and their like).

Pure functions; `kernel.netlink` sends what they make. Loaded into the zygote.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

from pier.kernel.links import u32_of
from pier.kernel.nlmsg import NLM_F_CREATE, NLM_F_EXCL, Request, attribute, attribute_u32, attributes

__all__ = ["Address", "Route"]

# linux/rtnetlink.h, linux/if_addr.h
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_FLAGS = 1, 2, 4, 8
IFA_F_NODAD = 0x02
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_TABLE = 1, 4, 5, 6, 15
RT_TABLE_MAIN = 254
RTPROT_BOOT = 3
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK = 0, 253
RTN_UNICAST = 1

IFADDRMSG = struct.Struct("=BBBBI")  # family, prefixlen, flags, scope, index
RTMSG = struct.Struct("=BBBBBBBBI")  # family, dst_len, src_len, tos, table, protocol, scope, type, flags


@dataclass(frozen=True, slots=True)
class Address:
    """One IP address of a device."""

    index: int
    address: str
    prefix_len: int


@dataclass(frozen=True, slots=True)
class Route:
    """One route."""

    destination: str
    """Network with prefix length; `0.0.0.0/0` and `::/0` are default routes."""
    gateway: str
    """Empty for a directly connected network."""
    index: int
    """Outgoing device; 0 for a route of several paths."""
    table: int


# --- pieces of a message


def address_bytes(address: str) -> tuple[int, bytes]:
    """(family, network byte order); raises ValueError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        return int(family), socket.inet_pton(family, address)
    except OSError:
        raise ValueError(f"{address!r} is not an IP address") from None


def interface_address_bytes(text: str) -> tuple[int, bytes, int]:
    """(family, address, prefix length) of `172.17.0.2/16`; raises ValueError."""
    address, slash, length = text.partition("/")
    family, packed = address_bytes(address)
    if not slash or not length.isdecimal() or int(length) > len(packed) * 8:
        raise ValueError(f"{text!r} is not an IP address with a prefix length")
    return family, packed, int(length)


def broadcast_bytes(packed: bytes, prefix_len: int) -> bytes:
    """The IPv4 network's last address."""
    return (int.from_bytes(packed, "big") | (1 << (32 - prefix_len)) - 1).to_bytes(4, "big")


# --- requests


def add_address(index: int, address: str) -> Request:
    """`172.17.0.2/16` or `fd00::2/64`, usable at once: no duplicate address detection. Raises ValueError."""
    family, packed, prefix_len = interface_address_bytes(address)
    body = IFADDRMSG.pack(family, prefix_len, 0, RT_SCOPE_UNIVERSE, index)
    body += attribute(IFA_LOCAL, packed) + attribute(IFA_ADDRESS, packed)
    if family == socket.AF_INET6:
        body += attribute_u32(IFA_FLAGS, IFA_F_NODAD)
    elif prefix_len < 31:
        body += attribute(IFA_BROADCAST, broadcast_bytes(packed, prefix_len))
    what = f"add address {address} to network device {index}"
    return Request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, body, what)


def delete_address(index: int, address: str) -> Request:
    """Raises ValueError."""
    family, packed, prefix_len = interface_address_bytes(address)
    body = IFADDRMSG.pack(family, prefix_len, 0, RT_SCOPE_UNIVERSE, index) + attribute(IFA_LOCAL, packed)
    return Request(RTM_DELADDR, 0, body, f"delete address {address} of network device {index}")


def everything(kind: int) -> Request:
    """All of RTM_GETADDR, or of RTM_GETROUTE, in every table and both families."""
    if kind == RTM_GETADDR:
        return Request(kind, 0, IFADDRMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0), "list addresses")
    return Request(kind, 0, RTMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0, 0, 0, 0, 0), "list routes")


def add_route(index: int, destination: str, gateway: str, metric: int = 0) -> Request:
    """Send what goes to `destination` (a network with prefix length) out by device `index`, to `gateway` if any.

    Among routes to one destination the one with the least metric holds; 0 is the kernel's choice. Raises ValueError.
    """
    body = route_body(index, destination, gateway) + (attribute_u32(RTA_PRIORITY, metric) if metric else b"")
    return Request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, body, f"add {name_of(destination, gateway)}")


def delete_route(index: int, destination: str, gateway: str) -> Request:
    """Raises ValueError."""
    return Request(RTM_DELROUTE, 0, route_body(index, destination, gateway), f"delete {name_of(destination, gateway)}")


def default_of(gateway: str) -> str:
    """The destination of a default route by `gateway`."""
    return "::/0" if ":" in gateway else "0.0.0.0/0"


def name_of(destination: str, gateway: str) -> str:
    name = "default route" if destination in ("0.0.0.0/0", "::/0") else f"route to {destination}"
    return f"{name} by {gateway}" if gateway else name


def route_body(index: int, destination: str, gateway: str) -> bytes:
    family, packed, length = interface_address_bytes(destination)
    # An IPv4 route without a gateway reaches neighbours only, and the kernel wants to be told; IPv6 has no scopes here.
    scope = RT_SCOPE_UNIVERSE if gateway or family == socket.AF_INET6 else RT_SCOPE_LINK
    body = RTMSG.pack(family, length, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, scope, RTN_UNICAST, 0)
    if length:
        body += attribute(RTA_DST, packed)
    if gateway:
        gateway_family, packed_gateway = address_bytes(gateway)
        if gateway_family != family:
            raise ValueError(f"{gateway} is no gateway to {destination}: one is IPv4, the other IPv6")
        body += attribute(RTA_GATEWAY, packed_gateway)
    return body + attribute_u32(RTA_OIF, index)


# --- answers


def parse_address(payload: memoryview) -> Address:
    family, prefix_len, _, _, index = IFADDRMSG.unpack_from(payload)
    found = attributes(payload[IFADDRMSG.size :])
    # On a point-to-point link IFA_ADDRESS is the other side; IFA_LOCAL, where present, is ours.
    return Address(index, ip_text(family, found.get(IFA_LOCAL, found.get(IFA_ADDRESS))), prefix_len)


def parse_route(payload: memoryview) -> Route:
    family, prefix_len, _, _, table, *_ = RTMSG.unpack_from(payload)
    found = attributes(payload[RTMSG.size :])
    destination = ip_text(family, found.get(RTA_DST)) or ("::" if family == socket.AF_INET6 else "0.0.0.0")  # noqa: S104
    return Route(
        destination=f"{destination}/{prefix_len}",
        gateway=ip_text(family, found.get(RTA_GATEWAY)),
        index=u32_of(found.get(RTA_OIF)),
        table=u32_of(found.get(RTA_TABLE)) or table,
    )


def ip_text(family: int, data: memoryview | None) -> str:
    return socket.inet_ntop(family, data) if data else ""
