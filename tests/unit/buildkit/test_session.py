"""Sessions: found by id, gone with their connection; files, secrets, credentials and agents asked for over them."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from pier.builder.cache import Cache
from pier.builder.contexts import Contexts
from pier.builder.session import NoSuchContext
from pier.buildkit import session as sessions_module
from pier.buildkit.grpc import Call, Code, Failed, Method, Server, unary
from pier.buildkit.http2 import Connection
from pier.buildkit.pb.session_pb2 import (
    Bytes,
    CheckAgentRequest,
    CheckAgentResponse,
    CredentialsRequest,
    CredentialsResponse,
    GetSecretRequest,
    GetSecretResponse,
)
from pier.buildkit.session import (
    CHECK_AGENT,
    CREDENTIALS,
    FORWARD_AGENT,
    GET_SECRET,
    CannotAsk,
    NoSuchSession,
    Session,
    Sessions,
    SessionTaken,
    View,
)
from pier.state.memory import MemoryStore

from .client_files import OfferedFolder


async def get_secret(request: GetSecretRequest, call: Call) -> GetSecretResponse:
    if request.id == "broken":
        raise Failed(Code.INTERNAL, "the vault is locked")
    if request.id != "known":
        raise Failed(Code.NOT_FOUND, f"secret {request.id} not found")
    return GetSecretResponse(data=b"s3cret")


async def credentials(request: CredentialsRequest, call: Call) -> CredentialsResponse:
    match request.host:
        case "user.example":
            return CredentialsResponse(username="u", secret="p")
        case "token.example":
            return CredentialsResponse(username="<token>", secret="t")
    return CredentialsResponse()


async def check_agent(request: CheckAgentRequest, call: Call) -> CheckAgentResponse:
    if request.id != "default":
        raise Failed(Code.INVALID_ARGUMENT, f"unset ssh forward key {request.id}")
    return CheckAgentResponse()


async def agent(call: Call) -> None:
    assert call.metadata["buildkit.ssh.id"] == ["default"]
    while (message := await call.receive(Bytes)) is not None:
        await call.send(Bytes(data=message.data.upper()))


METHODS: dict[str, Method] = {
    GET_SECRET: unary(GetSecretRequest, get_secret),
    CREDENTIALS: unary(CredentialsRequest, credentials),
    CHECK_AGENT: unary(CheckAgentRequest, check_agent),
    FORWARD_AGENT: agent,
}


@contextlib.asynccontextmanager
async def opened(sessions: Sessions, methods: dict[str, Method], id: str = "s1") -> AsyncIterator[Session]:
    """A session whose client serves these methods."""
    here, there = socket.socketpair()
    loop = asyncio.get_running_loop()
    server = Server(methods)
    await loop.create_connection(lambda: server.connection, sock=there)
    connection = Connection()
    await loop.create_connection(lambda: connection, sock=here)
    session = Session(id, "key", frozenset(methods), connection)
    async with asyncio.TaskGroup() as group:
        group.create_task(server.serve())
        group.create_task(sessions.serve(session))
        try:
            yield session
        finally:
            connection.close()


@pytest.fixture
async def contexts(tmp_path: Path) -> AsyncIterator[Contexts]:
    cache = Cache(MemoryStore(), None, None)  # type: ignore[arg-type]
    yield Contexts(str(tmp_path / "builder"), cache)
    await cache.close()


async def test_a_session_is_found_also_when_it_comes_late() -> None:
    sessions = Sessions()
    waiting = asyncio.create_task(sessions.get("s1"))
    await asyncio.sleep(0)
    async with opened(sessions, {}) as session:
        assert await waiting is session
        assert await sessions.get("s1") is session


async def test_a_session_is_gone_with_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions_module, "COMES_WITHIN_S", 0.01)
    sessions = Sessions()
    async with opened(sessions, {}):
        pass
    with pytest.raises(NoSuchSession, match="no active session for s1"):
        await sessions.get("s1")


async def test_an_id_is_one_sessions() -> None:
    sessions = Sessions()
    async with opened(sessions, {}) as session:
        await sessions.get("s1")
        with pytest.raises(SessionTaken):
            await sessions.serve(Session("s1", "", frozenset(), Connection()))
        assert await sessions.get("s1") is session


async def test_secrets(contexts: Contexts) -> None:
    async with opened(Sessions(), METHODS) as session:
        view = View(session, contexts)
        assert await view.secret("known") == b"s3cret"
        assert await view.secret("other") is None
        with pytest.raises(CannotAsk, match="the vault is locked"):
            await view.secret("broken")


async def test_credentials(contexts: Contexts) -> None:
    async with opened(Sessions(), METHODS) as session:
        view = View(session, contexts)
        user = await view.auth("user.example")
        token = await view.auth("token.example")
        assert user == {"username": "u", "password": "p", "serveraddress": "user.example"}
        assert token == {"identitytoken": "t", "serveraddress": "token.example"}
        assert await view.auth("else.example") is None


async def test_a_client_that_offers_nothing(contexts: Contexts) -> None:
    async with opened(Sessions(), {}) as session:
        view = View(session, contexts)
        assert await view.secret("known") is None
        assert await view.auth("user.example") is None
        async with view.ssh("default") as path:
            assert path is None
        with pytest.raises(NoSuchContext):
            await view.local("context", {})
        await view.close()


async def test_an_agent_is_reached_through_a_socket(contexts: Contexts) -> None:
    async with opened(Sessions(), METHODS) as session:
        view = View(session, contexts)
        async with view.ssh("other") as path:
            assert path is None
        async with view.ssh("default") as path:
            assert path is not None
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(b"sign")
            assert await reader.read(100) == b"SIGN"
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()
        assert not Path(path).exists()


async def test_a_folder_is_fetched_once_a_build(tmp_path: Path, contexts: Contexts) -> None:
    origin = tmp_path / "origin"
    origin.mkdir()
    (origin / "a").write_text("a")
    offered = OfferedFolder(origin)
    async with opened(Sessions(), offered.methods) as session:
        view = View(session, contexts)
        one, other = await asyncio.gather(view.local("context", {}), view.local("context", {}))
        assert one is other
        assert Path(one.path, "a").read_text() == "a"
        assert offered.asked == ["a"]
        await view.close()
        again = View(session, contexts)
        assert await again.local("context", {}) == replace(one, received_bytes=0)
        assert offered.asked == ["a"]
        await again.close()
