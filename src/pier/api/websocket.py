"""Attach over a WebSocket (RFC 6455): output as binary messages without frames of its own, input as any messages.

A WebSocket has no half-close: when the client closes, its input is at its end and the session is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

from aiohttp import WSMsgType, web

from pier.containers.attach import Attachment
from pier.containers.unframed import Unframed

from . import detach
from .attachment import attachment_of
from .call import Call
from .router import Route
from .stream import STARTED

READ_BYTES = 32 << 10


async def attach(call: Call) -> web.StreamResponse:
    query, request = call.query, call.request
    keys = detach.parse_keys(query.text("detachKeys"))
    response = web.WebSocketResponse()
    if not response.can_prepare(request).ok:
        raise web.HTTPBadRequest(reason="this operation takes a websocket")
    attachment = await attachment_of(call)
    with contextlib.closing(attachment.sock):
        request[STARTED] = True
        await response.prepare(request)
        looked_for = detach.DetachFilter(keys) if attachment.tty and query.flag("stdin") else None
        sending = asyncio.create_task(_send(attachment, response))
        receiving = asyncio.create_task(_receive(response, attachment.sock, looked_for))
        try:
            await asyncio.wait({sending, receiving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, receiving):
                task.cancel()
            await asyncio.gather(sending, receiving, return_exceptions=True)
        await response.close()
    if looked_for is not None and looked_for.detached:
        call.engine.containers.detached(call.id)
    return response


async def _send(attachment: Attachment, response: web.WebSocketResponse) -> None:
    """The container's output, until it ends."""
    unframed = None if attachment.tty else Unframed()
    async for data in _output(attachment):
        text = data if unframed is None else unframed.feed(data)
        if text:
            await response.send_bytes(text)


async def _output(attachment: Attachment) -> AsyncIterator[bytes]:
    if attachment.prefix is not None:
        async for chunk in attachment.prefix:
            yield chunk
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(attachment.sock, READ_BYTES):
        yield data


async def _receive(response: web.WebSocketResponse, sock: socket.socket, keys: detach.DetachFilter | None) -> None:
    """The client's input, until it closes or detaches."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(ConnectionError):
        async for message in response:
            if message.type not in (WSMsgType.BINARY, WSMsgType.TEXT):
                break
            data = message.data.encode() if isinstance(message.data, str) else message.data
            await loop.sock_sendall(sock, data if keys is None else keys.feed(data))
            if keys is not None and keys.detached:
                return
        if keys is not None:
            await loop.sock_sendall(sock, keys.finish())


ROUTES = (Route("GET", "/containers/{id}/attach/ws", "ContainerAttachWebsocket", attach, streams=True),)
