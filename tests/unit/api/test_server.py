"""Connections: what the parser is fed, and what it never sees."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from typing import Any

import pytest

from pier.api.server import Peer

PING = b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n"


def test_attack_22_the_peer_of_a_socket_is_known() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert Peer.of(ours) == (os.getpid(), os.getuid(), os.getgid())


@pytest.mark.parametrize("step", [1, 7, 10_000])
async def test_pipelined_requests_in_pieces_of_any_size(client: Any, step: int) -> None:
    connection = await client.connect()
    body = b"x\r\n\r\ny"
    load = b"POST /images/load HTTP/1.1\r\nHost: d\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    stream = PING + load + PING
    for start in range(0, len(stream), step):
        connection.send(stream[start : start + step])
        await asyncio.sleep(0)
    assert (await connection.answer()).body == b"OK"
    assert (await connection.answer()).status == 200
    assert (await connection.answer()).body == b"OK"
    assert client.engine.images.archives.loaded == body


async def test_attack_16_a_body_full_of_heads_is_only_a_body(client: Any) -> None:
    """Cheap to carry, and no request in it is ever seen."""
    fake = b"POST /containers/web/kill HTTP/1.1\r\nHost: d\r\nUpgrade: tcp\r\n\r\n"
    body = b"\r\n\r\n" * (1 << 18) + fake * 1000
    begin = time.process_time()
    answer = await client.request("POST", "/images/load", body=body)
    assert answer.status == 200
    assert client.engine.images.archives.loaded == body
    assert client.engine.containers.calls == []
    assert time.process_time() - begin < 2


@pytest.mark.parametrize(
    "head",
    [
        b"POST /images/load HTTP/1.1\r\nHost: d\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /images/load HTTP/1.1\r\nHost: d\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
        b"POST /images/load HTTP/1.1\r\nHost: d\r\nContent-Length: -1\r\n\r\n",
        b"POST /images/load HTTP/1.1\r\nHost: d\r\nContent-Length : 5\r\n\r\nabcde",
        b"GET /_ping HTTP/1.1\r\nHost: d\r\nA: " + b"x" * (256 << 10) + b"\r\n\r\n",
        b"GET /_ping HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
    ],
)
async def test_attack_16_ambiguous_requests_are_refused_and_the_connection_closed(client: Any, head: bytes) -> None:
    connection = await client.connect()
    connection.send(head + b"GET /containers/json HTTP/1.1\r\nHost: d\r\n\r\n")
    status, _ = await connection.head()
    assert status == 400
    await connection.read_all()
    assert client.engine.containers.calls == []


async def test_an_upgrade_that_is_refused_closes_the_connection(client: Any) -> None:
    connection = await client.connect()
    request = b"POST /containers/nope/attach HTTP/1.1\r\nHost: d\r\nUpgrade: tcp\r\nConnection: Upgrade\r\n\r\n"
    connection.send(request + PING)
    answer = await connection.answer()
    assert answer.status == 404
    assert await connection.read_all() == b"", "what followed was not taken for a request"
