"""The three ways to BuildKit's door: /session, /grpc, and HTTP/2 from the first byte."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from pier.api import buildkit
from pier.api.app import make_app
from pier.api.server import Server
from pier.builder.cache import Cache
from pier.builder.contexts import Contexts
from pier.buildkit.door import Door
from pier.buildkit.grpc import Call, Client, Code, Failed, unary
from pier.buildkit.grpc import Server as GrpcServer
from pier.buildkit.http2 import Connection
from pier.buildkit.pb.control_pb2 import BytesMessage, InfoRequest, InfoResponse
from pier.state.memory import MemoryStore

from .conftest import FakeEngine

SECRET = "/moby.buildkit.secrets.v1.Secrets/GetSecret"


@contextlib.asynccontextmanager
async def served(tmp_path: Path) -> AsyncIterator[tuple[Door, str]]:
    """(door, path of the API's socket)."""
    folder, cache = str(tmp_path / "builder"), Cache(MemoryStore(), None, None)  # type: ignore[arg-type]
    service = SimpleNamespace(cache=cache, contexts=Contexts(folder, cache))
    door = Door(service, folder, "worker")  # type: ignore[arg-type]
    path = str(tmp_path / "s")
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(path)
    server = Server(
        make_app(FakeEngine(), door=lambda: door),  # type: ignore[arg-type]
        shutdown_timeout_s=1.0,
        accept_http2=lambda transport, early: buildkit.accept(door, transport, early),
    )
    await server.start([sock])
    try:
        yield door, path
    finally:
        await server.close()


async def upgraded(path: str, request: bytes) -> socket.socket:
    """A connection on which this was asked, its answer's head read."""
    loop = asyncio.get_running_loop()
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    await loop.sock_connect(sock, path)
    await loop.sock_sendall(sock, request)
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += await loop.sock_recv(sock, 1)
    assert head.startswith(b"HTTP/1.1 101 ")
    assert b"Upgrade: h2c" in head
    return sock


async def over(sock: socket.socket) -> Client:
    connection = Connection()
    await asyncio.get_running_loop().create_connection(lambda: connection, sock=sock)
    return Client(connection)


async def test_services_over_an_upgrade(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, path):
        sock = await upgraded(
            path, b"POST /v1.44/grpc HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
        )
        client = await over(sock)
        with pytest.raises(Failed) as caught:
            await client.unary("/moby.buildkit.v1.Control/Nothing", InfoRequest(), InfoResponse)
        assert caught.value.code == Code.UNIMPLEMENTED
        client.connection.close()


async def test_services_from_the_first_byte(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, path):
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, path)
        client = await over(sock)
        with pytest.raises(Failed) as caught:
            await client.unary("/moby.buildkit.v1.Control/Nothing", InfoRequest(), InfoResponse)
        assert caught.value.code == Code.UNIMPLEMENTED
        client.connection.close()


async def test_a_session_is_called_back(tmp_path: Path) -> None:
    async def secret(request: BytesMessage, call: Call) -> BytesMessage:
        return BytesMessage(data=b"s3cret")

    request = (
        b"POST /session HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
        b"X-Docker-Expose-Session-Uuid: s1\r\nX-Docker-Expose-Session-Sharedkey: k\r\n"
        b"X-Docker-Expose-Session-Grpc-Method: /a.B/C\r\nX-Docker-Expose-Session-Grpc-Method: " + SECRET.encode()
    )
    async with served(tmp_path) as (door, path):
        sock = await upgraded(path, request + b"\r\n\r\n")
        client = GrpcServer({SECRET: unary(BytesMessage, secret)})
        await asyncio.get_running_loop().create_connection(lambda: client.connection, sock=sock)
        serving = asyncio.create_task(client.serve())
        session = await door.sessions.get("s1")
        assert (session.shared_key, session.methods) == ("k", {"/a.B/C", SECRET})
        assert (await session.client.unary(SECRET, BytesMessage(), BytesMessage)).data == b"s3cret"
        client.connection.close()
        await serving


@pytest.mark.parametrize("path", [b"/session", b"/grpc"])
async def test_without_an_upgrade_to_h2c_it_is_refused(tmp_path: Path, path: bytes) -> None:
    async with served(tmp_path) as (_, place):
        reader, writer = await asyncio.open_unix_connection(place)
        writer.write(b"POST " + path + b" HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"Upgrade: h2c" in answer
        writer.close()
