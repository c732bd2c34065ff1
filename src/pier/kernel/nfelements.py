"""Elements of nftables sets and maps, and names of tables, by nfnetlink itself (linux/netfilter/nf_tables.h).

libnftables reads what is there before it changes anything, so its cost grows with the table; here one message carries a
container's ports, whatever there is. What the elements mean is the set's own matter: a key is its parts in order, each
padded to four bytes, as nft lays out `ipv4_addr . inet_proto . inet_service`.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Literal, NamedTuple, TypeAlias

from pier.kernel.nfnetlink import (
    BATCH_EDGE,
    NETLINK_NETFILTER,
    NFGENMSG,
    NFNL_MSG_BATCH_BEGIN,
    NFNL_MSG_BATCH_END,
    NFT_MSG_GETTABLE,
    NFTA_DATA_VALUE,
    NFTA_LIST_ELEM,
    NFTA_TABLE_NAME,
    kind_of,
    text,
)
from pier.kernel.nlmsg import (
    NLM_F_ACK,
    NLM_F_CREATE,
    NLMSG_ERROR,
    Channel,
    Request,
    attribute,
    attributes,
    messages,
    nested,
    packet,
    parse_error,
    refusal,
)

__all__ = ["Elements", "Part", "SetElement"]

NFPROTO_INET = 1  # linux/netfilter.h
# linux/netfilter/nf_tables.h
NFT_MSG_NEWSETELEM, NFT_MSG_DELSETELEM = 12, 14
NFTA_SET_ELEM_LIST_TABLE, NFTA_SET_ELEM_LIST_SET, NFTA_SET_ELEM_LIST_ELEMENTS = 1, 2, 3
NFTA_SET_ELEM_KEY, NFTA_SET_ELEM_DATA = 1, 2
SO_SNDBUFFORCE = 32
PORT = struct.Struct("!Hxx")
PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP, "sctp": socket.IPPROTO_SCTP}
PER_MESSAGE = 400
"""A list of elements is one attribute, whose length has 16 bits."""
SEND_BYTES = 8 << 20
"""Room for the whole batch of a container that publishes every port there is."""

Part: TypeAlias = str | int
"""An address or a protocol's name; a port."""


class SetElement(NamedTuple):
    """One element of a set or map."""

    owner: str
    """The set's or map's name."""
    key: tuple[Part, ...]
    value: tuple[Part, ...] = ()
    """Empty for a set's."""


def pack(parts: Sequence[Part]) -> bytes:
    """The bytes of a concatenation; raises ValueError, OSError for what is no address."""
    return b"".join(pack_part(part) for part in parts)


def pack_part(part: Part) -> bytes:
    if isinstance(part, int):
        return PORT.pack(part)
    if part in PROTOCOLS:
        return bytes([PROTOCOLS[part], 0, 0, 0])
    return socket.inet_pton(socket.AF_INET6 if ":" in part else socket.AF_INET, part)


def element_attribute(element: SetElement, *, with_value: bool) -> bytes:
    key = nested(NFTA_SET_ELEM_KEY, attribute(NFTA_DATA_VALUE, pack(element.key)))
    if not (with_value and element.value):
        return nested(NFTA_LIST_ELEM, key)
    return nested(NFTA_LIST_ELEM, key, nested(NFTA_SET_ELEM_DATA, attribute(NFTA_DATA_VALUE, pack(element.value))))


def element_requests(verb: Literal["add", "delete"], table: str, elements: Iterable[SetElement]) -> list[Request]:
    """Messages that add or delete elements of the table `inet TABLE`; those of one set share a message."""
    message, flags = (NFT_MSG_NEWSETELEM, NLM_F_CREATE) if verb == "add" else (NFT_MSG_DELSETELEM, 0)
    kind = kind_of(message)
    found = []
    for owner, group in groupby(sorted(elements, key=lambda item: item.owner), key=lambda item: item.owner):
        mine = [element_attribute(element, with_value=verb == "add") for element in group]
        head = text(NFTA_SET_ELEM_LIST_TABLE, table) + text(NFTA_SET_ELEM_LIST_SET, owner)
        for first in range(0, len(mine), PER_MESSAGE):
            body = NFGENMSG.pack(NFPROTO_INET, 0, 0) + head
            body += nested(NFTA_SET_ELEM_LIST_ELEMENTS, *mine[first : first + PER_MESSAGE])
            found.append(Request(kind, flags, body, f"{verb} elements of {owner} in nftables table inet {table}"))
    return found


def frame(kind: int, what: str) -> Request:
    """The beginning or end of a batch."""
    return Request(kind, 0, BATCH_EDGE, what)


class Elements(Channel):
    """Changes elements, all of a call or none. In the network namespace of the making thread; for one thread at a time.

    Every refusal is an OSError: ENOENT where table, set or element is not there, EEXIST where a key has another value.
    """

    def __init__(self, timeout_s: float = 10.0) -> None:
        super().__init__(NETLINK_NETFILTER, timeout_s)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, SEND_BYTES)

    def add(self, table: str, elements: Sequence[SetElement]) -> None:
        """Those that are there already, with the same value, are no error."""
        self._batch(element_requests("add", table, elements))

    def delete(self, table: str, elements: Sequence[SetElement]) -> None:
        self._batch(element_requests("delete", table, elements))

    def tables(self) -> list[str]:
        """The names of the tables of family `inet`; libnftables would read all that is in them first."""
        body = NFGENMSG.pack(NFPROTO_INET, 0, 0)
        listed = self.dump(kind_of(NFT_MSG_GETTABLE), body, "list nftables tables")
        names = [attributes(payload[NFGENMSG.size :]).get(NFTA_TABLE_NAME, b"") for payload in listed]
        return [bytes(name).rstrip(b"\0").decode(errors="replace") for name in names]

    def _batch(self, requests: Sequence[Request]) -> None:
        """One transaction (nfnetlink's batch); raises OSError with the first refusal."""
        if not requests:
            return
        what = requests[-1].what
        # Only the last is acknowledged: by then the kernel has committed, or told of every refusal before.
        last = requests[-1]._replace(flags=requests[-1].flags | NLM_F_ACK)
        framed = [frame(NFNL_MSG_BATCH_BEGIN, what), *requests[:-1], last, frame(NFNL_MSG_BATCH_END, what)]
        first = self._number(len(framed))
        self._socket.sendto(b"".join(packet(item, number) for number, item in enumerate(framed, first)), (0, 0))
        deadline = time.monotonic() + self._timeout_s
        refused: OSError | None = None
        answered = False
        while not answered:
            for kind, flags, number, payload in messages(self._receive(deadline, what)):
                if kind != NLMSG_ERROR or not first <= number < first + len(framed):
                    continue
                refused = refused or refusal(*parse_error(flags, payload), framed[number - first].what)
                # What is told of the beginning is told of the whole.
                answered = answered or number in (first, first + len(framed) - 2)
        if refused is not None:
            raise refused
