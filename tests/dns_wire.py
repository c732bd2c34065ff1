"""DNS messages for tests, written and read without the code under test."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass, field
from ipaddress import ip_address

A, PTR, MX, TXT, AAAA, SRV, OPT, HTTPS, ANY = 1, 12, 15, 16, 28, 33, 41, 65, 255
RD = 0x0100


def encode_name(name: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".") if label) + b"\0"


def opt(size: int, version: int = 0, flags: int = 0) -> bytes:
    return b"\0" + struct.pack("!HHBBHH", OPT, size, 0, version, flags, 0)


def question(
    name: str, kind: int = A, *, ident: int = 0x1234, flags: int = RD, edns: bytes = b"", qclass: int = 1
) -> bytes:
    counts = (1, 0, 0, 1 if edns else 0)
    return struct.pack("!6H", ident, flags, *counts) + encode_name(name) + struct.pack("!HH", kind, qclass) + edns


@dataclass
class Reply:
    ident: int
    rcode: int
    flags: set[str]
    question: list[tuple[str, int]] = field(default_factory=list)
    answers: list[tuple[str, int, int, str]] = field(default_factory=list)
    """Name, type, time to live, data."""
    edns: tuple[int, int, int, int] | None = None
    """Size, extended rcode, version, flags."""


FLAGS = {"qr": 0x8000, "aa": 0x400, "tc": 0x200, "rd": 0x100, "ra": 0x80, "ad": 0x20, "cd": 0x10}


def read_name(data: bytes, position: int) -> tuple[str, int]:
    labels, end = [], 0
    while data[position]:
        if data[position] >= 0xC0:
            end = end or position + 2
            position = struct.unpack_from("!H", data, position)[0] & 0x3FFF
            continue
        length = data[position]
        labels.append(data[position + 1 : position + 1 + length].decode())
        position += length + 1
    return ".".join(labels), end or position + 1


def read(data: bytes) -> Reply:
    ident, flags, *counts = struct.unpack_from("!6H", data)
    reply = Reply(ident, flags & 15, {name for name, bit in FLAGS.items() if flags & bit})
    position = 12
    for _ in range(counts[0]):
        name, position = read_name(data, position)
        reply.question.append((name, struct.unpack_from("!H", data, position)[0]))
        position += 4
    for _ in range(sum(counts[1:])):
        name, position = read_name(data, position)
        kind, size, ttl, length = struct.unpack_from("!HHIH", data, position)
        position += 10
        body = data[position : position + length]
        assert len(body) == length
        if kind == OPT:
            reply.edns = (size, ttl >> 24, ttl >> 16 & 255, ttl & 0xFFFF)
        elif kind == PTR:
            reply.answers.append((name, kind, ttl, read_name(data, position)[0]))
        else:
            reply.answers.append((name, kind, ttl, str(ip_address(body))))
        position += length
    assert position == len(data)
    return reply


def ask(
    data: bytes, sock: socket.socket, address: tuple[str, int] = ("127.0.0.11", 53), timeout_s: float = 10.0
) -> bytes:
    """Send a question by a socket of the right namespace, UDP or TCP; the reply."""
    sock.settimeout(timeout_s)
    if sock.type == socket.SOCK_DGRAM:
        sock.connect(address)
        sock.send(data)
        return sock.recv(65535)
    sock.connect(address)
    sock.sendall(struct.pack("!H", len(data)) + data)
    return receive(sock)


def receive(sock: socket.socket) -> bytes:
    def exactly(count: int) -> bytes:
        got = b""
        while len(got) < count:
            more = sock.recv(count - len(got))
            if not more:
                raise EOFError
            got += more
        return got

    return exactly(struct.unpack("!H", exactly(2))[0])
