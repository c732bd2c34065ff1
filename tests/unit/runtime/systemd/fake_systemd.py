"""A peer that speaks D-Bus as systemd's own socket does: it records calls, and answers what it is told to."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pier.runtime.systemd import dbus_wire
from pier.runtime.systemd.dbus_wire import ERROR, METHOD_RETURN, SIGNAL, Message, Variant

MANAGER = "org.freedesktop.systemd1.Manager"
JOB = "/org/freedesktop/systemd1/job/7"

Answer = Callable[["FakeSystemd", Message], list[Message]]


def returns(signature: str = "", *values: Any) -> Message:
    return Message(METHOD_RETURN, 0, signature=signature, body=values)


def refuses(name: str, text: str) -> Message:
    return Message(ERROR, 0, error_name=f"org.freedesktop.{name}", signature="s", body=[text])


def job_removed(unit: str, result: str = "done", job: str = JOB) -> Message:
    return Message(
        SIGNAL,
        0,
        path="/org/freedesktop/systemd1",
        interface=MANAGER,
        member="JobRemoved",
        signature="uoss",
        body=[7, job, unit, result],
    )


@dataclass
class FakeSystemd:
    """What it was asked (`calls`), and what it says: by member, a list of answers of which the last is repeated."""

    path: Path
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    calls: list[Message] = field(default_factory=list)
    auth: list[bytes] = field(default_factory=list)
    rejects: bool = False

    @property
    def sockets(self) -> list[tuple[str, bool]]:
        return [(str(self.path), False)]

    def called(self, member: str) -> list[Message]:
        return [call for call in self.calls if call.member == member]

    def serve(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            with sock, sock.makefile("rb") as reader, contextlib.suppress(OSError, dbus_wire.BadMessage):
                self._serve_one(sock, reader)

    def _serve_one(self, sock: socket.socket, reader: Any) -> None:
        while True:
            line = reader.readline()
            self.auth.append(line)
            if self.rejects and line != b"BEGIN\r\n":
                sock.sendall(b"REJECTED EXTERNAL\r\n")
            elif line == b"\0AUTH EXTERNAL\r\n":
                sock.sendall(b"DATA\r\n")  # the identity is to follow
            elif line.startswith((b"\0AUTH EXTERNAL ", b"DATA")):
                sock.sendall(b"OK 0123456789abcdef0123456789abcdef\r\n")
            elif line == b"BEGIN\r\n":
                break
            elif not line:
                return
            else:
                sock.sendall(b"ERROR\r\n")
        serial = 0
        while head := reader.read(dbus_wire.FIXED_HEADER):
            call = dbus_wire.decode(head + reader.read(dbus_wire.length(head) - len(head)))
            self.calls.append(call)
            for message in self._answer(call):
                serial += 1
                reply = call.serial if message.kind != SIGNAL else 0
                sock.sendall(dbus_wire.encode(message._replace(serial=serial, reply_serial=reply)))

    def _answer(self, call: Message) -> list[Message]:
        if answers := self.answers.get(call.member):
            return (answers.pop(0) if len(answers) > 1 else answers[0])(self, call)
        if call.member in ("StartTransientUnit", "StopUnit"):
            # The signal may come first.
            return [job_removed("other.scope", job="/other"), job_removed(call.body[0]), returns("o", JOB)]
        if call.member == "Get":
            return [returns("v", Variant("s", "252.38-1~deb12u1"))]
        return [returns("s", ":1.1") if call.member == "Hello" else returns()]


@contextlib.contextmanager
def fake_systemd(path: Path) -> Iterator[FakeSystemd]:
    fake = FakeSystemd(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(os.fspath(path))
        listener.listen(8)
        thread = threading.Thread(target=fake.serve, args=[listener], daemon=True)
        thread.start()
        try:
            yield fake
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(5)
            assert not thread.is_alive()
