"""ssh agents of clients without a session: connections that wait to be used by a step's programs."""

from __future__ import annotations

import asyncio
import socket

import pytest

from pier.builder.agents import Agents, Line, agent_socket
from pier.builder.session import Given


async def line_to(agents: Agents, build: str, id: str) -> tuple[socket.socket, asyncio.Task[None]]:
    """The client's end of a connection, and its being served."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    _, line = await asyncio.get_running_loop().create_connection(Line, sock=theirs)
    return ours, asyncio.create_task(agents.serve(build, id, line))


async def test_a_program_talks_to_the_agent() -> None:
    agents, loop = Agents(), asyncio.get_running_loop()
    client, served = await line_to(agents, "b", "default")
    session = Given(agents={"default": lambda reader, writer: agents.carry("b", "default", reader, writer)})
    async with session.ssh("default") as path:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"question")
        assert await loop.sock_recv(client, 100) == b"question"
        await loop.sock_sendall(client, b"answer")
        assert await reader.readexactly(6) == b"answer"
        client.close()
        assert await reader.read() == b""
        writer.close()
        await served
    async with session.ssh("other") as path:
        assert path is None


async def test_each_program_has_a_connection_of_its_own() -> None:
    agents, loop = Agents(), asyncio.get_running_loop()
    first, one = await line_to(agents, "b", "x")
    async with agent_socket(lambda reader, writer: agents.carry("b", "x", reader, writer)) as path:
        writers = [(await asyncio.open_unix_connection(path))[1] for _ in range(2)]
        writers[0].write(b"0")
        assert await loop.sock_recv(first, 1) == b"0"
        writers[1].write(b"1")
        second, two = await line_to(agents, "b", "x")
        assert await loop.sock_recv(second, 1) == b"1"
        for end in (first, second, *writers):
            end.close()
        await asyncio.gather(one, two)


async def test_a_client_that_goes_takes_its_connection_along(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pier.builder.agents.PATIENCE_S", 0.01)
    agents = Agents()
    client, served = await line_to(agents, "b", "x")
    client.close()
    await served
    async with agent_socket(lambda reader, writer: agents.carry("b", "x", reader, writer)) as path:
        reader, writer = await asyncio.open_unix_connection(path)
        assert await reader.read() == b"", "nobody is there any more"
        writer.close()
    assert not agents._waiting
