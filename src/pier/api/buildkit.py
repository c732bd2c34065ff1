"""BuildKit's door: connections that become HTTP/2, by an upgrade (`/session`, `/grpc`) or from their first byte.

On `/session` the client serves and the daemon calls; on the others it is the other way round.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from aiohttp import web

from pier.errors import InvalidParameter

from .call import Call
from .hijack import Hijacked, take_over
from .router import Route
from .stream import STARTED

if TYPE_CHECKING:
    from pier.buildkit.door import Door

DOOR: web.AppKey[Callable[[], Door]] = web.AppKey("DOOR")
"""Makes the door, or gives the one that was made: what it loads is loaded for its first client."""
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"


class NotH2c(InvalidParameter):
    """unsupported upgrade type: {asked!r}"""

    remedy = "this operation takes `Upgrade: h2c`"


async def session(call: Call) -> web.StreamResponse:
    """A client offers what a build may ask it for."""
    _require_h2c(call.request)
    headers = call.request.headers
    door = call.request.app[DOOR]()
    offered = door.session(
        headers.get("X-Docker-Expose-Session-Uuid", ""),
        shared_key=headers.get("X-Docker-Expose-Session-Sharedkey", ""),
        methods=headers.getall("X-Docker-Expose-Session-Grpc-Method", []),
    )
    call.request[STARTED] = True
    take_over(call.request, offered.connection, SWITCHING)
    await door.sessions.serve(offered)
    return Hijacked()


async def grpc(call: Call) -> web.StreamResponse:
    """A client calls the builder's services."""
    _require_h2c(call.request)
    server = call.request.app[DOOR]().server()
    call.request[STARTED] = True
    take_over(call.request, server.connection, SWITCHING)
    await server.serve()
    return Hijacked()


def accept(door: Door, transport: asyncio.Transport, early: bytes) -> asyncio.Task[None]:
    """Serve a connection that has spoken HTTP/2 from its first byte."""
    server = door.server()
    transport.set_protocol(server.connection)
    server.connection.connection_made(transport)
    server.connection.data_received(early)
    return asyncio.create_task(server.serve(), name="gRPC connection")


def _require_h2c(request: web.Request) -> None:
    if request.headers.get("Upgrade", "").lower() != "h2c":
        raise NotH2c(asked=request.headers.get("Upgrade", ""))


ROUTES = (
    Route("POST", "/session", "Session", session, streams=True),
    Route("POST", "/grpc", "GRPC", grpc, streams=True),
)
