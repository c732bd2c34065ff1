"""Two ends of a gRPC connection in one process."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Mapping

from pier.buildkit.grpc import Client, Method, Server
from pier.buildkit.http2 import Connection


@contextlib.asynccontextmanager
async def connected(methods: Mapping[str, Method]) -> AsyncIterator[Client]:
    """A client of a server with these methods, over a socket pair."""
    here, there = socket.socketpair()
    loop = asyncio.get_running_loop()
    server = Server(methods)
    await loop.create_connection(lambda: server.connection, sock=there)
    serving = asyncio.create_task(server.serve())
    connection = Connection()
    await loop.create_connection(lambda: connection, sock=here)
    try:
        yield Client(connection)
    finally:
        connection.close()
        await serving
