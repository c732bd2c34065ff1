"""HTTP/2 (RFC 9113) over a connection that has been taken over from HTTP/1.1, for either side of it.

gRPC needs little of HTTP/2: streams with headers, data both ways, trailers and resets. What comes in is kept until it
is read and acknowledged only then, so a peer can never have more on its way than the windows allow; what goes out
waits for the peer's window and for the transport.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RemoteSettingsChanged,
    RequestReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings

__all__ = ["CANCEL", "Connection", "ConnectionLost", "Headers", "Stream", "StreamClosed"]

Headers = Sequence[tuple[str, str]]

STREAM_WINDOW = 4 << 20
"""Bytes of one stream that may wait to be read."""
CONNECTION_WINDOW = 8 << 20
FRAME_HEAD = struct.Struct(">BHBBI")
"""Length (24 bits), type, flags, stream (RFC 9113, section 4.1)."""
FRAME_BYTES = 1 << 14
"""The most a frame may hold, since we allow no more (SETTINGS_MAX_FRAME_SIZE)."""
MAX_STREAMS = 1024
MAX_HEADER_BYTES = 64 << 10
NO_ERROR, CANCEL = 0, 8  # RFC 9113, section 7


class ConnectionLost(ConnectionError):
    """The other side has gone."""


class StreamClosed(Exception):
    """The other side wants no more of this stream (RST_STREAM)."""


class Stream:
    """One request and its answer."""

    def __init__(self, connection: Connection, id: int) -> None:
        self.id = id
        self.headers: asyncio.Future[list[tuple[str, str]]] = asyncio.get_running_loop().create_future()
        """Of the other side. Fails with StreamClosed or ConnectionLost where none will come."""
        self.trailers: list[tuple[str, str]] = []
        self._connection = connection
        self._chunks: deque[tuple[bytes, int]] = deque()
        """(data, what of the window it takes up)."""
        self._news = asyncio.Event()
        self._ended = False
        self._failure: Exception | None = None
        self._unsendable: StreamClosed | None = None
        self.window_open = asyncio.Event()
        self.closed = asyncio.Event()
        """Set when the other side wants no more of it, or is gone."""

    async def read(self) -> bytes:
        """What has come in next; empty at the end. Raises StreamClosed, ConnectionLost."""
        while not self._chunks:
            if self._failure is not None:
                raise self._failure
            if self._ended:
                return b""
            self._news.clear()
            await self._news.wait()
        data, window = self._chunks.popleft()
        self._connection.acknowledge(self.id, window)
        return data

    async def send_headers(self, headers: Headers, *, end: bool = False) -> None:
        """Head or trailers. Raises StreamClosed, ConnectionLost."""
        self._check()
        await self._connection.send(lambda h2: h2.send_headers(self.id, headers, end_stream=end))

    async def send_data(self, data: bytes, *, end: bool = False) -> None:
        """Wait for the other side's window as often as it takes. Raises StreamClosed, ConnectionLost."""
        rest = memoryview(data)
        while True:
            self._check()
            size = min(len(rest), self._connection.window(self.id))
            if size or not rest:
                piece, rest = bytes(rest[:size]), rest[size:]
                await self._connection.send(partial(self._send_piece, piece, end=end and not rest))
                if not rest:
                    return
            else:
                self.window_open.clear()
                await self.window_open.wait()

    def _send_piece(self, piece: bytes, h2: H2Connection, *, end: bool) -> None:
        h2.send_data(self.id, piece, end_stream=end)

    def reset(self, code: int = CANCEL) -> None:
        """Want no more of it, either way; one that has ended is no error."""
        self.fail(StreamClosed())
        self._connection.reset(self.id, code)

    def release(self) -> None:
        """What nobody will read is acknowledged, so that others' data goes on coming."""
        while self._chunks:
            self._connection.acknowledge(self.id, self._chunks.popleft()[1])

    # --- from the connection

    def feed(self, data: bytes, window: int) -> None:
        self._chunks.append((data, window))
        self._news.set()

    def end(self) -> None:
        self._ended = True
        self._news.set()

    def cut(self, error: StreamClosed) -> None:
        """The other side wants no more of it; what it has sent to its end before can still be read."""
        if self._ended and self.headers.done():
            self._unsendable = error
            self.window_open.set()
            self.closed.set()
        else:
            self.release()
            self.fail(error)

    def fail(self, error: Exception) -> None:
        self._failure = self._failure or error
        if not self.headers.done():
            self.headers.set_exception(error)
            self.headers.exception()  # nobody may have asked
        self._news.set()
        self.window_open.set()
        self.closed.set()

    def _check(self) -> None:
        if error := self._failure or self._unsendable:
            raise error


class Joiner:
    """Makes one DATA frame of those that follow one another on a stream, as it may (RFC 9113, section 6.1).

    gRPC's servers send a frame for each message, and a frame costs h2 more than a message costs us.
    """

    def __init__(self) -> None:
        self._rest = b""

    def join(self, data: bytes) -> bytes:
        """The whole frames of what has come in, joined; the beginning of one waits for its end."""
        data = self._rest + data if self._rest else data
        out: list[bytes] = []
        run: list[bytes] = []
        run_stream = run_size = at = 0
        while at + FRAME_HEAD.size <= len(data):
            high, low, kind, flags, stream = FRAME_HEAD.unpack_from(data, at)
            size = high << 16 | low
            start, end = at + FRAME_HEAD.size, at + FRAME_HEAD.size + size
            if size > FRAME_BYTES:
                end = len(data)  # it is refused for its head alone
            elif end > len(data):
                break
            plain = not kind and not flags and size <= FRAME_BYTES
            if run and not (plain and stream == run_stream and run_size + size <= FRAME_BYTES):
                out += _data_frame(run_stream, run_size), *run
                run, run_size = [], 0
            if plain:
                run.append(data[start:end])
                run_stream, run_size = stream, run_size + size
            else:
                out.append(data[at:end])
            at = end
        if run:
            out += _data_frame(run_stream, run_size), *run
        self._rest = data[at:]
        return b"".join(out)


def _data_frame(stream: int, size: int) -> bytes:
    return FRAME_HEAD.pack(size >> 16, size & 0xFFFF, 0, 0, stream)


class Connection(asyncio.Protocol):
    """One side of a connection. `accept` is called with each stream the other side opens; a client's side has none."""

    def __init__(self, *, accept: Callable[[Stream], None] | None = None) -> None:
        config = H2Configuration(client_side=accept is None, header_encoding="utf-8")
        self._h2 = H2Connection(config)
        self._accept = accept
        self._joiner = Joiner() if accept is None else None  # a server sends many messages, a client few
        self._streams: dict[int, Stream] = {}
        self._transport: asyncio.Transport | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the connection is gone."""

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._h2.local_settings = Settings(
            client=self._accept is None,
            initial_values={
                SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
                SettingCodes.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
                SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEADER_BYTES,
                SettingCodes.ENABLE_PUSH: 0,
            },
        )
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(CONNECTION_WINDOW - 65535)
        self._flush()

    def data_received(self, data: bytes) -> None:
        if self._joiner is not None:
            data = self._joiner.join(data)
        try:
            events = self._h2.receive_data(data)
        except ProtocolError:
            self._flush()  # it says what was wrong (GOAWAY)
            self.close()
            return
        for event in events:
            self._take(event)
        self._flush()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        for stream in tuple(self._streams.values()):
            stream.fail(ConnectionLost("the connection is gone"))
        self._streams.clear()
        self._writable.set()
        if not self.lost.done():
            self.lost.set_result(None)

    # --- for streams and their owners

    def open(self, headers: Headers) -> Stream:
        """A new stream with its head, on a client's side. Raises ConnectionLost, StreamClosed."""
        if self._transport is None:
            raise ConnectionLost("the connection is gone")
        try:
            id = self._h2.get_next_available_stream_id()
            self._h2.send_headers(id, headers)
        except ProtocolError as error:  # as many streams as the other side allows
            raise StreamClosed(str(error)) from None
        stream = self._streams[id] = Stream(self, id)
        self._flush()
        return stream

    async def send(self, deed: Callable[[H2Connection], None]) -> None:
        """Do something that makes bytes; waits while too many are on their way.

        Raises ConnectionLost, StreamClosed.
        """
        await self._writable.wait()
        if self._transport is None:
            raise ConnectionLost("the connection is gone")
        try:
            deed(self._h2)
        except ProtocolError as error:  # reset or closed by the other side meanwhile
            raise StreamClosed(str(error)) from None
        self._flush()

    def window(self, id: int) -> int:
        """How many bytes one frame of a stream may have now."""
        try:
            return max(0, min(self._h2.local_flow_control_window(id), self._h2.max_outbound_frame_size))
        except ProtocolError as error:
            raise StreamClosed(str(error)) from None

    def acknowledge(self, id: int, size: int) -> None:
        if self._transport is None or not size:
            return
        try:
            self._h2.acknowledge_received_data(size, id)
        except ProtocolError:
            return  # the stream is gone, and the connection's share was given back with it
        self._flush()

    def reset(self, id: int, code: int) -> None:
        self._streams.pop(id, None)
        if self._transport is None:
            return
        try:
            self._h2.reset_stream(id, code)
        except ProtocolError:
            return
        self._flush()

    def close(self) -> None:
        """Send what is buffered and hang up."""
        if self._transport is not None:
            try:
                self._h2.close_connection()
                self._flush()
            except ProtocolError:
                pass
            if self._transport is not None:
                self._transport.close()

    # --- events

    def _take(self, event: Event) -> None:
        if isinstance(event, RequestReceived):
            self._request(event)
        elif isinstance(event, (WindowUpdated, RemoteSettingsChanged)):
            for each in self._streams.values():
                each.window_open.set()
        elif isinstance(event, ConnectionTerminated):
            self.close()
        elif stream := self._streams.get(getattr(event, "stream_id", 0)):
            self._give(stream, event)
        elif isinstance(event, DataReceived):
            self.acknowledge(event.stream_id, event.flow_controlled_length)

    def _request(self, event: RequestReceived) -> None:
        if self._accept is None:
            self.reset(event.stream_id, CANCEL)
            return
        stream = self._streams[event.stream_id] = Stream(self, event.stream_id)
        stream.headers.set_result(_texts(event.headers))
        self._accept(stream)

    def _give(self, stream: Stream, event: Event) -> None:
        match event:
            case ResponseReceived() if not stream.headers.done():
                stream.headers.set_result(_texts(event.headers))
            case DataReceived():
                stream.feed(event.data, event.flow_controlled_length)
            case TrailersReceived():
                stream.trailers = _texts(event.headers)
            case StreamEnded():
                stream.end()
            case StreamReset():
                self._streams.pop(stream.id, None)
                stream.cut(StreamClosed(f"reset by the other side (code {event.error_code})"))

    def forget(self, stream: Stream) -> None:
        """A stream that both sides are done with."""
        stream.release()
        self._streams.pop(stream.id, None)

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)


def _texts(headers: Sequence[tuple[str | bytes, str | bytes]] | None) -> list[tuple[str, str]]:
    return [(_text(name), _text(value)) for name, value in headers or ()]


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "replace")
