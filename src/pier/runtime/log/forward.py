"""A container's output on its way to a logging service of the host: syslog (RFC 3164, RFC 5424) or journald (its native
protocol, systemd.io/JOURNAL_NATIVE_PROTOCOL).

The monitor sends; a service that is away or does not keep up loses lines, and the program never waits for it: the lines
are in the container's own log all the same.
"""

from __future__ import annotations

import _socket
import contextlib
import os
import struct
import time
from collections.abc import Callable
from typing import Any

RETRY_S = 1.0
"""After a failure so long nothing is tried."""
STREAM_TIMEOUT_S = 0.2
"""How long a connection may take a batch; then it is closed."""
SEVERITY = {"stdout": 6, "stderr": 3}
"""Informational, error (RFC 5424, 6.2.1)."""


def lines_of(piece: bytes) -> list[bytes]:
    """The lines of a piece (`lines.cut`), without their newlines."""
    return (piece[:-1] if piece.endswith(b"\n") else piece).split(b"\n")


class Forward:
    """One container's way to its service."""

    def __init__(self, options: dict[str, Any]) -> None:
        address = options["address"]
        self._family, self._kind = options["family"], options["kind"]
        self._address = tuple(address) if isinstance(address, list) else address
        self._message = MESSAGES[options["driver"]](options)
        self._sock: _socket.socket | None = None
        self._not_before = 0.0

    def send(self, stream: str, piece: bytes, time_ns: int) -> None:
        """Send what was printed; never raises, never waits long."""
        if self._sock is None and not self._connect():
            return
        assert self._sock is not None
        messages = [self._message(stream, line, time_ns, not piece.endswith(b"\n")) for line in lines_of(piece)]
        try:
            if self._kind == _socket.SOCK_STREAM:
                self._sock.sendall(b"".join(messages))
                return
            for message in messages:
                with contextlib.suppress(BlockingIOError):
                    self._sock.send(message)
        except OSError:
            self.close()
            self._not_before = time.monotonic() + RETRY_S

    def _connect(self) -> bool:
        if time.monotonic() < self._not_before:
            return False
        sock = _socket.socket(self._family, self._kind | _socket.SOCK_CLOEXEC)
        sock.settimeout(STREAM_TIMEOUT_S if self._kind == _socket.SOCK_STREAM else 0)
        try:
            sock.connect(self._address)
        except OSError:
            sock.close()
            self._not_before = time.monotonic() + RETRY_S
            return False
        self._sock = sock
        return True

    def close(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None


Message = Callable[[str, bytes, int, bool], bytes]
"""(stream, line, time_ns, whether it is a part of a longer one) -> what is sent."""


def syslog(options: dict[str, Any]) -> Message:
    """Each line a message that ends in a newline, whatever carries it, as Docker sends it."""
    tag, hostname = options["tag"].encode(), options["hostname"].encode()
    pid, kind, priority = os.getpid(), options["format"], options["facility"] << 3

    def message(stream: str, line: bytes, time_ns: int, part: bool) -> bytes:
        number = priority | SEVERITY[stream]
        seconds, rest = divmod(time_ns, 10**9)
        if kind.startswith("rfc5424"):
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
            stamp += f".{rest // 1000:06}Z" if kind == "rfc5424micro" else "Z"
            head = b"<%d>1 %s %s %s %d %s - " % (number, stamp.encode(), hostname, tag, pid, tag)
        else:
            stamp = time.strftime("%b %e %H:%M:%S", time.localtime(seconds))
            host = hostname + b" " if kind == "rfc3164" else b""
            head = b"<%d>%s %s%s[%d]: " % (number, stamp.encode(), host, tag, pid)
        return head + line + b"\n"

    return message


def journald(options: dict[str, Any]) -> Message:
    """Each line an entry with the container's fields."""
    fixed = b"".join(field(key, value.encode()) for key, value in options["fields"].items())

    def message(stream: str, line: bytes, time_ns: int, part: bool) -> bytes:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time_ns // 10**9)) + f".{time_ns % 10**9:09}Z"
        found = (
            fixed
            + field("MESSAGE", line)
            + b"PRIORITY=%d\nSYSLOG_TIMESTAMP=%s\n"
            % (
                SEVERITY[stream],
                stamp.encode(),
            )
        )
        return found + b"CONTAINER_PARTIAL_MESSAGE=true\n" if part else found

    return message


def field(name: str, value: bytes) -> bytes:
    """One field: as text, or with its length in front where it is not one line."""
    if b"\n" in value:
        return name.encode() + b"\n" + struct.pack("<Q", len(value)) + value + b"\n"
    return name.encode() + b"=" + value + b"\n"


MESSAGES: dict[str, Callable[[dict[str, Any]], Message]] = {"syslog": syslog, "journald": journald}
