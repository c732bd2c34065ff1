"""A client's folder of blobs: read, written, and not believed."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pier.buildkit.client_store import SERVICE, ClientStore, StoreFailed
from pier.buildkit.grpc import Call, Code, Failed, Server, unary
from pier.buildkit.http2 import Connection
from pier.buildkit.pb.content_pb2 import (
    COMMIT,
    STAT,
    Info,
    InfoRequest,
    InfoResponse,
    ReadContentRequest,
    ReadContentResponse,
    WriteContentRequest,
    WriteContentResponse,
)
from pier.buildkit.session import Session
from pier.oci import Descriptor, Digest
from pier.storage import ContentStore
from pier.storage.errors import ContentMismatch

DATA = b"blob " * 500_000


class Store:
    """The client's side, as containerd's."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.cut: dict[str, bytes] = {}
        self.asked: set[str] = set()

    async def info(self, request: InfoRequest, call: Call) -> InfoResponse:
        self.asked.update(call.metadata["buildkit-attachable-store-id"])
        if request.digest not in self.blobs:
            raise Failed(Code.NOT_FOUND, f"content {request.digest}: not found")
        return InfoResponse(info=Info(digest=request.digest, size=len(self.blobs[request.digest])))

    async def read(self, call: Call) -> None:
        request = await call.receive(ReadContentRequest)
        assert request is not None
        data = self.blobs[request.digest]
        for at in range(0, len(data), 1 << 20):
            await call.send(ReadContentResponse(offset=at, data=data[at : at + (1 << 20)]))

    async def write(self, call: Call) -> None:
        data = b""
        while (request := await call.receive(WriteContentRequest)) is not None:
            if request.action == STAT:
                if request.expected in self.blobs:
                    raise Failed(Code.ALREADY_EXISTS, "already exists")
                data = self.cut.get(request.expected, b"")
            assert request.action == STAT or request.offset == len(data)
            data += request.data
            if request.action == COMMIT:
                assert Digest.of(data) == request.expected
                self.blobs[request.expected] = data
            await call.send(WriteContentResponse(action=request.action, offset=len(data)))

    @contextlib.asynccontextmanager
    async def served(self, content: ContentStore) -> AsyncIterator[ClientStore]:
        methods = {f"{SERVICE}Info": unary(InfoRequest, self.info)}
        methods |= {f"{SERVICE}Read": self.read, f"{SERVICE}Write": self.write}
        here, there = socket.socketpair()
        loop = asyncio.get_running_loop()
        server = Server(methods)
        await loop.create_connection(lambda: server.connection, sock=there)
        serving = asyncio.create_task(server.serve())
        connection = Connection()
        await loop.create_connection(lambda: connection, sock=here)
        session = Session("s", "", frozenset(methods), connection)
        yield ClientStore(session, "/their/cache", cast(Any, SimpleNamespace(content=content)))
        connection.close()
        await serving


@pytest.fixture
def content(tmp_path: Path) -> ContentStore:
    return ContentStore(str(tmp_path / "content"))


async def test_a_blob_there_and_back(content: ContentStore) -> None:
    client = Store()
    blob = content.put(DATA, "x")
    async with client.served(content) as store:
        await store.put(blob)
        await store.put(blob)  # it has it
        assert client.blobs == {blob.digest: DATA}
        assert (await store.info(blob.digest)).size == len(DATA)
        content.sweep([])
        assert not content.has(blob.digest)
        await store.fetch(blob)
        assert content.read(blob.digest, limit_bytes=len(DATA)) == DATA
        assert client.asked == {"local:/their/cache"}


async def test_an_export_that_was_cut_goes_on(content: ContentStore) -> None:
    client = Store()
    blob = content.put(DATA, "x")
    client.cut[blob.digest] = DATA[:1_234_567]
    async with client.served(content) as store:
        await store.put(blob)
    assert client.blobs == {blob.digest: DATA}


@pytest.mark.parametrize("data", [DATA[:-1], DATA + b"more", DATA[:-1] + b"x"])
async def test_attack_10_a_client_that_sends_something_else(content: ContentStore, data: bytes) -> None:
    client = Store()
    digest = Digest.of(DATA)
    client.blobs[digest] = data
    blob = Descriptor(media_type="", digest=digest, size=len(DATA))
    async with client.served(content) as store:
        with pytest.raises(ContentMismatch):
            await store.fetch(blob)
        assert not content.has(digest)
        with pytest.raises(StoreFailed, match="is something else"):
            await store.document(blob, 1 << 30)
        with pytest.raises(StoreFailed, match="more than the 100 allowed"):
            await store.document(blob, 100)


async def test_what_is_not_there(content: ContentStore) -> None:
    async with Store().served(content) as store:
        with pytest.raises(StoreFailed, match="not found"):
            await store.info(Digest.of(b""))
        store.session.methods = frozenset()
        with pytest.raises(StoreFailed, match="the client offers none"):
            await store.info(Digest.of(b""))
