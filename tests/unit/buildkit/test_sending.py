"""What was built goes to the client: archives as bytes, trees file by file as it asks for them."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pier.buildkit import sending
from pier.buildkit.grpc import Call, Code, Failed, Method, Server
from pier.buildkit.http2 import Connection
from pier.buildkit.pb.session_pb2 import DATA, ERR, FIN, REQ, STAT, Bytes, Packet
from pier.buildkit.session import Session
from pier.buildkit.stat import entry_of
from pier.kernel.paths import closing


@contextlib.asynccontextmanager
async def client(method: Method | None) -> AsyncIterator[Session]:
    """A session with a client that takes files in this way."""
    here, there = socket.socketpair()
    loop = asyncio.get_running_loop()
    methods = {sending.METHOD: method} if method else {}
    server = Server(methods)
    await loop.create_connection(lambda: server.connection, sock=there)
    serving = asyncio.create_task(server.serve())
    connection = Connection()
    await loop.create_connection(lambda: connection, sock=here)
    yield Session("s", "", frozenset(methods), connection)
    connection.close()
    await serving


async def pieces(*data: bytes) -> AsyncIterator[bytes]:
    for each in data:
        yield each


async def test_an_archive() -> None:
    found: list[bytes] = []
    headers: dict[str, list[str]] = {}

    async def take(call: Call) -> None:
        headers.update(call.metadata)
        while (message := await call.receive(Bytes)) is not None:
            found.append(message.data)

    async with client(take) as session:
        size = await sending.send_bytes(session, [("buildkit-attachable-exporter-id", "1")], pieces(b"ab", b"c"))
    assert (found, size) == ([b"ab", b"c"], 3)
    assert headers["buildkit-attachable-exporter-id"] == ["1"]


async def test_a_client_that_refuses() -> None:
    async def refuse(call: Call) -> None:
        raise Failed(Code.ALREADY_EXISTS, "target already exists")

    async with client(refuse) as session:
        with pytest.raises(sending.CannotSend, match="target already exists"):
            await sending.send_bytes(session, [], pieces(b"a"))


async def test_a_client_that_takes_nothing() -> None:
    async with client(None) as session:
        with pytest.raises(sending.NothingToReceiveIt):
            await sending.send_bytes(session, [], pieces(b"a"))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "dir").mkdir(parents=True)
    (root / "dir/big").write_bytes(bytes(range(256)) * 2000)
    (root / "a").write_text("a")
    os.link(root / "a", root / "dir/same")
    (root / "link").symlink_to("a")
    return root


async def test_a_tree(tree: Path) -> None:
    listed: dict[str, tuple[int, str]] = {}
    contents: dict[str, bytes] = {}

    async def take(call: Call) -> None:
        paths, wanted = [], 0
        while (packet := await call.receive(Packet)) is not None:
            if packet.type == STAT and packet.HasField("stat"):
                path, entry = entry_of(packet.stat)
                listed[path] = entry.mode, entry.link
                paths.append(path)
                if entry.has_content:
                    wanted += 1
                    await call.send(Packet(type=REQ, id=len(paths) - 1))
            elif packet.type == DATA and packet.data:
                path = paths[packet.id]
                contents[path] = contents.get(path, b"") + packet.data
            elif packet.type == DATA:
                wanted -= 1
                if not wanted:
                    await call.send(Packet(type=FIN))
            elif packet.type == FIN:
                return

    sent: list[int] = []
    async with client(take) as session:
        with closing(os.open(tree, os.O_RDONLY | os.O_DIRECTORY)) as root:
            await sending.send_tree(session, [], "", root, sent.append)
    assert list(listed) == ["a", "dir", "dir/big", "dir/same", "link"]
    assert listed["dir/same"][1] == "a"
    assert listed["link"][1] == "a"
    assert listed["dir/big"][0] == (tree / "dir/big").stat().st_mode
    assert contents == {"a": b"a", "dir/big": (tree / "dir/big").read_bytes()}
    assert sum(sent) == 512001


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (Packet(type=REQ, id=7), "a file that there is not"),
        (Packet(type=ERR, data=b"disk full"), "disk full"),
        (None, "too early"),
    ],
)
async def test_clients_that_break_it_off(tree: Path, packet: Packet | None, reason: str) -> None:
    async def take(call: Call) -> None:
        while (got := await call.receive(Packet)) is not None:
            if got.type == STAT and not got.HasField("stat"):
                break
        if packet is not None:
            await call.send(packet)
            await call.receive(Packet)

    async with client(take) as session:
        with (
            closing(os.open(tree, os.O_RDONLY | os.O_DIRECTORY)) as root,
            pytest.raises(sending.CannotSend, match=reason),
        ):
            await sending.send_tree(session, [], "", root, lambda _: None)
