"""nf_tables by its own messages (linux/netfilter/nf_tables.h, nfnetlink(7)): tables, chains and rules as bytes.

For a network namespace that has no libnftables at hand, as a container's first process has not. Loaded into the zygote.
"""

from __future__ import annotations

import socket
import struct

from pier.kernel.nlmsg import (
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLMSG_ERROR,
    RECEIVE_BYTES,
    Request,
    attribute,
    messages,
    nested,
    packet,
    parse_error,
    raise_refusal,
)

__all__ = ["NETLINK_NETFILTER", "Filter", "commit"]

NETLINK_NETFILTER = 12
NLM_F_APPEND = 0x800
# linux/netfilter/nfnetlink.h
NFNL_SUBSYS_NFTABLES = 10
NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END = 0x10, 0x11
NFGENMSG = struct.Struct("!BBH")  # family, version, res_id
BATCH_EDGE = NFGENMSG.pack(socket.AF_UNSPEC, 0, NFNL_SUBSYS_NFTABLES)
"""The body of the messages that begin and end a batch."""
# linux/netfilter/nf_tables.h
NFT_MSG_NEWTABLE, NFT_MSG_GETTABLE, NFT_MSG_DELTABLE = 0, 1, 2
NFT_MSG_NEWCHAIN, NFT_MSG_NEWRULE = 3, 6
NFTA_LIST_ELEM = 1
NFTA_TABLE_NAME = 1
"""The name of the table is attribute 1 of every kind of message there is."""
NFTA_CHAIN_TABLE, NFTA_CHAIN_NAME, NFTA_CHAIN_HOOK, NFTA_CHAIN_TYPE = 1, 3, 4, 7
NFTA_HOOK_HOOKNUM, NFTA_HOOK_PRIORITY = 1, 2
NFTA_RULE_TABLE, NFTA_RULE_CHAIN, NFTA_RULE_EXPRESSIONS = 1, 2, 4
NFTA_EXPR_NAME, NFTA_EXPR_DATA = 1, 2
NFTA_DATA_VALUE = 1
NFTA_META_DREG, NFTA_META_KEY = 1, 2
NFTA_CMP_SREG, NFTA_CMP_OP, NFTA_CMP_DATA = 1, 2, 3
NFTA_IMMEDIATE_DREG, NFTA_IMMEDIATE_DATA = 1, 2
NFTA_PAYLOAD_DREG, NFTA_PAYLOAD_BASE, NFTA_PAYLOAD_OFFSET, NFTA_PAYLOAD_LEN = 1, 2, 3, 4
NFTA_PAYLOAD_SREG, NFTA_PAYLOAD_CSUM_TYPE, NFTA_PAYLOAD_CSUM_OFFSET = 5, 6, 7
NFT_REG_1 = 1
NFT_CMP_EQ = 0
NFT_META_IIF, NFT_META_OIF, NFT_META_L4PROTO = 4, 5, 16
NFT_PAYLOAD_NETWORK_HEADER, NFT_PAYLOAD_TRANSPORT_HEADER = 1, 2
NFT_PAYLOAD_CSUM_INET = 1
# linux/netfilter.h
NF_INET_LOCAL_IN, NF_INET_LOCAL_OUT = 1, 3


def kind_of(message: int) -> int:
    """An NFT_MSG_* as the type of a netlink message."""
    return NFNL_SUBSYS_NFTABLES << 8 | message


def be32(kind: int, value: int) -> bytes:
    """An attribute of nf_tables' numbers: network byte order."""
    return attribute(kind, struct.pack("!i", value))


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def expression(name: str, *data: bytes) -> bytes:
    return nested(NFTA_LIST_ELEM, text(NFTA_EXPR_NAME, name), nested(NFTA_EXPR_DATA, *data))


def is_equal(value: bytes) -> bytes:
    """Go on with the rule if the register holds `value`."""
    return expression(
        "cmp",
        be32(NFTA_CMP_SREG, NFT_REG_1),
        be32(NFTA_CMP_OP, NFT_CMP_EQ),
        nested(NFTA_CMP_DATA, attribute(NFTA_DATA_VALUE, value)),
    )


def meta_is(key: int, value: bytes) -> bytes:
    """What is known of the packet besides its bytes: NFT_META_*."""
    return expression("meta", be32(NFTA_META_KEY, key), be32(NFTA_META_DREG, NFT_REG_1)) + is_equal(value)


def header_is(base: int, offset: int, value: bytes) -> bytes:
    """The bytes at `offset` of a header (NFT_PAYLOAD_*_HEADER)."""
    loaded = expression(
        "payload",
        be32(NFTA_PAYLOAD_DREG, NFT_REG_1),
        be32(NFTA_PAYLOAD_BASE, base),
        be32(NFTA_PAYLOAD_OFFSET, offset),
        be32(NFTA_PAYLOAD_LEN, len(value)),
    )
    return loaded + is_equal(value)


def set_transport(offset: int, value: bytes, *, checksum: int) -> bytes:
    """Write `value` into the transport header and mend the checksum that stands at offset `checksum` of it."""
    chosen = expression(
        "immediate",
        be32(NFTA_IMMEDIATE_DREG, NFT_REG_1),
        nested(NFTA_IMMEDIATE_DATA, attribute(NFTA_DATA_VALUE, value)),
    )
    written = expression(
        "payload",
        be32(NFTA_PAYLOAD_SREG, NFT_REG_1),
        be32(NFTA_PAYLOAD_BASE, NFT_PAYLOAD_TRANSPORT_HEADER),
        be32(NFTA_PAYLOAD_OFFSET, offset),
        be32(NFTA_PAYLOAD_LEN, len(value)),
        be32(NFTA_PAYLOAD_CSUM_TYPE, NFT_PAYLOAD_CSUM_INET),
        be32(NFTA_PAYLOAD_CSUM_OFFSET, checksum),
    )
    return chosen + written


class Filter:
    """A table of filter chains of IPv4, as one transaction."""

    def __init__(self, table: str, *, afresh: bool = False) -> None:
        """EEXIST where one of that name is there, which is replaced with `afresh`: that takes the kernel 10 ms."""
        self._table = table
        self._messages: list[tuple[int, int, bytes]] = []
        name = text(NFTA_TABLE_NAME, table)
        if afresh:
            self._add(NFT_MSG_DELTABLE, 0, name)
        self._add(NFT_MSG_NEWTABLE, NLM_F_CREATE | NLM_F_EXCL, name)

    def chain(self, name: str, hook: int, priority: int) -> None:
        """A chain at a hook of the kernel's (NF_INET_*)."""
        place = nested(NFTA_CHAIN_HOOK, be32(NFTA_HOOK_HOOKNUM, hook), be32(NFTA_HOOK_PRIORITY, priority))
        body = text(NFTA_CHAIN_TABLE, self._table) + text(NFTA_CHAIN_NAME, name) + place
        self._add(NFT_MSG_NEWCHAIN, NLM_F_CREATE, body + text(NFTA_CHAIN_TYPE, "filter"))

    def rule(self, chain: str, *expressions: bytes) -> None:
        body = text(NFTA_RULE_TABLE, self._table) + text(NFTA_RULE_CHAIN, chain)
        self._add(
            NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, body + nested(NFTA_RULE_EXPRESSIONS, b"".join(expressions))
        )

    def batch(self) -> bytes:
        """The whole as the kernel takes it (`commit`)."""
        begin, end = message(NFNL_MSG_BATCH_BEGIN, 0, BATCH_EDGE), message(NFNL_MSG_BATCH_END, 0, BATCH_EDGE)
        # The end of a batch is not answered before Linux 6.10: the last message within it asks.
        *first, (kind, flags, body) = self._messages
        messages = [message(*item) for item in first] + [message(kind, flags | NLM_F_ACK, body)]
        return b"".join([begin, *messages, end])

    def _add(self, kind: int, flags: int, body: bytes) -> None:
        header = NFGENMSG.pack(socket.AF_INET, 0, 0)
        self._messages.append((kind_of(kind), flags, header + body))


def message(kind: int, flags: int, body: bytes) -> bytes:
    return packet(Request(kind, flags, body, ""), 1)


def commit(batch: bytes, what: str) -> None:
    """Have the kernel do all of a batch, or nothing, in this thread's network namespace.

    Raises OSError, whose text begins with `what`: EPROTONOSUPPORT, EOPNOTSUPP, EINVAL without nf_tables, EEXIST, ….
    """
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
    try:
        sock.sendto(batch, (0, 0))
        # The kernel has answered when sendto returns: a refusal for each message it did not like, else one ACK.
        for kind, flags, _, payload in messages(memoryview(sock.recv(RECEIVE_BYTES, socket.MSG_DONTWAIT))):
            if kind == NLMSG_ERROR:
                raise_refusal(*parse_error(flags, payload), what)
    finally:
        sock.close()
