"""Attach and exec over a raw socket: the bytes on the wire, each half closing on its own, back-pressure."""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from pier.api import hijack
from pier.errors import InvalidParameter

UPGRADE = {"Upgrade": "tcp", "Connection": "Upgrade"}
ATTACH = "/v1.51/containers/web/attach?stream=1&stdin=1&stdout=1&stderr=1"


async def receive(sock: socket.socket, size: int) -> bytes:
    """Up to `size` bytes, or less at end of file."""
    loop, data = asyncio.get_running_loop(), b""
    async with asyncio.timeout(5):
        while len(data) < size and (chunk := await loop.sock_recv(sock, size - len(data))):
            data += chunk
    return data


async def attach(client: Any, path: str = ATTACH, headers: dict[str, str] = UPGRADE) -> tuple[Any, Any, socket.socket]:
    connection = await client.connect()
    connection.send_request("POST", path, headers=headers)
    head = await connection.head()
    return connection, head, client.engine.containers.container_end


@pytest.mark.parametrize(
    ("version", "tty", "upgrade", "status", "kind"),
    [
        ("1.51", False, True, 101, "multiplexed"),
        ("1.41", False, True, 101, "raw"),
        ("1.51", True, True, 101, "raw"),
        ("1.51", False, False, 200, "raw"),
    ],
)
async def test_the_head_says_what_follows(
    client: Any, version: str, tty: bool, upgrade: bool, status: int, kind: str
) -> None:
    client.engine.containers.tty = tty
    path = ATTACH.replace("1.51", version)
    _, (got, headers), _ = await attach(client, path, UPGRADE if upgrade else {})
    assert got == status
    assert headers["content-type"] == f"application/vnd.docker.{kind}-stream"
    assert headers.get("upgrade") == ("tcp" if upgrade else None)


@pytest.mark.parametrize("headers", [UPGRADE, {}])
async def test_bytes_go_both_ways_and_each_half_closes_alone(client: Any, headers: dict[str, str]) -> None:
    connection, _, container = await attach(client, headers=headers)
    connection.send(b"hello")
    assert await receive(container, 5) == b"hello"
    connection.writer.write_eof()
    assert await receive(container, 1) == b"", "the client's end of file is the container's"
    container.send(b"still here")
    assert await connection.read(10) == b"still here"
    container.close()
    assert await connection.read_all() == b""


async def test_output_after_the_clients_eof_long_after(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hijack, "HANGUP_POLL_S", 0.02)
    connection, _, container = await attach(client)
    connection.writer.write_eof()
    await asyncio.sleep(0.2)  # many looks for a client that went away altogether
    container.send(b"late")
    assert await connection.read(4) == b"late"
    container.close()


async def test_input_sent_with_the_request_is_not_lost(client: Any) -> None:
    connection = await client.connect()
    request = f"POST {ATTACH} HTTP/1.1\r\nHost: d\r\nUpgrade: tcp\r\nConnection: Upgrade\r\n\r\n"
    connection.send(request.encode() + b"early input")
    await connection.head()
    container = client.engine.containers.container_end
    assert await receive(container, 11) == b"early input"
    container.close()


async def test_input_sent_with_the_body_of_an_exec_is_not_lost(client: Any) -> None:
    connection = await client.connect()
    body = b'{"Detach":false,"Tty":false}'
    connection.send_request(
        "POST",
        f"/v1.51/exec/{'e' * 64}/start",
        headers={**UPGRADE, "Content-Type": "application/json"},
        body=body,
    )
    connection.send(b"early input")
    status, headers = await connection.head()
    assert (status, headers["api-version"]) == (101, "1.55")
    container = client.engine.containers.container_end
    assert await receive(container, 11) == b"early input"
    container.close()


async def test_the_log_comes_first(client: Any) -> None:
    async def log() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield b"x" * 65536

    client.engine.containers.prefix = log()
    connection, _, container = await attach(client)
    container.send(b"live")
    assert await connection.read(64 * 65536 + 4) == b"x" * 64 * 65536 + b"live"
    container.close()


async def test_a_slow_client_stops_the_container_and_loses_nothing(client: Any) -> None:
    connection, _, container = await attach(client)
    loop = asyncio.get_running_loop()
    total, block = 64 << 20, b"z" * (1 << 16)
    sent = 0

    async def produce() -> None:
        nonlocal sent
        while sent < total:
            await loop.sock_sendall(container, block)
            sent += len(block)
        container.close()

    connection.writer.transport.pause_reading()
    producer = asyncio.create_task(produce())
    await asyncio.sleep(0.3)
    assert sent < 8 << 20, "what the client does not read must not pile up in the daemon"
    connection.writer.transport.resume_reading()
    received = 0
    async with asyncio.timeout(20):
        while chunk := await connection.reader.read(1 << 20):
            received += len(chunk)
        await producer
    assert received == total


async def test_a_container_that_does_not_read_stops_the_client(client: Any) -> None:
    connection, _, container = await attach(client)
    raw = connection.writer.get_extra_info("socket").fileno()
    pusher = socket.socket(fileno=raw)
    try:
        sent = 0
        for _ in range(200):
            try:
                sent += pusher.send(b"i" * 65536, socket.MSG_DONTWAIT)
            except BlockingIOError:
                await asyncio.sleep(0.005)
    finally:
        pusher.detach()
    assert sent < 4 << 20
    assert await receive(container, sent) == b"i" * sent
    container.close()


async def test_a_client_that_goes_away_is_noticed_without_output(client: Any) -> None:
    connection, _, container = await attach(client)
    connection.close()
    assert await receive(container, 1) == b""
    async with asyncio.timeout(5):  # and the whole session ends: writing to it fails
        while True:
            try:
                container.send(b"?")
            except BrokenPipeError:
                break
            await asyncio.sleep(0.05)


async def test_a_half_closed_client_that_goes_away_is_noticed_without_output(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hijack, "HANGUP_POLL_S", 0.02)
    connection, _, container = await attach(client)
    connection.writer.write_eof()
    assert await receive(container, 1) == b""
    connection.close()
    gone = select.poll()
    gone.register(container, 0)  # POLLHUP comes unasked
    async with asyncio.timeout(5):
        while not gone.poll(0):
            await asyncio.sleep(0.01)
    with pytest.raises(BrokenPipeError):
        container.send(b"?")


async def test_output_is_complete_when_the_client_still_sends(client: Any) -> None:
    """`yes | docker run -i busybox true`: closing with input unread would reset the connection."""
    connection, _, container = await attach(client)
    connection.send(b"y\n" * 1000)
    await asyncio.sleep(0.05)
    container.send(b"done")
    container.shutdown(socket.SHUT_RDWR)
    assert await connection.read_all() == b"done"
    connection.send(b"y\n" * 1000)
    container.close()


async def test_the_detach_keys_end_a_terminals_session_only(client: Any) -> None:
    client.engine.containers.tty = True
    connection, _, container = await attach(client, f"{ATTACH}&detachKeys=ctrl-a,b")
    connection.send(b"x\x01")
    connection.send(b"y\x01bz")
    assert await receive(container, 10) == b"x\x01y"
    assert await connection.read_all() == b""
    assert client.engine.containers.calls[-1] == ("detached", "web")


async def test_detach_keys_are_input_like_any_other_without_a_terminal(client: Any) -> None:
    connection, _, container = await attach(client)
    connection.send(b"\x10\x11")
    assert await receive(container, 2) == b"\x10\x11"
    container.close()


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/containers/nope/attach?stream=1", 404, "No such container: nope"),
        ("/containers/web/attach?detachKeys=foo", 400, "Invalid detach keys (foo) provided"),
    ],
)
async def test_refusals_come_before_the_upgrade(client: Any, path: str, status: int, message: str) -> None:
    answer = await client.request("POST", path, headers=UPGRADE)
    assert answer.status == status
    assert answer.json["message"].startswith(message)


async def test_an_exec_that_cannot_start_says_so_in_its_output(client: Any) -> None:
    client.engine.containers.start_error = InvalidParameter(message="no such file")
    connection = await client.connect()
    connection.send_request(
        "POST", f"/exec/{'e' * 64}/start", headers={**UPGRADE, "Content-Type": "application/json"}, body=b"{}"
    )
    status, _ = await connection.head()
    assert status == 101
    assert await connection.read_all() == b"\x01\0\0\0\0\0\0\x0eno such file\r\n"


async def test_an_unknown_exec_is_not_found(client: Any) -> None:
    answer = await client.request("POST", "/exec/abc/start", json_body={}, headers=UPGRADE)
    assert (answer.status, answer.json) == (404, {"message": "No such exec instance: abc"})
