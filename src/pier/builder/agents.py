"""ssh agents of clients, for steps with `RUN --mount=type=ssh`: a socket that leads to one while a step runs.

A client without a session, as `pier build` is one, keeps a connection of its own open for each agent (`POST
/build/ssh`); a program that connects to the step's socket gets it, and the client opens the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, cast

from pier.errors import PierError

__all__ = ["Agents", "Forward", "Line", "agent_socket"]

READ_BYTES: Final = 32 << 10
PATIENCE_S: Final = 10.0
"""How long a program waits for the client's next connection."""

Forward = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class NoLine(PierError):
    """the client of this build has no connection to its ssh agent {id} left"""


@contextlib.asynccontextmanager
async def agent_socket(forward: Forward) -> AsyncIterator[str]:
    """Path of a socket whose connections `forward` carries on; all are ended with the block."""
    with tempfile.TemporaryDirectory(prefix="pier-agent-") as folder:
        path = os.path.join(folder, "agent.sock")
        forwards: set[asyncio.Task[None]] = set()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task: asyncio.Task[None] = asyncio.ensure_future(forward(reader, writer))
            forwards.add(task)
            task.add_done_callback(forwards.discard)

        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(path)
            server = await asyncio.start_unix_server(accept, sock=listener)
            try:
                yield path
            finally:
                server.close()
                for task in tuple(forwards):
                    task.cancel()
                await asyncio.gather(*forwards, return_exceptions=True)


class Line(asyncio.StreamReaderProtocol):
    """A connection to an agent, from its client; it has `writer` once it is connected."""

    writer: asyncio.StreamWriter

    def __init__(self) -> None:
        self.reader = asyncio.StreamReader()
        self.ended = asyncio.Event()
        """Used up, or closed by the client before anybody used it."""
        self.used = False
        super().__init__(self.reader)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        stream = cast(asyncio.Transport, transport)  # uvloop's is of a class of its own
        self.writer = asyncio.StreamWriter(stream, self, self.reader, asyncio.get_running_loop())

    def eof_received(self) -> bool | None:
        if not self.used:
            self.ended.set()
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.ended.set()


class Agents:
    """Connections that wait to be used, by build and by the agent's id; one per daemon."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, str], list[Line]] = {}
        self._news = asyncio.Condition()

    async def serve(self, build: str, id: str, line: Line) -> None:
        """Offer a connection until it has been used, or its client has gone."""
        waiting = self._waiting.setdefault((build, id), [])
        async with self._news:
            waiting.append(line)
            self._news.notify_all()
        try:
            await line.ended.wait()
        finally:
            with contextlib.suppress(ValueError):
                waiting.remove(line)
            if not waiting and self._waiting.get((build, id)) is waiting:
                del self._waiting[build, id]
            line.writer.close()

    async def take(self, build: str, id: str) -> Line:
        """A connection that nobody else uses. Raises NoLine."""
        try:
            async with asyncio.timeout(PATIENCE_S), self._news:
                await self._news.wait_for(lambda: self._waiting.get((build, id)))
                line = self._waiting[build, id].pop(0)
                line.used = True
                return line
        except TimeoutError:
            raise NoLine(id=id) from None

    async def carry(self, build: str, id: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry a step's connection over one of the client's, until either ends."""
        try:
            line = await self.take(build, id)
        except NoLine:
            writer.close()
            return
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_copy(reader, line.writer))
                group.create_task(_copy(line.reader, writer))
        except* OSError:
            pass
        finally:
            writer.close()
            line.ended.set()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(READ_BYTES):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
