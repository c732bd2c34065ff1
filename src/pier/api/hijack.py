"""Hijacked connections: after the request's head, an HTTP connection becomes the container's streams (attach, exec).

The transport is taken from aiohttp and spliced to `Attachment.sock` by two small protocols. Each half of the way closes
on its own (EOF of the client is EOF of the container's stdin, output goes on), a slow side stops the other (nothing is
buffered beyond the transports' high-water marks), and bytes that the HTTP parser read too far come first.
"""

from __future__ import annotations

import asyncio
import fcntl
import select
import sys
import termios
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, cast

from aiohttp import web

from pier.containers.attach import Attachment

from .detach import DetachFilter
from .server import Connection
from .versions import MULTIPLEXED_SINCE, Version

if TYPE_CHECKING:
    from aiohttp.abc import AbstractStreamWriter

RAW_STREAM = "application/vnd.docker.raw-stream"
MULTIPLEXED_STREAM = "application/vnd.docker.multiplexed-stream"

LINGER_S = 1.0
"""How long the client may take to close after the container's end: closing first could cost it unread output."""
HEAD_LOOK_S, HEAD_LOOKS = 0.001, 100
"""How often, and how many times, it is looked whether the client has read the head."""
HANGUP_POLL_S = 1.0
"""A client that closed its sending half is looked at this often, to see whether it went away altogether."""


Streams = Callable[[], Awaitable[Attachment]]
"""Opens what the client is connected to."""


def head(*, upgrade: bool, content_type: str, headers: dict[str, str]) -> bytes:
    """The head of the answer, with the words Docker's clients look for."""
    lines = ["HTTP/1.1 101 UPGRADED"] if upgrade else ["HTTP/1.1 200 OK"]
    lines.append(f"Content-Type: {content_type}")
    if upgrade:
        lines += ["Connection: Upgrade", "Upgrade: tcp"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def content_type(*, tty: bool, upgrade: bool, version: Version) -> str:
    """Two channels in frames are named only to clients that know the name."""
    return MULTIPLEXED_STREAM if upgrade and not tty and version >= MULTIPLEXED_SINCE else RAW_STREAM


def wants_upgrade(request: web.Request) -> bool:
    return "Upgrade" in request.headers


def hold_input(request: web.Request) -> None:
    """Read no more until `hijack`: what comes next is the container's input, not HTTP. A failure closes it."""
    if request.transport is not None:
        request.transport.pause_reading()


class Hijacked(web.Response):
    """What a handler returns when the connection no longer speaks HTTP: nothing is written."""

    def __init__(self) -> None:
        super().__init__()
        self.force_close()

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


class _Half(asyncio.Protocol):
    """One side of the splice: what it receives is written to the other side."""

    def __init__(self, session: _Session) -> None:
        self.session = session
        self.transport: asyncio.Transport | None = None
        self.other: _Half
        self.silent = asyncio.get_running_loop().create_future()
        """Done when nothing more will come in."""
        self.writable = asyncio.Event()
        self.writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.other.write(data)

    def eof_received(self) -> bool:
        self._fall_silent()
        self.other.write_eof()
        return True  # the other half of this connection stays

    def write(self, data: bytes) -> None:
        if data and self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def write_eof(self) -> None:
        if self.transport is not None and not self.transport.is_closing() and self.transport.can_write_eof():
            try:
                self.transport.write_eof()
            except (OSError, RuntimeError):  # it has just gone; connection_lost follows
                self.transport.abort()

    def pause_writing(self) -> None:
        self.writable.clear()
        self.other.pause_reading()

    def resume_writing(self) -> None:
        self.writable.set()
        self.other.resume_reading()

    def pause_reading(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self.writable.set()
        self._fall_silent()

    def _fall_silent(self) -> None:
        if not self.silent.done():
            self.silent.set_result(None)

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()


class _ContainerHalf(_Half):
    """The container's side; its EOF is the end of the session."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if not self.other.writable.is_set():
            self.pause_reading()

    def eof_received(self) -> bool:
        super().eof_received()
        self.session.finish()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.session.finish()


class _ClientHalf(_Half):
    """The client's side: keeps aiohttp's handler informed, watches for the detach keys."""

    def __init__(self, session: _Session, handler: asyncio.Protocol, keys: bytes | None) -> None:
        super().__init__(session)
        self._handler = handler
        self._filter = DetachFilter(keys) if keys else None

    def data_received(self, data: bytes) -> None:
        if self._filter is None:
            self.other.write(data)
            return
        self.other.write(self._filter.feed(data))
        if self._filter.detached:
            self._filter = None
            self.session.detach()

    def eof_received(self) -> bool:
        if self._filter is not None:
            self.other.write(self._filter.finish())
        super().eof_received()
        self.session.watch_for_hangup()
        return True

    def is_hung_up(self) -> bool:
        """Whether the peer of a unix socket closed both halves. (TCP tells only when it is written to.)"""
        if self.transport is None:
            return True
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), 0)
        return any(events & (select.POLLHUP | select.POLLERR) for _, events in poll.poll(0))

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._handler.connection_lost(exc)
        self.session.hang_up()


class _Session:
    """A splice in being, and how it ends."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self.was_detached = False
        self.client: _ClientHalf
        self._timer: asyncio.TimerHandle | None = None

    def finish(self) -> None:
        """The container's side is done: the client gets what is on its way, then EOF."""
        if not self.ended.done():
            self.ended.set_result(None)

    def detach(self) -> None:
        self.was_detached = True
        self.finish()

    def hang_up(self) -> None:
        """The client is gone."""
        self.finish()

    def watch_for_hangup(self) -> None:
        """Look whether the client closed both halves, now and every HANGUP_POLL_S."""
        if self.ended.done():
            return
        if self.client.is_hung_up():
            if self.client.transport is not None:
                self.client.transport.abort()
        else:
            self._timer = self._loop.call_later(HANGUP_POLL_S, self.watch_for_hangup)

    def stop_watching(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


async def hijack(request: web.Request, streams: Streams, answer: bytes, keys: bytes | None) -> bool:
    """Answer, then carry bytes between the client and the container until one of them is done.

    `answer` is the head, `streams` has what follows it, `keys` are the detach keys to look for (None: none). Closes
    the attachment's socket and the connection. True: the client detached.
    """
    transport = request.transport
    if transport is None:
        (await streams()).sock.close()
        return False
    session = _Session()
    container = _ContainerHalf(session)
    client = session.client = _ClientHalf(session, cast(asyncio.Protocol, request.protocol), keys)
    client.other, container.other = container, client
    tail = _take_over(request, transport, client)
    attachment = None
    try:
        client.write(answer)
        attachment = await streams()
        await _head_is_read(transport)
        await _send_prefix(client, attachment.prefix)
        loop = asyncio.get_running_loop()
        await loop.create_unix_connection(lambda: container, sock=attachment.sock)
        if tail:
            client.data_received(tail)
        if container.writable.is_set():
            client.resume_reading()
        await session.ended
        await _close_client(client, detached=session.was_detached)
    finally:
        session.stop_watching()
        client.close()
        if container.transport is None and attachment is not None:
            attachment.sock.close()
        container.close()
    return session.was_detached


def take_over(request: web.Request, protocol: asyncio.Protocol, answer: bytes) -> None:
    """Answer, and let another protocol have the connection with all that came behind the request.

    aiohttp's own learns of the connection's end when its handler does: when it returns `Hijacked`.
    """
    transport = request.transport
    if transport is None:
        protocol.connection_lost(None)
        return
    early = cast(Connection, request.protocol).take_early()
    transport.set_protocol(protocol)
    transport.write(answer)
    protocol.connection_made(transport)
    if early:
        protocol.data_received(early)
    transport.resume_reading()


def _take_over(request: web.Request, transport: asyncio.Transport, client: _ClientHalf) -> bytes:
    """Give the transport to the client's half, paused; returns what has come behind the request."""
    client.connection_made(transport)
    transport.set_protocol(client)
    client.pause_reading()
    return cast(Connection, request.protocol).take_early()


async def _head_is_read(transport: asyncio.Transport) -> None:
    """Wait, not for long, until the client has taken the head.

    Some clients (docker-py, all that read the head through a buffer and then the bare socket) lose what comes with it.
    """
    sock = transport.get_extra_info("socket")
    for _ in range(HEAD_LOOKS):
        if transport.is_closing() or not _unread(sock.fileno()):
            return
        await asyncio.sleep(HEAD_LOOK_S)


def _unread(fd: int) -> int:
    """How much of what was sent the peer has not received (unix(7), tcp(7): SIOCOUTQ)."""
    return int.from_bytes(fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(4)), sys.byteorder)


async def _send_prefix(client: _ClientHalf, prefix: AsyncIterator[bytes] | None) -> None:
    if prefix is None:
        return
    async for chunk in prefix:
        client.write(chunk)
        await client.writable.wait()
        if client.transport is None:
            return


async def _close_client(client: _ClientHalf, *, detached: bool) -> None:
    """Send EOF (after what is buffered), then wait a little for the client's; its input is dropped."""
    if client.transport is None or detached:
        return
    client.other = _Sink(client.session)
    client.resume_reading()
    client.write_eof()
    await asyncio.wait([client.silent], timeout=LINGER_S)


class _Sink(_Half):
    """Where input goes that nobody reads any more."""

    def write(self, data: bytes) -> None:
        """Drop it."""

    def write_eof(self) -> None:
        """Nobody to tell."""
