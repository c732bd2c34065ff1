"""Output on its way to syslog and journald: the bytes on the wire, and services that go away."""

from __future__ import annotations

import os
import re
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pier.runtime.log import forward as log_forward
from pier.runtime.log.forward import Forward, field
from pier.runtime.log.logfile import Log
from pier.runtime.request import LogFile

TIME_NS = 1_700_000_000_123_456_789
STAMP = r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[socket.socket]:
    """A service on a datagram socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(str(tmp_path / "socket"))
        made.settimeout(10)
        yield made


def syslog(server: socket.socket, **more: Any) -> dict[str, Any]:
    base = {
        "driver": "syslog",
        "family": int(server.family),
        "kind": int(server.type),
        "address": server.getsockname(),
        "facility": 3,
        "format": "",
        "tag": "box",
        "hostname": "here",
    }
    return base | more


@pytest.mark.parametrize(
    ("format_", "pattern"),
    [
        ("", rf"<30>{STAMP} box\[PID\]: text\n"),
        ("rfc3164", rf"<30>{STAMP} here box\[PID\]: text\n"),
        ("rfc5424", r"<30>1 2023-11-14T22:13:20Z here box PID box - text\n"),
        ("rfc5424micro", r"<30>1 2023-11-14T22:13:20\.123456Z here box PID box - text\n"),
    ],
)
def test_syslog_formats(server: socket.socket, format_: str, pattern: str) -> None:
    forward = Forward(syslog(server, format=format_))
    forward.send("stdout", b"text\n", TIME_NS)
    assert re.fullmatch(pattern.replace("PID", str(os.getpid())), server.recv(4096).decode())
    forward.close()


def test_each_line_is_a_message_and_errors_are_errors(server: socket.socket) -> None:
    forward = Forward(syslog(server))
    forward.send("stderr", b"one\n\ntwo\n", TIME_NS)
    texts = [server.recv(4096) for _ in range(3)]
    assert [text.partition(b"]: ")[2] for text in texts] == [b"one\n", b"\n", b"two\n"]
    assert all(text.startswith(b"<27>") for text in texts)
    forward.close()


def test_a_stream_takes_all_lines_at_once(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        server.listen()
        forward = Forward(syslog(server))
        forward.send("stdout", b"one\ntwo\n", TIME_NS)
        connection, _ = server.accept()
        with connection:
            assert connection.recv(4096).count(b"\n") == 2
    forward.close()


def test_journald_entries(server: socket.socket) -> None:
    fields = {"CONTAINER_ID": "id", "LABEL": "two\nlines"}
    forward = Forward(syslog(server, driver="journald", fields=fields))
    forward.send("stderr", b"text = \xff\n", TIME_NS)
    assert server.recv(4096) == (
        b"CONTAINER_ID=id\n"
        b"LABEL\n" + struct.pack("<Q", 9) + b"two\nlines\n"
        b"MESSAGE=text = \xff\n"
        b"PRIORITY=3\n"
        b"SYSLOG_TIMESTAMP=2023-11-14T22:13:20.123456789Z\n"
    )
    forward.send("stdout", b"part", TIME_NS)
    assert server.recv(4096).endswith(b"CONTAINER_PARTIAL_MESSAGE=true\n")
    forward.close()


def test_a_field_of_one_line() -> None:
    assert field("A", b"b") == b"A=b\n"


def test_a_service_that_comes_back_is_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_forward, "RETRY_S", 0.0)
    options: dict[str, Any] = {}
    for text in (b"first\n", b"second\n"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
            server.bind(str(tmp_path / "socket"))
            server.settimeout(10)
            if not options:
                options = syslog(server)
                forward = Forward(options)
            forward.send("stdout", text, TIME_NS)
            assert server.recv(4096).endswith(text)
        os.unlink(tmp_path / "socket")
        forward.send("stdout", b"lost\n", TIME_NS)
    forward.close()


def test_a_service_that_does_not_read_stops_nobody(server: socket.socket) -> None:
    forward = Forward(syslog(server))
    for _ in range(5000):
        forward.send("stdout", b"x" * 1000 + b"\n", TIME_NS)
    forward.close()


def test_the_log_is_kept_beside_or_not_at_all(server: socket.socket, tmp_path: Path) -> None:
    log = Log(LogFile(str(tmp_path / "log"), driver="local", forward=syslog(server)))
    log.write("stdout", b"one\n")
    log.close()
    assert b"one\n" in (tmp_path / "log").read_bytes()
    assert server.recv(4096).endswith(b"one\n")
    log = Log(LogFile("", driver="local", forward=syslog(server)))
    log.write("stdout", b"unfinished")
    log.close()
    assert server.recv(4096).endswith(b"unfinished\n")


def test_attributes_stand_in_each_entry(tmp_path: Path) -> None:
    log = Log(LogFile(str(tmp_path / "log"), attrs='{"a":"b"}'))
    log.write("stdout", b'one\n","stream":"stdout",\n')
    log.close()
    lines = (tmp_path / "log").read_text().splitlines()
    assert [line.count('"attrs":{"a":"b"},"time"') for line in lines] == [1, 1]
    assert lines[0].startswith('{"log":"one\\n","stream":"stdout","attrs":{"a":"b"},"time":"')
