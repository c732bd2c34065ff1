"""Forget tracked connections (ctnetlink: linux/netfilter/nfnetlink_conntrack.h).

A flow keeps the translation that its first packet got, or did not get, for as long as packets come. For UDP, where
nothing ends a flow, what was decided before a port was published would outlive the publishing.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Collection
from typing import TypeAlias

from pier.kernel.nfnetlink import NETLINK_NETFILTER, NFGENMSG
from pier.kernel.nlmsg import Channel, attribute, attribute_u32, attributes, nested

__all__ = ["forget_udp_flows"]

NFNL_SUBSYS_CTNETLINK = 1 << 8
IPCTNL_MSG_CT_GET, IPCTNL_MSG_CT_DELETE = NFNL_SUBSYS_CTNETLINK | 1, NFNL_SUBSYS_CTNETLINK | 2
CTA_TUPLE_ORIG, CTA_ID, CTA_FILTER = 1, 12, 25
CTA_TUPLE_PROTO = 2
CTA_PROTO_NUM, CTA_PROTO_DST_PORT = 1, 3
CTA_FILTER_ORIG_FLAGS, CTA_FILTER_REPLY_FLAGS = 1, 2
CTA_FILTER_FLAG_PROTO_NUM = 1 << 3
PORT = struct.Struct("!H")

Flow: TypeAlias = tuple[bytes, bytes]
"""A flow's original tuple and its id, as the kernel wrote them."""


FAMILIES = (socket.AF_INET, socket.AF_INET6)
LISTING = nested(
    CTA_TUPLE_ORIG, nested(CTA_TUPLE_PROTO, attribute(CTA_PROTO_NUM, bytes([socket.IPPROTO_UDP])))
) + nested(
    CTA_FILTER,
    attribute_u32(CTA_FILTER_ORIG_FLAGS, CTA_FILTER_FLAG_PROTO_NUM),
    attribute_u32(CTA_FILTER_REPLY_FLAGS, 0),
)
"""Of a dump of the UDP flows; kernels before 5.8 ignore the filter and answer with all flows."""


def udp_flow_to(payload: memoryview, ports: Collection[int]) -> Flow | None:
    """The flow in one message of a dump, where it is one of UDP to one of `ports`."""
    found = attributes(payload[NFGENMSG.size :])
    tuple_ = found.get(CTA_TUPLE_ORIG, memoryview(b""))
    protocol = attributes(attributes(tuple_).get(CTA_TUPLE_PROTO, memoryview(b"")))
    number, target = (bytes(protocol.get(kind, b"")) for kind in (CTA_PROTO_NUM, CTA_PROTO_DST_PORT))
    if number != bytes([socket.IPPROTO_UDP]) or PORT.unpack(target)[0] not in ports:
        return None
    return bytes(tuple_), bytes(found.get(CTA_ID, b""))


def forget_udp_flows(ports: Collection[int]) -> int:
    """Forget every UDP flow of this network namespace first sent to one of `ports`; returns how many there were.

    Takes as long as the kernel needs to walk its table, about 10 ms of 262,144 buckets. Raises OSError, as where the
    kernel has no connection tracking.
    """
    with Channel(NETLINK_NETFILTER) as channel:
        count = 0
        for family in FAMILIES:
            listed = channel.dump(IPCTNL_MSG_CT_GET, NFGENMSG.pack(family, 0, 0) + LISTING, "list UDP flows")
            flows = [udp_flow_to(payload, ports) for payload in listed]
            count += sum(forget(channel, family, flow) for flow in flows if flow is not None)
        return count


def forget(channel: Channel, family: int, flow: Flow) -> bool:
    """False when the flow has gone by itself."""
    tuple_, id_ = flow
    body = NFGENMSG.pack(family, 0, 0) + nested(CTA_TUPLE_ORIG, tuple_) + attribute(CTA_ID, id_)
    try:
        channel.do(IPCTNL_MSG_CT_DELETE, 0, body, "forget a UDP flow")
    except FileNotFoundError:
        return False
    return True
