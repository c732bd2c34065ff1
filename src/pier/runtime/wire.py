"""Messages between daemon, zygote and monitors: one JSON object a SOCK_SEQPACKET packet, descriptors beside it.

A message too long for a packet travels in a sealed memfd, passed as the first descriptor.
"""

from __future__ import annotations

import array
import fcntl
import json
import os
import socket
from collections.abc import Sequence
from typing import Any

PACKET_MAX = 64 * 1024
"""Bytes of JSON in one packet; below the default socket buffer, so that a send is one skb."""
MESSAGE_MAX = 16 * 1024 * 1024
FDS_MAX = 250
"""SCM_MAX_FD is 253."""

CONTROL_MAX = socket.CMSG_SPACE(FDS_MAX * 4)

_MEMFD_MARK = b"\0memfd"
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE

Message = dict[str, Any]


def encode(message: Message) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()


def send(sock: socket.socket, message: Message, fds: Sequence[int] = ()) -> None:
    """Send one message; the receiver gets its own copies of `fds`. Raises OSError (BlockingIOError: peer is full)."""
    data = encode(message)
    if len(data) <= PACKET_MAX:
        _sendmsg(sock, data, fds)
        return
    memfd = sealed(data)
    try:
        _sendmsg(sock, _MEMFD_MARK, (memfd, *fds))
    finally:
        os.close(memfd)


def sealed(data: bytes) -> int:
    """A descriptor that holds `data` for good (memfd_create(2)), close-on-exec: for `read_sealed`."""
    memfd = os.memfd_create("pier-message", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(memfd, view) :]
        fcntl.fcntl(memfd, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(memfd)
        raise
    return memfd


def _sendmsg(sock: socket.socket, data: bytes, fds: Sequence[int]) -> None:
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    sock.sendmsg([data], ancillary, socket.MSG_NOSIGNAL)


Packet = tuple[bytes, list[tuple[int, int, bytes]]]
"""A packet as recvmsg(2) gives it: data and control messages."""


def receive_packet(sock: socket.socket, *, wait: bool = True) -> Packet:
    """The next packet, not looked into; its data is empty at end of file.

    Raises OSError, without `wait` BlockingIOError when there is none now.
    """
    flags = socket.MSG_CMSG_CLOEXEC | (0 if wait else socket.MSG_DONTWAIT)
    try:
        data, ancillary, _, _ = sock.recvmsg(PACKET_MAX, CONTROL_MAX, flags)
    except ConnectionResetError:
        # The peer ended without reading all that we said. It is told once, before what the peer said last (unix(7)).
        data, ancillary, _, _ = sock.recvmsg(PACKET_MAX, CONTROL_MAX, flags)
    return data, ancillary


def packet_fds(packet: Packet) -> list[int]:
    """The descriptors that came with a packet."""
    fds: list[int] = []
    for level, kind, payload in packet[1]:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds += memoryview(payload).cast("i")
    return fds


def receive(sock: socket.socket) -> tuple[Message, list[int]] | None:
    """The next message and its descriptors (close-on-exec), None at end of file.

    Raises OSError, ValueError for what is not a message (its descriptors are closed).
    """
    packet = receive_packet(sock)
    return decode(packet) if packet[0] else None


def decode(packet: Packet) -> tuple[Message, list[int]]:
    """The message in a packet, and its descriptors. Raises ValueError as `receive` does."""
    data, fds = packet[0], packet_fds(packet)
    try:
        if data == _MEMFD_MARK:
            data = read_sealed(fds.pop(0))
        message = json.loads(data)
        if not isinstance(message, dict):
            raise ValueError("a message is a JSON object")
    except (ValueError, IndexError, OSError) as error:
        for fd in fds:
            os.close(fd)
        raise ValueError(f"malformed message: {error}") from error
    return message, fds


def read_sealed(fd: int) -> bytes:
    """What `sealed` was given; `fd` is closed. Raises ValueError, OSError."""
    try:
        size = os.fstat(fd).st_size
        if size > MESSAGE_MAX:
            raise ValueError(f"a message of {size} bytes is over the limit of {MESSAGE_MAX}")
        return os.pread(fd, size, 0)
    finally:
        os.close(fd)


def pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
