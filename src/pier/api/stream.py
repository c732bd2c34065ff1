"""Answers that grow: JSON documents one a line, and raw bytes, sent as they come and as fast as they are read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, aclosing
from typing import Any

import msgspec
from aiohttp import web

from .errors import status_and_message

JSON = "application/json"
HEAD_DELAY_S = 0.02
"""How long an error may take to come before the head of a stream of bytes."""
STARTED = web.RequestKey("started", bool)
"""Set in a request whose answer has begun."""

Encoder = Callable[[Any], bytes]


def json_line(value: Any) -> bytes:
    return msgspec.json.encode(value) + b"\n"


def progress_line(message: Mapping[str, Any]) -> bytes:
    """As Docker ends the lines of its progress."""
    return msgspec.json.encode(message) + b"\r\n"


def json_seq(value: Any) -> bytes:
    """RFC 7464: a record separator before each document."""
    return b"\x1e" + json_line(value)


async def open_stream(
    request: web.Request, content_type: str, headers: Mapping[str, str] | None = None
) -> web.StreamResponse:
    """Send the head at once, before there is anything to say."""
    response = web.StreamResponse(headers={**(headers or {}), "Content-Type": content_type})
    request[STARTED] = True
    await response.prepare(request)
    return response


async def send_progress(
    request: web.Request, messages: AsyncIterator[Mapping[str, Any] | bytes], *, head_first: bool = False
) -> web.StreamResponse:
    """Progress of a pull, load or import; a message that is bytes goes as it is.

    A failure before the first message is an ordinary error, unless `head_first`; later it is the last line, as Docker
    writes it.
    """
    response = await open_stream(request, JSON) if head_first else None
    async with closing(messages):
        try:
            async for message in messages:
                if response is None:
                    response = await open_stream(request, JSON)
                await response.write(message if isinstance(message, bytes) else progress_line(message))
        except ConnectionError:
            raise
        except Exception as error:
            if response is None:
                raise
            await response.write(progress_line(error_trailer(error)))
    if response is None:
        response = await open_stream(request, JSON)
    await response.write_eof()
    return response


def error_trailer(error: Exception) -> dict[str, Any]:
    """The last line of a stream that failed."""
    _, message = status_and_message(error)
    return {"errorDetail": {"message": message}, "error": message}


async def send_bytes(
    request: web.Request,
    chunks: AsyncIterator[bytes],
    *,
    content_type: str,
    headers: Mapping[str, str] | None = None,
) -> web.StreamResponse:
    """Raw bytes. What fails within HEAD_DELAY_S is an ordinary error; then the head goes, bytes or no bytes.

    A failure later can only end the connection.
    """
    async with closing(chunks):
        first = asyncio.ensure_future(anext(chunks, None))
        try:
            await asyncio.wait({first}, timeout=HEAD_DELAY_S)
            if first.done():
                first.result()
            response = await open_stream(request, content_type, headers)
            chunk = await first
        finally:
            await _settle(first)
        while chunk is not None:
            await response.write(chunk)
            chunk = await anext(chunks, None)
    await response.write_eof()
    return response


async def _settle(future: asyncio.Future[Any]) -> None:
    """Cancel a future that nobody waits for any more, and wait until that is so."""
    if not future.done():
        future.cancel()
        await asyncio.wait({future})


def closing(items: AsyncIterator[Any]) -> Any:
    """Close an asynchronous generator when its reader stops early."""
    return aclosing(items) if hasattr(items, "aclose") else AsyncExitStack()
