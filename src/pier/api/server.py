"""Connections to the API: aiohttp's, save that bytes sent behind a request to upgrade are not read as HTTP.

aiohttp's parser knows one upgrade, to websockets. Docker's clients ask for `tcp`, and what they send behind that is the
container's input, or for `h2c`. So the stream is fed to the parser in pieces that end where heads end (feeding in
pieces changes nothing of what it parses), and the parser itself says whether the last piece completed such a request.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, cast

from aiohttp import StreamReader, web
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD

log = logging.getLogger("pier.api")

MAX_HEADER_BYTES = 128 << 10
"""Of the request line and of each header: filters and registry credentials travel there."""
MAX_EARLY_BYTES = 64 << 10
"""Of input that comes before the connection is taken over; then reading stops."""
BACKLOG = 4096

HANDLER_OPTIONS: Final[dict[str, Any]] = {
    "access_log": None,
    "auto_decompress": False,  # a compressed body is never inflated unasked
    "max_line_size": MAX_HEADER_BYTES,
    "max_field_size": MAX_HEADER_BYTES,
    "keepalive_timeout": 300.0,
}
_HEAD_END = b"\r\n\r\n"
UPGRADES = frozenset({"tcp", "h2c"})
HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n"
"""How a connection begins that is HTTP/2 from its first byte (RFC 9113, section 3.4)."""

AcceptHttp2 = Callable[[asyncio.Transport, bytes], asyncio.Task[None]]
"""Takes such a connection and what has come of it; the task ends with it."""


class Peer(NamedTuple):
    """Who is at the other end of a unix socket, when it connected (SO_PEERCRED, unix(7))."""

    pid: int
    uid: int
    gid: int

    @classmethod
    def of(cls, sock: socket.socket) -> Peer:
        return cls(*struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)))


class Connection(web.RequestHandler):
    """One client's connection, until it is taken over."""

    __slots__ = ("_accept_http2", "_body", "_body_left", "_early", "_last")

    def __init__(self, *args: Any, accept_http2: AcceptHttp2 | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._accept_http2 = accept_http2
        """None as soon as it is known to be HTTP/1."""
        self._last = b""
        """The last three bytes, in which a head's end may have begun."""
        self._body: StreamReader = EMPTY_PAYLOAD
        """Of the request parsed last."""
        self._body_left: int | None = None
        """Of the request that asked to upgrade; None: none did."""
        self._early = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if log.isEnabledFor(logging.DEBUG):
            log.debug("a client connected: %s", Peer.of(transport.get_extra_info("socket")))

    def data_received(self, data: bytes) -> None:
        """asyncio's call with what came in; aiohttp's own with nothing, to go on parsing."""
        if not data:
            super().data_received(data)
        if data and self._accept_http2 is not None:
            accept, self._accept_http2 = self._accept_http2, None
            if data.startswith(HTTP2_PREFACE):
                self._hand_over(accept, data)
                return
        while data:
            size = self._piece(data)
            if size == 0:
                self._keep(data)
                return
            piece, data = data[:size], data[size:]
            before = self._request_count
            super().data_received(piece)
            if self._body_left is not None:
                self._body_left -= size
            elif self._request_count > before:
                self._note_request()

    def _hand_over(self, accept: AcceptHttp2, data: bytes) -> None:
        transport = cast(asyncio.Transport, self.transport)
        self.transport = None  # or aiohttp would close it
        self.connection_lost(None)
        accept(transport, data)

    def take_early(self) -> bytes:
        """What came behind the request that asked to upgrade."""
        early, self._early = bytes(self._early), bytearray()
        return early

    def _piece(self, data: bytes) -> int:
        """How much of `data` the parser may see next."""
        if self._body_left is not None:
            return min(self._body_left, len(data))
        if not self._body.is_eof():  # no head can end in there: not looking keeps a hostile body from costing much
            return len(data)
        found = (self._last + data).find(_HEAD_END)
        size = found + len(_HEAD_END) - len(self._last) if found >= 0 else len(data)
        self._last = (self._last + data[:size])[-3:]
        return size

    def _note_request(self) -> None:
        """Look at the request just parsed: what belongs to it, and whether it asks to upgrade to tcp."""
        self._last = b""
        message, self._body = self._messages[-1]
        if not isinstance(message, RawRequestMessage) or message.chunked:
            return
        if message.headers.get("Upgrade", "").lower() in UPGRADES:
            self._body_left = int(message.headers.get("Content-Length", "0"))

    def _keep(self, data: bytes) -> None:
        self._early += data
        if len(self._early) >= MAX_EARLY_BYTES and self.transport is not None:
            self.transport.pause_reading()


class Server:
    """An application on listening sockets."""

    def __init__(
        self, app: web.Application, *, shutdown_timeout_s: float = 15.0, accept_http2: AcceptHttp2 | None = None
    ) -> None:
        self._accept = accept_http2
        self._http2: set[asyncio.Task[None]] = set()
        self._runner = web.AppRunner(
            app, handle_signals=False, handler_cancellation=True, shutdown_timeout=shutdown_timeout_s
        )
        self._listeners: list[asyncio.Server] = []

    async def start(self, sockets: Sequence[socket.socket]) -> None:
        """Accept connections on bound unix sockets."""
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        for sock in sockets:
            listener = await loop.create_unix_server(self._connection, sock=sock, backlog=BACKLOG)
            self._listeners.append(listener)

    def _connection(self) -> Connection:
        assert self._runner.server is not None, "start comes first"
        return Connection(
            self._runner.server,
            loop=asyncio.get_running_loop(),
            accept_http2=self._take_http2 if self._accept is not None else None,
            **HANDLER_OPTIONS,
        )

    def _take_http2(self, transport: asyncio.Transport, early: bytes) -> asyncio.Task[None]:
        assert self._accept is not None
        task = self._accept(transport, early)
        self._http2.add(task)
        task.add_done_callback(self._http2.discard)
        return task

    async def close(self) -> None:
        """Accept no more, give running requests `shutdown_timeout_s` to end, then cut them off."""
        for listener in self._listeners:
            listener.close()
        for task in self._http2:
            task.cancel()
        await asyncio.gather(*self._http2, return_exceptions=True)
        await self._runner.cleanup()
