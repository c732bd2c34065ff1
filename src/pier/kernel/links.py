"""Network devices in rtnetlink's words: what is asked of RTM_NEWLINK and its like, what RTM_GETLINK answers.

Pure functions; `kernel.netlink` sends what they make. Loaded into the zygote.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

from pier.kernel.nlmsg import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    U32,
    Request,
    attribute,
    attribute_u16,
    attribute_u32,
    attributes,
    nested,
)

__all__ = ["IPVLAN_FLAGS", "IPVLAN_MODES", "MACVLAN_MODES", "Child", "Link", "VethPair"]

# linux/rtnetlink.h, linux/if_link.h, linux/veth.h
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER = 1, 3, 4, 5, 10
IFLA_LINKINFO, IFLA_IFALIAS, IFLA_NET_NS_FD, IFLA_EXT_MASK = 18, 20, 28, 29
IFLA_INFO_KIND, IFLA_INFO_DATA, IFLA_INFO_SLAVE_KIND, IFLA_INFO_SLAVE_DATA = 1, 2, 4, 5
IFLA_BRPORT_MODE, IFLA_BRPORT_ISOLATED = 4, 33
IFLA_BR_NF_CALL_IPTABLES, IFLA_BR_NF_CALL_IP6TABLES = 36, 37
IFLA_MACVLAN_MODE = 1
IFLA_IPVLAN_MODE, IFLA_IPVLAN_FLAGS = 1, 2
IFLA_VLAN_ID = 1
VETH_INFO_PEER = 1
RTEXT_FILTER_SKIP_STATS = 1 << 3
IFF_UP = 0x1

MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
IPVLAN_MODES = {"l2": 0, "l3": 1, "l3s": 2}
IPVLAN_FLAGS = {"bridge": 0, "private": 1, "vepa": 2}

IFNAMSIZ = 16
LOOPBACK_IFINDEX = 1
"""The loopback's index in every network namespace (include/net/flow.h)."""

IFINFOMSG = struct.Struct("=BxHiII")  # family, type, index, flags, change


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
    alias: str = ""
    """What somebody wrote down about it (`ip link set dev … alias`)."""


@dataclass(frozen=True, slots=True)
class VethPair:
    """A host end that is a port of a bridge, and its peer in another network namespace."""

    host_name: str
    bridge: int
    """The bridge's index."""
    peer_name: str
    peer_mac: str
    """Empty: the kernel makes one up."""
    peer_netns_fd: int
    mtu: int


@dataclass(frozen=True, slots=True)
class Child:
    """A device on top of another one, in another network namespace."""

    kind: str
    """`macvlan` or `ipvlan`."""
    parent: int
    """Index of the device below, in the namespace of the socket."""
    name: str
    mac: str
    """Empty: the kernel's choice; always so for an ipvlan, which has its parent's."""
    netns_fd: int
    mtu: int
    mode: str = ""
    """A key of MACVLAN_MODES or IPVLAN_MODES; empty: `bridge`, `l2`."""
    flag: str = ""
    """A key of IPVLAN_FLAGS; empty: `bridge`."""


# --- pieces of a message


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


def mac_attribute(mac: str) -> bytes:
    """IFLA_ADDRESS; nothing where the kernel is to choose."""
    return attribute(IFLA_ADDRESS, mac_bytes(mac)) if mac else b""


def header(index: int = 0, flags: int = 0) -> bytes:
    """`struct ifinfomsg` that sets `flags` and leaves the others."""
    return IFINFOMSG.pack(socket.AF_UNSPEC, 0, index, flags, flags)


def kind_attribute(kind: str, *data: bytes) -> bytes:
    """IFLA_LINKINFO."""
    return nested(IFLA_LINKINFO, attribute(IFLA_INFO_KIND, kind.encode()), nested(IFLA_INFO_DATA, *data))


def port_attribute(*data: bytes) -> bytes:
    """IFLA_LINKINFO with settings of a bridge's port."""
    return nested(IFLA_LINKINFO, attribute(IFLA_INFO_SLAVE_KIND, b"bridge"), nested(IFLA_INFO_SLAVE_DATA, *data))


NO_STATISTICS = attribute_u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)


# --- requests


def find(name: str) -> Request:
    return Request(RTM_GETLINK, 0, header() + name_attribute(name) + NO_STATISTICS, f"find network device {name}")


def everything() -> Request:
    return Request(RTM_GETLINK, 0, header() + NO_STATISTICS, "list network devices")


def create(name: str, kind: str, *rest: bytes, flags: int = 0, data: bytes = b"", what: str = "") -> Request:
    """A new device; `rest` are more attributes, `data` those of its kind."""
    body = header(flags=flags) + name_attribute(name) + b"".join(rest) + kind_attribute(kind, data)
    return Request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, what or f"create {kind} {name}")


def create_veth(pair: VethPair) -> Request:
    """Both ends, the peer in its place, the host end joined to its bridge, up."""
    mtu = attribute_u32(IFLA_MTU, pair.mtu)
    peer = (
        header()
        + name_attribute(pair.peer_name)
        + mac_attribute(pair.peer_mac)
        + mtu
        + attribute_u32(IFLA_NET_NS_FD, pair.peer_netns_fd)
    )
    master = attribute_u32(IFLA_MASTER, pair.bridge)
    what = f"create veth pair {pair.host_name}, {pair.peer_name}"
    return create(pair.host_name, "veth", mtu, master, flags=IFF_UP, data=attribute(VETH_INFO_PEER, peer), what=what)


def create_pair(name: str, peer: str) -> Request:
    """Two veth devices of this namespace that lead to each other, down."""
    return create(name, "veth", data=attribute(VETH_INFO_PEER, header() + name_attribute(peer)))


def create_child(child: Child) -> Request:
    """The device on its parent, in the other namespace, down. Raises ValueError for a mode that does not exist."""
    place = attribute_u32(IFLA_LINK, child.parent), attribute_u32(IFLA_NET_NS_FD, child.netns_fd)
    mtu = attribute_u32(IFLA_MTU, child.mtu) if child.mtu else b""
    if child.kind == "macvlan":
        data = attribute_u32(IFLA_MACVLAN_MODE, number_of(MACVLAN_MODES, child.mode or "bridge", "macvlan mode"))
        return create(child.name, "macvlan", *place, mac_attribute(child.mac), mtu, data=data)
    if child.kind != "ipvlan":
        raise ValueError(f"{child.kind!r} is no kind of device that has a parent: macvlan and ipvlan are")
    data = attribute_u16(IFLA_IPVLAN_MODE, number_of(IPVLAN_MODES, child.mode or "l2", "ipvlan mode"))
    data += attribute_u16(IFLA_IPVLAN_FLAGS, number_of(IPVLAN_FLAGS, child.flag or "bridge", "ipvlan flag"))
    return create(child.name, "ipvlan", *place, mtu, data=data)


def create_vlan(name: str, parent: int, vlan_id: int) -> Request:
    """An 802.1q sub-interface of the device `parent`, up."""
    link = attribute_u32(IFLA_LINK, parent)
    return create(name, "vlan", link, flags=IFF_UP, data=attribute_u16(IFLA_VLAN_ID, vlan_id))


def set_isolated(name: str) -> Request:
    """Keep a bridge port from every other that is isolated too; the bridge itself, which is the host, it reaches."""
    body = header() + name_attribute(name) + port_attribute(attribute(IFLA_BRPORT_ISOLATED, b"\1"))
    return Request(RTM_NEWLINK, 0, body, f"isolate bridge port {name}")


def filter_inside(name: str) -> Request:
    """Let the IP firewall see what stays on a bridge (br_netfilter), whatever it does to other bridges."""
    data = [attribute(kind, b"\1") for kind in (IFLA_BR_NF_CALL_IPTABLES, IFLA_BR_NF_CALL_IP6TABLES)]
    body = header() + name_attribute(name) + kind_attribute("bridge", *data)
    return Request(RTM_NEWLINK, 0, body, f"filter inside of bridge {name}")


def set_hairpin(name: str, wanted: bool) -> Request:
    # Changes a device that exists: NEWLINK without CREATE is the only message that takes a port's settings by name.
    body = header() + name_attribute(name) + port_attribute(attribute(IFLA_BRPORT_MODE, bytes([wanted])))
    return Request(RTM_NEWLINK, 0, body, f"set hairpin mode of bridge port {name}")


def set_up(index: int) -> Request:
    what = "set lo up" if index == LOOPBACK_IFINDEX else f"set network device {index} up"
    return Request(RTM_SETLINK, 0, header(index, IFF_UP), what)


def set_mac(index: int, mac: str) -> Request:
    return Request(RTM_SETLINK, 0, header(index) + mac_attribute(mac), f"set network device {index} to MAC {mac}")


def set_alias(index: int, text: str) -> Request:
    """At most 255 bytes; empty: none."""
    body = header(index) + attribute(IFLA_IFALIAS, text.encode())
    return Request(RTM_SETLINK, 0, body, f"set the alias of network device {index}")


def set_mtu(index: int, mtu: int) -> Request:
    body = header(index) + attribute_u32(IFLA_MTU, mtu)
    return Request(RTM_SETLINK, 0, body, f"set network device {index} to MTU {mtu}")


def delete(index: int) -> Request:
    return Request(RTM_DELLINK, 0, header(index), f"delete network device {index}")


def number_of(numbers: dict[str, int], word: str, of: str) -> int:
    try:
        return numbers[word]
    except KeyError:
        raise ValueError(f"{word!r} is no {of}: {', '.join(numbers)} are") from None


# --- answers


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
        alias=text_of(found.get(IFLA_IFALIAS)),
    )


def text_of(data: memoryview | None) -> str:
    return bytes(data).rstrip(b"\0").decode(errors="replace") if data is not None else ""


def u32_of(data: memoryview | None) -> int:
    return int(U32.unpack(data)[0]) if data is not None else 0
