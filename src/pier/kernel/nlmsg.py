"""Netlink messages and the socket that exchanges them with the kernel (netlink(7)); loaded into the zygote.

Requests are bytes made of attributes. A refusal is an OSError with the operation, its object and the kernel's words.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeVar

C = TypeVar("C", bound="Channel")

# linux/netlink.h
SOL_NETLINK = 270
NETLINK_CAP_ACK = 10
NETLINK_EXT_ACK = 11
NETLINK_GET_STRICT_CHK = 12
NLM_F_REQUEST = 0x01
NLM_F_ACK = 0x04
NLM_F_DUMP_INTR = 0x10
NLM_F_CAPPED = 0x100
NLM_F_ACK_TLVS = 0x200
NLM_F_EXCL = 0x200
NLM_F_DUMP = 0x300
NLM_F_CREATE = 0x400
NLMSG_ERROR = 2
NLMSG_DONE = 3
NLMSGERR_ATTR_MSG = 1
NLA_F_NESTED = 0x8000
NLA_TYPE_MASK = 0x3FFF

NLMSGHDR = struct.Struct("=IHHII")  # len, type, flags, seq, pid
NLATTR = struct.Struct("=HH")  # len, type
U16 = struct.Struct("=H")
U32 = struct.Struct("=I")
S32 = struct.Struct("=i")
TIMEVAL = struct.Struct("@ll")

RECEIVE_BYTES = 65536
"""More than the kernel ever puts into one datagram of a dump (32 KiB)."""
DUMP_ATTEMPTS = 10
"""A dump that the kernel marks as torn by a concurrent change is asked for again this often, in a second altogether."""
DUMP_PAUSE_S = 0.001
"""Before the second attempt, and twice as long before each further one: many devices are made or removed in a row."""


class Request(NamedTuple):
    """One message to the kernel, and what it does in words, for errors."""

    kind: int
    flags: int
    body: bytes
    what: str


def attribute(kind: int, payload: bytes) -> bytes:
    """One `struct nlattr` with its payload, padded to four bytes."""
    length = NLATTR.size + len(payload)
    return NLATTR.pack(length, kind) + payload + bytes(-length % 4)


def attribute_u16(kind: int, value: int) -> bytes:
    return attribute(kind, U16.pack(value))


def attribute_u32(kind: int, value: int) -> bytes:
    return attribute(kind, U32.pack(value))


def nested(kind: int, *attributes: bytes) -> bytes:
    return attribute(kind | NLA_F_NESTED, b"".join(attributes))


def attributes(data: memoryview) -> dict[int, memoryview]:
    """The attributes in `data` by type, the last of each; a malformed tail is ignored as the kernel does."""
    found: dict[int, memoryview] = {}
    header, start, end = NLATTR.size, 0, len(data)
    while end - start >= header:
        length, kind = NLATTR.unpack_from(data, start)
        if not header <= length <= end - start:
            break
        found[kind & NLA_TYPE_MASK] = data[start + header : start + length]
        start += length + (-length % 4)
    return found


def messages(data: memoryview) -> Iterator[tuple[int, int, int, memoryview]]:
    """(type, flags, sequence number, payload) of every message in one datagram."""
    while len(data) >= NLMSGHDR.size:
        length, kind, flags, sequence, _ = NLMSGHDR.unpack_from(data)
        if not NLMSGHDR.size <= length <= len(data):
            raise OSError(f"netlink: message of {length} bytes in a datagram with {len(data)} left")
        yield kind, flags, sequence, data[NLMSGHDR.size : length]
        data = data[length + (-length % 4) :]


def parse_error(flags: int, payload: memoryview) -> tuple[int, str]:
    """(errno, the kernel's explanation or "") of an NLMSG_ERROR; errno 0 is an acknowledgement."""
    code = -S32.unpack_from(payload)[0]
    if not flags & NLM_F_ACK_TLVS:
        return code, ""
    request_length = NLMSGHDR.unpack_from(payload, 4)[0]
    start = 4 + (NLMSGHDR.size if flags & NLM_F_CAPPED else request_length + (-request_length % 4))
    text = attributes(payload[start:]).get(NLMSGERR_ATTR_MSG, b"")
    return code, bytes(text).rstrip(b"\0").decode(errors="replace")


class Channel:
    """A netlink socket in the network namespace of the thread that makes it; for one thread at a time.

    A request that the kernel does not answer within `timeout_s` raises TimeoutError.
    """

    def __init__(self, protocol: int, timeout_s: float = 10.0) -> None:
        self._timeout_s = timeout_s
        self._sequence = 0
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        seconds, fraction = divmod(timeout_s, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, TIMEVAL.pack(int(seconds), int(fraction * 1e6)))
        for option in (NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK):
            self._socket.setsockopt(SOL_NETLINK, option, 1)

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def __enter__(self: C) -> C:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def do(self, kind: int, flags: int, body: bytes, what: str) -> None:
        """Send a request that has no answer but success; raises OSError, whose text begins with `what`."""
        for _ in self.exchange(kind, flags | NLM_F_ACK, body, what):
            pass

    def do_all(self, requests: Sequence[Request]) -> None:
        """Send requests in one datagram, at least one; the kernel goes through all of them whatever it refuses.

        Raises the first refusal.
        """
        first = self._number(len(requests))
        last = first + len(requests) - 1
        # What succeeds is passed over in silence but for the last, whose answer ends the wait.
        packets = [packet(item, at, NLM_F_ACK if at == last else 0) for at, item in enumerate(requests, first)]
        self._socket.sendto(b"".join(packets), (0, 0))
        deadline = time.monotonic() + self._timeout_s
        what = requests[-1].what
        refused: OSError | None = None
        sequence = 0
        while sequence != last:
            for answer, flags, sequence, payload in messages(self._receive(deadline, what)):
                if answer == NLMSG_ERROR and first <= sequence <= last and refused is None:
                    refused = refusal(*parse_error(flags, payload), requests[sequence - first].what)
        if refused is not None:
            raise refused

    def ask(self, request: Request) -> memoryview:
        """Send a request whose answer is one message; its payload. Raises OSError."""
        sequence = self._number(1)
        self._socket.sendto(packet(request, sequence), (0, 0))
        deadline = time.monotonic() + self._timeout_s
        while True:
            for answer, flags, answered, payload in messages(self._receive(deadline, request.what)):
                if answered == sequence:
                    if answer == NLMSG_ERROR:
                        raise_refusal(*parse_error(flags, payload), request.what)
                    return payload

    def dump(self, kind: int, body: bytes, what: str) -> list[memoryview]:
        """The payloads of a listing, consistent in itself; raises OSError, InterruptedError when it never was."""
        for attempt in range(DUMP_ATTEMPTS):
            try:
                return list(self.exchange(kind, NLM_F_DUMP, body, what))
            except InterruptedError:
                time.sleep(DUMP_PAUSE_S * 2**attempt)
        raise InterruptedError(f"{what}: the kernel's tables changed during each of {DUMP_ATTEMPTS} readings")

    def exchange(self, kind: int, flags: int, body: bytes, what: str) -> Iterator[memoryview]:
        """Send one request; yield the payloads of its answer until it is acknowledged or done.

        Raises OSError with the kernel's errno, TimeoutError, InterruptedError for a torn dump (after its last part).
        """
        sequence = self._number(1)
        self._socket.sendto(packet(Request(kind, flags, body, what), sequence), (0, 0))
        deadline = time.monotonic() + self._timeout_s
        torn = False
        while True:
            for answer, answer_flags, answer_sequence, payload in messages(self._receive(deadline, what)):
                if answer_sequence != sequence:
                    continue  # the late answer to a request that timed out
                torn = torn or bool(answer_flags & NLM_F_DUMP_INTR)
                if answer == NLMSG_ERROR:
                    raise_refusal(*parse_error(answer_flags, payload), what)
                    return
                if answer == NLMSG_DONE:
                    raise_refusal(-S32.unpack_from(payload)[0], "", what)
                    if torn:
                        raise InterruptedError(what)
                    return
                yield payload

    def _number(self, count: int) -> int:
        """The first of `count` sequence numbers, in a row, that no earlier request has had lately."""
        if self._sequence + count > 0xFFFFFFFF:
            self._sequence = 0
        self._sequence += count
        return self._sequence - count + 1

    def _receive(self, deadline: float, what: str) -> memoryview:
        """One datagram from the kernel; raises TimeoutError."""
        while time.monotonic() < deadline:
            try:
                data, _, flags, sender = self._socket.recvmsg(RECEIVE_BYTES)
            except BlockingIOError:
                break
            if flags & socket.MSG_TRUNC:
                raise OSError(f"{what}: an answer larger than {RECEIVE_BYTES} bytes")
            if sender[0] == 0:  # port 0 is the kernel
                return memoryview(data)
        raise TimeoutError(f"{what}: no answer from the kernel within {self._timeout_s:g} s")


def packet(request: Request, sequence: int, flags: int = 0) -> bytes:
    """One message, header and all; `flags` come to its own."""
    kind, own_flags, body, _ = request
    return NLMSGHDR.pack(NLMSGHDR.size + len(body), kind, own_flags | flags | NLM_F_REQUEST, sequence, 0) + body


def refusal(code: int, explanation: str, what: str) -> OSError | None:
    """The OSError for errno `code` (PermissionError, FileExistsError, …); None for 0."""
    if not code:
        return None
    reason = f"{os.strerror(code)}: {explanation}" if explanation else os.strerror(code)
    return OSError(code, f"{what}: {reason}")


def raise_refusal(code: int, explanation: str, what: str) -> None:
    """Raise `refusal`; nothing for 0."""
    error = refusal(code, explanation, what)
    if error is not None:
        raise error
