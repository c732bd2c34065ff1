"""Attach over a WebSocket, as web consoles do it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from .client import Client
from .conftest import Daemon, poll

pytestmark = pytest.mark.root
PATIENCE_S = 20.0


def host(docker: Client) -> str:
    return docker.environment["DOCKER_HOST"].removeprefix("unix://")


@asynccontextmanager
async def attached(docker: Client, id: str, query: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    async with (
        asyncio.timeout(PATIENCE_S),
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(host(docker))) as session,
        session.ws_connect(f"http://engine/v1.47/containers/{id}/attach/ws?stream=1&{query}") as ws,
    ):
        yield ws


async def read_until(ws: aiohttp.ClientWebSocketResponse, text: bytes) -> bytes:
    seen = b""
    while text not in seen:
        message = await ws.receive()
        assert message.type in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT), (message, seen)
        seen += message.data if isinstance(message.data, bytes) else message.data.encode()
    return seen


async def test_input_and_output(docker: Client) -> None:
    id = docker.run("-i", docker.image, "sh", "-c", "while read line; do echo got $line; done")
    async with attached(docker, id, "stdin=1&stdout=1&stderr=1") as ws:
        await ws.send_bytes(b"one\n")
        assert await read_until(ws, b"got one\n") == b"got one\n"
        await ws.send_str("two\n")
        assert await read_until(ws, b"got two\n") == b"got two\n"


async def test_the_log_first_and_the_end(docker: Client) -> None:
    id = docker.run("-i", docker.image, "sh", "-c", "echo before; read line; echo after; exit 3")
    poll(lambda: docker.ok("logs", id) == "before", "the first line")
    async with attached(docker, id, "logs=1&stdin=1&stdout=1&stderr=1") as ws:
        await read_until(ws, b"before\n")
        await ws.send_bytes(b"go\n")
        await read_until(ws, b"after\n")
        assert (await ws.receive()).type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
    assert docker.ok("wait", id) == "3"


async def test_a_terminal_and_its_detach_keys(docker: Client) -> None:
    if os.environ.get("PIER_SCENARIO_HOST"):
        pytest.skip("elsewhere the keys end the session without a close")
    id = docker.run("-it", docker.image, "sh", "-c", "stty -echo; while read line; do echo got $line; done")
    async with attached(docker, id, "stdin=1&stdout=1&stderr=1&detachKeys=a,b") as ws:
        await ws.send_bytes(b"one\n")
        await read_until(ws, b"got one\r\n")
        await ws.send_bytes(b"ab")
        assert (await ws.receive()).type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
    assert docker.state(id) == "running"
    assert docker.events("--filter", f"container={id}", "--format", "{{.Action}}")[-1] == "detach"


async def test_what_is_no_websocket_is_refused(docker: Client, daemon: Daemon) -> None:
    id = docker.run(docker.image, "sleep", "1000")
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(daemon.socket))) as session:
        answer = await session.get(f"http://engine/containers/{id}/attach/ws?stream=1")
        assert (answer.status, (await answer.json())["message"]) == (400, "this operation takes a websocket")
        answer = await session.get("http://engine/containers/nothing/attach/ws?stream=1")
        assert answer.status in (400, 404)


async def test_the_log_ends_where_the_stream_begins(docker: Client) -> None:
    """What is printed while the log is read comes once, and in order."""
    if os.environ.get("PIER_SCENARIO_HOST"):
        pytest.skip("elsewhere what is printed meanwhile may be lost")
    script = "n=0; while [ $n -lt 20000 ]; do n=$((n+1)); echo $n; done; echo end; read line"
    id = docker.run("-i", docker.image, "sh", "-c", script)
    for _ in range(4):
        async with attached(docker, id, "logs=1&stdout=1&stderr=1") as ws:
            text = await read_until(ws, b"end\n")
        assert text.split() == [str(number).encode() for number in range(1, 20001)] + [b"end"]
