"""Links, addresses and routes of a network namespace through rtnetlink (rtnetlink(7), netlink(7)).

Loaded into the zygote: `socket` and `struct` only. A socket belongs to the network namespace it was opened in and stays
there when the process moves on, so an init that leaves the host's namespace keeps its way back:

    host = NetlinkSocket()                   # in the host's namespace
    unshare(CLONE_NEWNET)
    with NetlinkSocket() as inside:          # in its own
        inside.set_loopback_up()
        add_interface(host, inside, netns_fd=netns_fd, interface=interface)

Every refusal is an OSError whose text carries the operation, its object and the kernel's own words.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import Protocol

from pier.kernel.nlmsg import (
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_EXCL,
    U32,
    Channel,
    attribute,
    attribute_u32,
    attributes,
    nested,
)

__all__ = ["Address", "Link", "NetlinkSocket", "Route", "VethPair", "add_interface"]

# linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h, linux/veth.h
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_GETROUTE = 24, 26
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_MASTER, IFLA_LINKINFO, IFLA_NET_NS_FD = 1, 3, 4, 10, 18, 28
IFLA_EXT_MASK = 29
IFLA_INFO_KIND, IFLA_INFO_DATA, IFLA_INFO_SLAVE_KIND, IFLA_INFO_SLAVE_DATA = 1, 2, 4, 5
IFLA_BRPORT_MODE = 4
VETH_INFO_PEER = 1
RTEXT_FILTER_SKIP_STATS = 1 << 3
IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_FLAGS = 1, 2, 4, 8
IFA_F_NODAD = 0x02
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_TABLE = 1, 4, 5, 15
RT_TABLE_MAIN = 254
RTPROT_BOOT = 3
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK = 0, 253
RTN_UNICAST = 1
IFF_UP = 0x1

IFNAMSIZ = 16
LOOPBACK_IFINDEX = 1
"""The loopback's index in every network namespace (include/net/flow.h)."""

IFINFOMSG = struct.Struct("=BxHiII")  # family, type, index, flags, change
IFADDRMSG = struct.Struct("=BBBBI")  # family, prefixlen, flags, scope, index
RTMSG = struct.Struct("=BBBBBBBBI")  # family, dst_len, src_len, tos, table, protocol, scope, type, flags


@dataclass(frozen=True, slots=True)
class Link:
    """One network device as this namespace sees it."""

    index: int
    name: str
    kind: str
    """`bridge`, `veth`, …; empty for loopback and physical devices."""
    master: int
    """Index of the bridge it is a port of; 0: none."""
    mtu: int
    mac: str
    """Lower-case, `02:42:ac:11:00:02`; empty where the device has none."""
    up: bool


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


@dataclass(frozen=True, slots=True)
class VethPair:
    """A host end that is a port of a bridge, and its peer in another network namespace."""

    host_name: str
    bridge: int
    """The bridge's index."""
    peer_name: str
    peer_mac: str
    peer_netns_fd: int
    mtu: int


class InterfaceLike(Protocol):
    """What `add_interface` reads; `pier.runtime.request.Interface` is one."""

    @property
    def name(self) -> str: ...
    @property
    def host_name(self) -> str: ...
    @property
    def bridge(self) -> str: ...
    @property
    def mac(self) -> str: ...
    @property
    def addresses(self) -> list[str]: ...
    @property
    def gateways(self) -> list[str]: ...
    @property
    def mtu(self) -> int: ...


# --- wire format: pure functions


def name_attribute(name: str) -> bytes:
    """IFLA_IFNAME; raises ValueError for a name the kernel would cut or refuse."""
    encoded = name.encode()
    if not 0 < len(encoded) < IFNAMSIZ or b"/" in encoded or b"\0" in encoded:
        raise ValueError(f"{name!r} is not a network device name of 1 to {IFNAMSIZ - 1} bytes")
    return attribute(IFLA_IFNAME, encoded + b"\0")


def mac_bytes(mac: str) -> bytes:
    """Six bytes of `02:42:ac:11:00:02`; raises ValueError."""
    packed = bytes.fromhex(mac.replace(":", ""))
    if len(packed) != 6:
        raise ValueError(f"{mac!r} is not an Ethernet address")
    return packed


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


def veth_request(pair: VethPair) -> bytes:
    """Body of the RTM_NEWLINK that makes both ends, places the peer and joins the host end to its bridge, up."""
    mtu = attribute_u32(IFLA_MTU, pair.mtu)
    peer = (
        IFINFOMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
        + name_attribute(pair.peer_name)
        + attribute(IFLA_ADDRESS, mac_bytes(pair.peer_mac))
        + mtu
        + attribute_u32(IFLA_NET_NS_FD, pair.peer_netns_fd)
    )
    return (
        IFINFOMSG.pack(socket.AF_UNSPEC, 0, 0, IFF_UP, IFF_UP)
        + name_attribute(pair.host_name)
        + mtu
        + attribute_u32(IFLA_MASTER, pair.bridge)
        + nested(
            IFLA_LINKINFO,
            attribute(IFLA_INFO_KIND, b"veth"),
            nested(IFLA_INFO_DATA, attribute(VETH_INFO_PEER, peer)),
        )
    )


def parse_link(payload: memoryview) -> Link:
    _, _, index, flags, _ = IFINFOMSG.unpack_from(payload)
    found = attributes(payload[IFINFOMSG.size :])
    info = attributes(found.get(IFLA_LINKINFO, memoryview(b"")))
    return Link(
        index=index,
        name=text_of(found.get(IFLA_IFNAME)),
        kind=text_of(info.get(IFLA_INFO_KIND)),
        master=u32_of(found.get(IFLA_MASTER)),
        mtu=u32_of(found.get(IFLA_MTU)),
        mac=bytes(found.get(IFLA_ADDRESS, b"")).hex(":"),
        up=bool(flags & IFF_UP),
    )


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


def text_of(data: memoryview | None) -> str:
    return bytes(data).rstrip(b"\0").decode(errors="replace") if data is not None else ""


def u32_of(data: memoryview | None) -> int:
    return int(U32.unpack(data)[0]) if data is not None else 0


def ip_text(family: int, data: memoryview | None) -> str:
    return socket.inet_ntop(family, data) if data else ""


# --- the socket


class NetlinkSocket(Channel):
    """A NETLINK_ROUTE socket in the network namespace of the thread that makes it; for one thread at a time.

    A request that the kernel does not answer within `timeout_s` raises TimeoutError.
    """

    def __init__(self, timeout_s: float = 10.0) -> None:
        super().__init__(socket.NETLINK_ROUTE, timeout_s)

    # devices

    def link_index(self, name: str) -> int:
        """The index of a device; OSError ENODEV when there is none of that name."""
        body = IFINFOMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + name_attribute(name)
        body += attribute_u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)
        index = 0
        for payload in self.exchange(RTM_GETLINK, NLM_F_ACK, body, f"find network device {name}"):
            index = IFINFOMSG.unpack_from(payload)[2]
        return index

    def create_bridge(self, name: str, *, mac: str, mtu: int = 1500) -> None:
        """Make a bridge, down, whose MAC does not change with its ports. EEXIST when `name` is taken."""
        body = (
            IFINFOMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
            + name_attribute(name)
            + attribute(IFLA_ADDRESS, mac_bytes(mac))
            + attribute_u32(IFLA_MTU, mtu)
            + nested(IFLA_LINKINFO, attribute(IFLA_INFO_KIND, b"bridge"))
        )
        self.do(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"create bridge {name}")

    def create_veth(self, pair: VethPair) -> None:
        """Make a veth pair in one request: host end up and on its bridge, peer in its own namespace, down.

        EEXIST when either name is taken, EXFULL when the bridge has 1,023 ports already.
        """
        self.do(
            RTM_NEWLINK,
            NLM_F_CREATE | NLM_F_EXCL,
            veth_request(pair),
            f"create veth pair {pair.host_name}, {pair.peer_name}",
        )

    def set_hairpin(self, name: str) -> None:
        """Let a bridge port send a frame back where it came from.

        Needed where br_netfilter translates addresses inside the bridge: a container reaching its own published port.
        """
        # Changes a device that exists: NEWLINK without CREATE is the only message that takes a port's settings by name.
        body = (
            IFINFOMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
            + name_attribute(name)
            + nested(
                IFLA_LINKINFO,
                attribute(IFLA_INFO_SLAVE_KIND, b"bridge"),
                nested(IFLA_INFO_SLAVE_DATA, attribute(IFLA_BRPORT_MODE, b"\1")),
            )
        )
        self.do(RTM_NEWLINK, 0, body, f"set hairpin mode of bridge port {name}")

    def set_up(self, index: int) -> None:
        self._set(index, IFF_UP, b"", f"set network device {index} up")

    def set_loopback_up(self) -> None:
        """Set `lo` of this socket's namespace up, which gives it 127.0.0.1/8 and ::1/128."""
        self._set(LOOPBACK_IFINDEX, IFF_UP, b"", "set lo up")

    def set_mac(self, index: int, mac: str) -> None:
        self._set(index, 0, attribute(IFLA_ADDRESS, mac_bytes(mac)), f"set network device {index} to MAC {mac}")

    def set_mtu(self, index: int, mtu: int) -> None:
        self._set(index, 0, attribute_u32(IFLA_MTU, mtu), f"set network device {index} to MTU {mtu}")

    def delete_link(self, index: int) -> None:
        """Delete a device. Blocks about 20 ms for a veth: let those die with their namespace instead."""
        body = IFINFOMSG.pack(socket.AF_UNSPEC, 0, index, 0, 0)
        self.do(RTM_DELLINK, 0, body, f"delete network device {index}")

    # addresses and routes

    def add_address(self, index: int, address: str) -> None:
        """Give a device `172.17.0.2/16` or `fd00::2/64`, usable at once (no duplicate address detection).

        EEXIST when the device has it already.
        """
        family, packed, prefix_len = interface_address_bytes(address)
        body = IFADDRMSG.pack(family, prefix_len, 0, RT_SCOPE_UNIVERSE, index)
        body += attribute(IFA_LOCAL, packed) + attribute(IFA_ADDRESS, packed)
        if family == socket.AF_INET6:
            body += attribute_u32(IFA_FLAGS, IFA_F_NODAD)
        elif prefix_len < 31:
            body += attribute(IFA_BROADCAST, broadcast_bytes(packed, prefix_len))
        self.do(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, body, f"add address {address} to network device {index}")

    def delete_address(self, index: int, address: str) -> None:
        family, packed, prefix_len = interface_address_bytes(address)
        body = IFADDRMSG.pack(family, prefix_len, 0, RT_SCOPE_UNIVERSE, index) + attribute(IFA_LOCAL, packed)
        self.do(RTM_DELADDR, 0, body, f"delete address {address} of network device {index}")

    def add_default_route(self, index: int, gateway: str) -> None:
        """Send everything without a better route through `gateway`, a neighbour on device `index`."""
        family, packed = address_bytes(gateway)
        body = RTMSG.pack(family, 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, RT_SCOPE_UNIVERSE, RTN_UNICAST, 0)
        body += attribute(RTA_GATEWAY, packed) + attribute_u32(RTA_OIF, index)
        self.do(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, body, f"add default route by {gateway}")

    # listings

    def links(self) -> list[Link]:
        body = IFINFOMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
        body += attribute_u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)
        return [parse_link(payload) for payload in self.dump(RTM_GETLINK, body, "list network devices")]

    def addresses(self) -> list[Address]:
        body = IFADDRMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
        return [parse_address(payload) for payload in self.dump(RTM_GETADDR, body, "list addresses")]

    def routes(self) -> list[Route]:
        """The routes of every table and both families, those of local addresses included."""
        body = RTMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0, 0, 0, 0, 0)
        return [parse_route(payload) for payload in self.dump(RTM_GETROUTE, body, "list routes")]

    def _set(self, index: int, up_flags: int, attributes_: bytes, what: str) -> None:
        body = IFINFOMSG.pack(socket.AF_UNSPEC, 0, index, up_flags, up_flags) + attributes_
        self.do(RTM_SETLINK, 0, body, what)


def disable_ipv6(name: str) -> None:
    """Keep IPv6 off a device of the calling process's network namespace, router advertisements included."""
    try:
        with open(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6", "wb", buffering=0) as setting:
            setting.write(b"1")
    except FileNotFoundError:
        pass  # a kernel without IPv6


def add_interface(host: NetlinkSocket, inside: NetlinkSocket, *, netns_fd: int, interface: InterfaceLike) -> None:
    """Give a network namespace one interface on a host bridge, with its addresses and default routes, up.

    `host` was opened in the bridge's namespace, `inside` in the one that `netns_fd` names; the calling process is in
    the latter. An interface without an IPv6 address gets no IPv6 at all. A failure leaves at most the veth pair, which
    goes with the namespace.
    """
    host.create_veth(
        VethPair(
            host_name=interface.host_name,
            bridge=host.link_index(interface.bridge),
            peer_name=interface.name,
            peer_mac=interface.mac,
            peer_netns_fd=netns_fd,
            mtu=interface.mtu,
        )
    )
    host.set_hairpin(interface.host_name)
    if not any(":" in address for address in interface.addresses):
        disable_ipv6(interface.name)
    index = inside.link_index(interface.name)
    for address in interface.addresses:
        inside.add_address(index, address)
    inside.set_up(index)
    for gateway in interface.gateways:
        inside.add_default_route(index, gateway)
