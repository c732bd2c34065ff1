"""DNS messages as bytes (RFC 1035 section 4, RFC 6891): what a server that owns names and passes on questions needs.

A query is taken apart as far as its question and its EDNS; every record behind it is walked over, none is understood.
Nothing here follows a compression pointer: a question has none, and names in records need not be read.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

__all__ = ["Edns", "Malformed", "Query", "address_records", "parse_query", "pointer_record", "refusal", "reply"]

HEADER = struct.Struct("!6H")  # id, flags, and the number of questions, answers, authorities, additional records
IDENTITY = struct.Struct("!3H")
"""What a header begins with, as far as the questions."""
QUESTION = struct.Struct("!HH")  # type, class
RECORD = struct.Struct("!HHIH")  # type, class, time to live, length of the data
OPT_RECORD = struct.Struct("!BHHBBHH")  # root, type, payload size, extended rcode, version, flags, length of the data

QR, OPCODE, AA, TC, RD, RA, CD, RCODE = 0x8000, 0x7800, 0x0400, 0x0200, 0x0100, 0x0080, 0x0010, 0x000F
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 0, 1, 2, 3, 4, 5, 16
A, PTR, AAAA, OPT = 1, 12, 28, 41
IN = 1
DO = 0x8000

NAME_MAX = 255
LABEL_MAX = 63
POINTER = 0xC0
QUESTION_NAME = b"\xc0\x0c"
"""A pointer to the name in the question, which stands right behind the header."""
TTL_S = 600
"""Docker's."""
UDP_MIN = 512
"""What a client takes that says nothing else."""
UDP_MAX = 65507
"""What an IPv4 datagram holds."""
UDP_OURS = 4096
"""What we take."""
TCP_MAX = 65535


class Malformed(Exception):
    """What cannot be answered but by its header: the reply's code, or None where silence is the answer."""

    def __init__(self, rcode: int | None) -> None:
        super().__init__(rcode)
        self.rcode = rcode


class Edns(NamedTuple):
    """What a client says of itself in its OPT record."""

    udp_size: int
    version: int
    dnssec_ok: bool


class Query(NamedTuple):
    """One question."""

    id: int
    flags: int
    name: bytes
    """Lower case, labels joined by dots, no final dot. Empty for the root."""
    qtype: int
    qclass: int
    question: bytes
    """As it was sent, the letters' case included: a reply repeats it."""
    edns: Edns | None
    data: bytes
    """The whole, without what may have stood behind it."""

    @property
    def udp_max(self) -> int:
        """How long a reply over UDP may be."""
        return UDP_MIN if self.edns is None else min(max(UDP_MIN, self.edns.udp_size), UDP_MAX)


def parse_query(data: bytes) -> Query:
    """Raises Malformed."""
    if len(data) < HEADER.size:
        raise Malformed(None)
    ident, flags, questions, answers, authorities, additional = HEADER.unpack_from(data)
    if flags & QR:  # a reply to a reply may be answered in turn
        raise Malformed(None)
    if flags & OPCODE:
        raise Malformed(NOTIMP)
    if questions != 1 or answers > 1 or authorities > 1 or additional > 2:
        raise Malformed(FORMERR)
    try:
        name, end = question_name(data)
        qtype, qclass = QUESTION.unpack_from(data, end)
        end += QUESTION.size
        question = data[HEADER.size : end]
        edns = None
        for _ in range(answers + authorities + additional):
            found, end = walk_record(data, end)
            if found is not None:
                if edns is not None:
                    raise Malformed(FORMERR)  # RFC 6891 section 6.1.1
                edns = found
    except (IndexError, struct.error):
        raise Malformed(FORMERR) from None
    return Query(ident, flags, name, qtype, qclass, question, edns, data[:end])


def question_name(data: bytes) -> tuple[bytes, int]:
    """The name behind the header, and where it ends. Raises Malformed, IndexError.

    A label with a dot in it is not told from two labels by what is returned: no name of ours has one, and what is
    passed on is passed on as it came. So such a name is given with that dot as a zero byte.
    """
    labels = []
    position = HEADER.size
    while length := data[position]:
        if length > LABEL_MAX:
            raise Malformed(FORMERR)
        position += 1
        labels.append(data[position : position + length].replace(b".", b"\0"))
        position += length
    end = position + 1
    if end - HEADER.size > NAME_MAX:
        raise Malformed(FORMERR)
    return b".".join(labels).lower(), end


def walk_record(data: bytes, position: int) -> tuple[Edns | None, int]:
    """One record's end, and what it says if it is an OPT record. Raises Malformed, IndexError, struct.error."""
    start = position
    while (length := data[position]) and length <= LABEL_MAX:
        position += length + 1
    if length & POINTER == POINTER:
        position += 1
    elif length:
        raise Malformed(FORMERR)
    position += 1
    kind, size, lifetime, length = RECORD.unpack_from(data, position)
    end = position + RECORD.size + length
    if end > len(data):
        raise Malformed(FORMERR)
    if kind != OPT:
        return None, end
    if position != start + 1:
        raise Malformed(FORMERR)  # an OPT record's name is the root
    return Edns(size, lifetime >> 16 & 0xFF, bool(lifetime & DO)), end


# --- replies


def reply(query: Query, rcode: int = NOERROR, answers: Sequence[bytes] = (), *, limit: int = TCP_MAX) -> bytes:
    """Our own answer to a query; records that do not fit into `limit` bytes are left out, which TC tells."""
    opt = b"" if query.edns is None else own_opt(query.edns, rcode >> 4)
    room = limit - HEADER.size - len(query.question) - len(opt)
    body, count = b"".join(answers), len(answers)
    flags = QR | RA | query.flags & (RD | CD) | rcode & RCODE
    if len(body) > room:
        flags |= TC
        while len(body) > room:
            count -= 1
            body = b"".join(answers[:count])
    header = HEADER.pack(query.id, flags, 1, count, 0, 1 if opt else 0)
    return b"".join((header, query.question, body, opt))


def own_opt(edns: Edns, extended_rcode: int) -> bytes:
    return OPT_RECORD.pack(0, OPT, UDP_OURS, extended_rcode, 0, DO if edns.dnssec_ok else 0, 0)


def refusal(data: bytes, rcode: int) -> bytes:
    """The answer to what is no query of ours: a header alone."""
    ident, flags, *_ = HEADER.unpack_from(data)
    return HEADER.pack(ident, QR | flags & (OPCODE | RD) | rcode, 0, 0, 0, 0)


def truncated(query: Query) -> bytes:
    """An answer that tells the client to ask again over TCP."""
    header = HEADER.pack(query.id, QR | TC | RA | query.flags & (RD | CD), 1, 0, 0, 0)
    return header + query.question


A_RECORD = QUESTION_NAME + RECORD.pack(A, IN, TTL_S, 4)
AAAA_RECORD = QUESTION_NAME + RECORD.pack(AAAA, IN, TTL_S, 16)


def address_records(addresses: Sequence[bytes]) -> list[bytes]:
    """A records, or AAAA records, of the name in the question."""
    return [(A_RECORD if len(address) == 4 else AAAA_RECORD) + address for address in addresses]


def pointer_record(name: bytes) -> bytes | None:
    """A PTR record of the name in the question; None where `name` is none that DNS can say."""
    labels = name.split(b".")
    if not all(0 < len(label) <= LABEL_MAX for label in labels) or len(name) + 2 > NAME_MAX:
        return None
    data = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    return QUESTION_NAME + RECORD.pack(PTR, IN, TTL_S, len(data)) + data


# --- reverse look-ups

REVERSE4, REVERSE6 = b".in-addr.arpa", b".ip6.arpa"


def address_of(name: bytes) -> bytes | None:
    """The address that a reverse look-up's name stands for (RFC 1035 3.5, RFC 3596 2.5); None for other names."""
    try:
        if name.endswith(REVERSE4):
            octets = name.removesuffix(REVERSE4).split(b".")
            return IPv4Address(b".".join(reversed(octets)).decode()).packed
        if name.endswith(REVERSE6):
            nibbles = name.removesuffix(REVERSE6).split(b".")
            if len(nibbles) == 32 and all(len(nibble) == 1 for nibble in nibbles):
                return IPv6Address(bytes.fromhex(b"".join(reversed(nibbles)).decode())).packed
    except ValueError:
        return None
    return None


# --- what another server says


def is_reply_to(query: Query, ident: int, data: bytes) -> bool:
    """Whether a message is a reply to `query`, sent on as `ident`: right id, right question (RFC 5452 section 9.1)."""
    if len(data) < HEADER.size:
        return False
    got, flags, questions = IDENTITY.unpack_from(data)
    if got != ident or not flags & QR or flags & OPCODE:
        return False
    if questions == 0:  # as some servers refuse
        return bool(flags & RCODE)
    end = HEADER.size + len(query.question)
    asked, kind = query.question[: -QUESTION.size], query.question[-QUESTION.size :]
    name_end = end - QUESTION.size
    return bool(questions == 1) and data[HEADER.size : name_end].lower() == asked.lower() and data[name_end:end] == kind


def rcode_of(data: bytes) -> int:
    return data[3] & RCODE


def with_id(data: bytes, ident: int) -> bytes:
    return ident.to_bytes(2, "big") + data[2:]
