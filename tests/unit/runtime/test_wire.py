"""Messages with descriptors over SOCK_SEQPACKET."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from pier.runtime import wire


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = wire.pair()
    with ours, theirs:
        theirs.settimeout(5)
        yield ours, theirs


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_message_with_descriptors(pair: tuple[socket.socket, socket.socket]) -> None:
    read, write = os.pipe()
    wire.send(pair[0], {"a": [1, "ü"]}, [write])
    os.close(write)
    received = wire.receive(pair[1])
    assert received is not None
    message, fds = received
    assert message == {"a": [1, "ü"]}
    assert not os.get_inheritable(fds[0])
    os.write(fds[0], b"x")
    assert os.read(read, 1) == b"x"
    os.close(fds[0])
    os.close(read)


def test_a_long_message_goes_by_memfd(pair: tuple[socket.socket, socket.socket]) -> None:
    before = open_fds()
    long = {"text": "x" * 1_000_000}
    wire.send(pair[0], long)
    assert wire.receive(pair[1]) == (long, [])
    assert open_fds() == before


def test_end_of_file(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[0].close()
    assert wire.receive(pair[1]) is None


@pytest.mark.parametrize("data", [b"{", b"[]", b"null", b"\xff", b"\0memfd"])
def test_what_is_no_message_costs_no_descriptor(pair: tuple[socket.socket, socket.socket], data: bytes) -> None:
    before = open_fds()
    read, write = os.pipe()
    pair[0].sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, read.to_bytes(4, "little"))])
    with pytest.raises(ValueError, match="malformed message"):
        wire.receive(pair[1])
    os.close(read)
    os.close(write)
    assert open_fds() == before
