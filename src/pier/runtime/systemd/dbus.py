"""A D-Bus connection of one thread: calls with their answers, and signals that come meanwhile.

For systemd alone, so no objects, introspection or descriptors. D-Bus Specification, "Authentication Protocol" and
"Message Bus Specification".
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from typing import Any

from pier.runtime.systemd import dbus_wire
from pier.runtime.systemd.dbus_wire import BadMessage, Message

TIMEOUT_S = 30.0
LINE_MAX = 1024
BUS = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")


class CallFailed(Exception):
    """The other side answered with an error: its D-Bus name, and its words."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text or name)
        self.name = name


class Connection:
    """One peer, or a bus. Every method raises OSError (TimeoutError after TIMEOUT_S) and BadMessage."""

    def __init__(self, path: str, *, bus: bool) -> None:
        """Connect to a socket and introduce ourselves; with `bus` a message bus's, else a peer's own."""
        self._serial = 0
        self._pending: list[Message] = []
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._deadline = time.monotonic() + TIMEOUT_S
        try:
            self._sock.connect(path)
            self._authenticate()
            if bus:
                self.call(*BUS, "Hello")
        except BaseException:
            self._sock.close()
            raise

    def close(self) -> None:
        self._sock.close()

    def call(
        self, destination: str, path: str, interface: str, member: str, signature: str = "", *arguments: Any
    ) -> list[Any]:
        """Call a method; returns what it answers. Raises CallFailed."""
        self._deadline = time.monotonic() + TIMEOUT_S
        self._serial += 1
        serial = self._serial
        self._send(
            dbus_wire.encode(
                Message(
                    dbus_wire.METHOD_CALL,
                    serial,
                    path=path,
                    interface=interface,
                    member=member,
                    destination=destination,
                    signature=signature,
                    body=arguments,
                )
            )
        )
        while True:
            message = self._receive()
            if message.reply_serial != serial or message.kind not in (dbus_wire.METHOD_RETURN, dbus_wire.ERROR):
                self._pending.append(message)
            elif message.kind == dbus_wire.ERROR:
                words = message.body[0] if message.signature.startswith("s") else ""
                raise CallFailed(message.error_name, words)
            else:
                return list(message.body)

    def forget_signals(self) -> None:
        """Drop what came unasked."""
        self._pending.clear()

    def wait_signal(self, interface: str, member: str, wanted: Callable[[list[Any]], bool]) -> list[Any]:
        """Wait for a signal whose values are `wanted`, among those since the last `forget_signals` too."""
        self._deadline = time.monotonic() + TIMEOUT_S
        while True:
            message = self._pending.pop(0) if self._pending else self._receive()
            if (message.kind, message.interface, message.member) == (dbus_wire.SIGNAL, interface, member):
                values = list(message.body)
                if wanted(values):
                    return values

    # --- bytes -------------------------------------------------------------------------------------------------------

    def _authenticate(self) -> None:
        """SASL EXTERNAL: the socket itself tells who we are; the name given is only compared.

        BEGIN goes with the first line: systemd's side leaves a message lying that it reads together with BEGIN, until
        something else arrives.
        """
        identity = str(os.geteuid()).encode().hex()
        self._send(f"\0AUTH EXTERNAL {identity}\r\nBEGIN\r\n".encode())
        answer = b""
        while not answer.endswith(b"\r\n"):
            if len(answer) > LINE_MAX:
                raise BadMessage("no D-Bus peer")
            answer += self._read(1)
        if not answer.startswith(b"OK "):
            raise BadMessage(f"the D-Bus peer refused us: {answer.decode(errors='replace').strip()}")

    def _receive(self) -> Message:
        head = self._read(dbus_wire.FIXED_HEADER)
        return dbus_wire.decode(head + self._read(dbus_wire.length(head) - len(head)))

    def _send(self, data: bytes) -> None:
        self._sock.settimeout(self._left())
        self._sock.sendall(data)

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            self._sock.settimeout(self._left())
            piece = self._sock.recv(count - len(data))
            if not piece:
                raise ConnectionResetError("the D-Bus peer closed the connection")
            data += piece
        return data

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"no answer in {TIMEOUT_S:.0f} s")
        return left
