"""`POST /build` with `Upgrade: tcp`, Pier's own: the client's files come over as far as they have changed (`sync`)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from pier.errors import PierError

from .hijack import Hijacked, take_over
from .stream import STARTED, error_trailer, json_line

if TYPE_CHECKING:
    from pier.builder.classic_build import ClassicRequest
    from pier.builder.service import BuildService
    from pier.builder.sync import Head
    from pier.builder.tree import Folder

SWITCHING: Final = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
BUFFER_BYTES: Final = 1 << 20
DISCARD_S: Final = 5.0


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def build_on_stream(request: web.Request, service: BuildService, asked: ClassicRequest) -> web.StreamResponse:
    """From the answer's head to the build's end; what fails is the stream's last line."""
    from pier.builder.classic_build import Files, classic_build  # noqa: PLC0415

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with _received(reader, writer, service) as (head, folder):
            files = Files(folder, head.dockerfile, head.ignore, head.ignore_name, head)
            await _tell(reader, writer, classic_build(service, asked, files))

    return await _on_stream(request, serve)


async def lend_on_stream(request: web.Request, service: BuildService, build: str, name: str) -> web.StreamResponse:
    """A further folder for a build, until the client closes; a line of JSON says that it is here."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with _received(reader, writer, service) as (_, folder):
            service.lending.lend(build, name, folder)
            try:
                writer.write(json_line({"lent": name}))
                await reader.read(1)
            finally:
                service.lending.take_back(build, name)

    return await _on_stream(request, serve)


async def _on_stream(request: web.Request, serve: Serve) -> web.StreamResponse:
    from pier.builder.sync import ClientGone  # noqa: PLC0415 - most daemons serve many requests before a build

    transport = request.transport
    if transport is None:
        raise ConnectionResetError
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(BUFFER_BYTES, loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    request[STARTED] = True
    take_over(request, protocol, SWITCHING)
    writer = asyncio.StreamWriter(transport, protocol, reader, loop)
    try:
        await serve(reader, writer)
    except (ConnectionError, ClientGone):
        pass
    except PierError as error:
        writer.write(json_line(error_trailer(error)))
        await _discard(reader)
    finally:
        writer.close()
    return Hijacked()


@contextlib.asynccontextmanager
async def _received(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, service: BuildService
) -> AsyncIterator[tuple[Head, Folder]]:
    """What the client sends first, and its files, which are kept as they are while the block runs."""
    from pier.builder import sync  # noqa: PLC0415

    head = await sync.read_head(reader)
    listing = await sync.read_listing(reader)
    context = await service.contexts.take(f"pier\0{head.folder}")
    try:
        yield head, await sync.receive(reader, listing, context, lambda wanted: writer.write(json_line(wanted)))
    finally:
        await service.contexts.give_back(context)


async def _discard(reader: asyncio.StreamReader) -> None:
    """Read what a client still sends, so that it comes to reading why that was in vain."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DISCARD_S):
            while await reader.read(BUFFER_BYTES):
                pass


async def _tell(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, messages: AsyncIterator[Mapping[str, Any] | bytes]
) -> None:
    """Send what a build tells; a client that goes ends it."""

    async def send() -> None:
        async with aclosing(messages) as told:  # type: ignore[type-var]
            async for message in told:
                writer.write(message if isinstance(message, bytes) else json_line(message))
                await writer.drain()

    telling = asyncio.create_task(send(), name="build on a stream")
    gone = asyncio.create_task(reader.read(1), name="client of a build")
    try:
        await asyncio.wait({telling, gone}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
        telling.cancel()
        await asyncio.gather(gone, telling, return_exceptions=True)
    if not telling.cancelled():
        telling.result()
