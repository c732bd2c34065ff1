"""Sessions: connections that clients open so that the daemon can call them back (files, secrets, agents, credentials).

A session is known by an id that the client has made; a build names it. The connection's client side of gRPC is ours.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pier.builder.agents import agent_socket
from pier.builder.contexts import Context, Contexts
from pier.builder.session import NoSuchContext, Told, nobody
from pier.builder.tree import Folder
from pier.buildkit import filesync
from pier.buildkit.grpc import Client, Code, Failed
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
from pier.errors import InvalidParameter, NotFound, PierError

__all__ = ["Session", "Sessions", "View"]

GET_SECRET: Final = "/moby.buildkit.secrets.v1.Secrets/GetSecret"  # noqa: S105 - a method
CREDENTIALS: Final = "/moby.filesync.v1.Auth/Credentials"
UPLOAD: Final = "/moby.upload.v1.Upload/Pull"
CHECK_AGENT: Final = "/moby.sshforward.v1.SSH/CheckAgent"
FORWARD_AGENT: Final = "/moby.sshforward.v1.SSH/ForwardAgent"
COMES_WITHIN_S: Final = 5.0
"""A build may be here before its session is."""
CALL_S: Final = 30.0
AGENT_READ_BYTES: Final = 32 << 10
REFRESH_TOKEN_USER: Final = "<token>"  # noqa: S105
"""As whom a client gives a refresh token in the password's place."""


class NoSuchSession(NotFound):
    """no active session for {id}: context deadline exceeded"""


class SessionTaken(InvalidParameter):
    """session {id} is open already"""


class CannotAsk(PierError):
    """the client of this build did not answer: {reason}"""


@dataclass(eq=False, slots=True)
class Session:
    """One client's connection."""

    id: str
    shared_key: str
    """The same for the same folder of the same client, from build to build; empty: the client says nothing of it."""
    methods: frozenset[str]
    """Paths of what can be called."""
    connection: Connection

    @property
    def client(self) -> Client:
        return Client(self.connection)


class Sessions:
    """All that are open now."""

    def __init__(self) -> None:
        self._open: dict[str, Session] = {}
        self._news = asyncio.Event()

    async def serve(self, session: Session) -> None:
        """Keep it until its connection is gone. Raises SessionTaken."""
        if not session.id or session.id in self._open:
            session.connection.close()
            raise SessionTaken(id=session.id)
        self._open[session.id] = session
        self._news.set()
        self._news = asyncio.Event()
        try:
            await asyncio.shield(session.connection.lost)
        finally:
            del self._open[session.id]
            session.connection.close()

    async def get(self, id: str) -> Session:
        """Waits a little for one that is not there yet. Raises NoSuchSession."""
        try:
            async with asyncio.timeout(COMES_WITHIN_S):
                while id not in self._open:
                    await self._news.wait()
        except TimeoutError:
            raise NoSuchSession(id=id) from None
        return self._open[id]


@dataclass(eq=False, slots=True)
class View:
    """A session as one build uses it (`builder.session.Session`). To be closed when the build has ended."""

    session: Session
    contexts: Contexts
    _held: list[Context] = field(default_factory=list)
    _folders: dict[tuple[str, str], asyncio.Task[Folder]] = field(default_factory=dict)

    async def close(self) -> None:
        """Give the client's files back."""
        for task in self._folders.values():
            task.cancel()
        await asyncio.gather(*self._folders.values(), return_exceptions=True)
        for context in self._held:
            await self.contexts.give_back(context)
        self._held.clear()

    # --- files

    async def local(self, name: str, attrs: Mapping[str, str], told: Told = nobody) -> Folder:
        """The client's folder `name`, fetched once a build. Raises NoSuchContext, TransferFailed, BadEntry."""
        key = name, repr(sorted(attrs.items()))
        if key not in self._folders:
            self._folders[key] = asyncio.create_task(self._fetch(name, attrs, told), name=f"files of {name}")
        return await asyncio.shield(self._folders[key])

    async def _fetch(self, name: str, attrs: Mapping[str, str], told: Told) -> Folder:
        if filesync.METHOD not in self.session.methods:
            raise NoSuchContext(name=name)
        shared = self.session.shared_key
        origin = f"{shared}\0{name}\0{attrs.get('local.sharedkeyhint', '')}" if shared else ""
        context = await self.contexts.take(origin, name)
        self._held.append(context)
        headers = filesync.metadata_of(name, attrs)
        received = await filesync.receive(self.session.client, headers, context, told)
        return Folder(context.tree, await asyncio.to_thread(lambda: context.key), received, lambda: context.index)

    async def upload(self, path: str) -> AsyncIterator[bytes]:
        """A stream of the client's, in pieces. Raises NoSuchContext, CannotAsk."""
        if UPLOAD not in self.session.methods:
            raise NoSuchContext(name=path)
        call = self.session.client.call(UPLOAD, [("urlpath", path), ("urlhost", "buildkit-session")])
        try:
            while (message := await call.receive(Bytes)) is not None:
                yield message.data
        except Failed as error:
            raise CannotAsk(reason=error.message) from None
        finally:
            call.close()

    # --- secrets, credentials

    async def secret(self, id: str) -> bytes | None:
        """Raises CannotAsk."""
        if GET_SECRET not in self.session.methods:
            return None
        answer = await self._ask(GET_SECRET, GetSecretRequest(id=id), GetSecretResponse)
        return None if answer is None else answer.data

    async def auth(self, host: str) -> Mapping[str, Any] | None:
        """Raises CannotAsk."""
        if CREDENTIALS not in self.session.methods:
            return None
        answer = await self._ask(CREDENTIALS, CredentialsRequest(host=host), CredentialsResponse)
        if answer is None or not answer.secret:
            return None
        if answer.username == REFRESH_TOKEN_USER:
            return {"identitytoken": answer.secret, "serveraddress": host}
        return {"username": answer.username, "password": answer.secret, "serveraddress": host}

    async def _ask(self, method: str, request: Any, type_: Any) -> Any:
        """The client's answer; None where it has no such thing."""
        try:
            async with asyncio.timeout(CALL_S):
                return await self.session.client.unary(method, request, type_)
        except Failed as error:
            if error.code in (Code.NOT_FOUND, Code.UNIMPLEMENTED):
                return None
            raise CannotAsk(reason=error.message) from None
        except TimeoutError:
            raise CannotAsk(reason=f"{method} took longer than {CALL_S:.0f} s") from None

    # --- ssh agents

    @contextlib.asynccontextmanager
    async def ssh(self, id: str) -> AsyncIterator[str | None]:
        """Path of a socket that leads to the client's agent `id` while the block runs; None: there is none."""
        if CHECK_AGENT not in self.session.methods:
            yield None
            return
        try:
            await self.session.client.unary(CHECK_AGENT, CheckAgentRequest(id=id), CheckAgentResponse)
        except Failed:
            yield None
            return
        async with agent_socket(lambda reader, writer: self._forward(id, reader, writer)) as path:
            yield path

    async def _forward(self, id: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection to the agent, carried in messages both ways."""
        call = self.session.client.call(FORWARD_AGENT, [("buildkit.ssh.id", id)])

        async def outward() -> None:
            while data := await reader.read(AGENT_READ_BYTES):
                await call.send(Bytes(data=data))
            await call.end()

        async def inward() -> None:
            while (message := await call.receive(Bytes)) is not None:
                writer.write(message.data)
                await writer.drain()
            writer.write_eof()

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(outward())
                group.create_task(inward())
        except* (Failed, OSError):
            pass
        finally:
            call.close()
            writer.close()
