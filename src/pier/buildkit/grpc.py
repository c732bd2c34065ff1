"""gRPC over HTTP/2, both sides of it (gRPC's "PROTOCOL-HTTP2.md").

A message on the wire is a byte that says whether it is compressed, its length in four bytes, and itself. A call is a
stream: messages both ways, then the server's trailers with `grpc-status`. Compression is not offered, so it is refused.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import enum
import logging
import re
import struct
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import quote, unquote

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError, Message

from pier.buildkit.http2 import Connection, ConnectionLost, Headers, Stream, StreamClosed
from pier.buildkit.pb.status_pb2 import Status as StatusMessage
from pier.errors import PierError

__all__ = ["Call", "Client", "ClientCall", "Code", "Failed", "Method", "Server", "stream", "unary"]

log = logging.getLogger("pier.buildkit")

M = TypeVar("M", bound=Message)
MAX_MESSAGE_BYTES = 16 << 20
HEAD = struct.Struct(">BI")
HEAD_BYTES = HEAD.size
CONTENT_TYPE = ("content-type", "application/grpc")


class Code(enum.IntEnum):
    """Statuses ("Status codes and their use in gRPC")."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


OF_STATUS = {
    400: Code.INVALID_ARGUMENT,
    401: Code.UNAUTHENTICATED,
    403: Code.PERMISSION_DENIED,
    404: Code.NOT_FOUND,
    409: Code.FAILED_PRECONDITION,
    501: Code.UNIMPLEMENTED,
    503: Code.UNAVAILABLE,
}
"""What an error's HTTP status is in gRPC."""


class Failed(Exception):
    """A call that failed, on either side."""

    def __init__(self, code: Code | int, message: str, details: Sequence[AnyMessage] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = tuple(details)


EXPECTED = (Failed, PierError, TimeoutError, StreamClosed, ConnectionLost)


def status_of(error: Exception) -> tuple[int, str, Sequence[AnyMessage]]:
    """(code, message, details) that a handler's error means."""
    match error:
        case Failed():
            return error.code, error.message, error.details
        case PierError():
            return OF_STATUS.get(error.status, Code.UNKNOWN), error.wire, ()
        case TimeoutError():
            return Code.DEADLINE_EXCEEDED, "context deadline exceeded", ()
        case StreamClosed() | ConnectionLost():
            return Code.CANCELLED, "context canceled", ()
    return Code.INTERNAL, f"{type(error).__name__}: {error}", ()


# --- messages on a stream


class _Reader:
    """Cuts a stream into messages."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._buffer = bytearray()

    async def read(self, type_: type[M]) -> M | None:
        """The next message, None at the end. Raises Failed, StreamClosed, ConnectionLost."""
        while (body := self._whole()) is None:
            chunk = await self._stream.read()
            if not chunk:
                if self._buffer:
                    raise Failed(Code.INTERNAL, "the stream ended within a message")
                return None
            self._buffer += chunk
        try:
            return type_.FromString(body)
        except DecodeError:
            raise Failed(Code.INVALID_ARGUMENT, f"this is no {type_.__name__}") from None

    def _whole(self) -> bytes | None:
        """Take the next message if all of it is there. Raises Failed."""
        if len(self._buffer) < HEAD_BYTES:
            return None
        compressed, size = HEAD.unpack_from(self._buffer)
        if compressed:
            raise Failed(Code.UNIMPLEMENTED, "compressed messages are not supported")
        if size > MAX_MESSAGE_BYTES:
            raise Failed(Code.RESOURCE_EXHAUSTED, f"a message of {size} bytes is more than {MAX_MESSAGE_BYTES}")
        end = HEAD_BYTES + size
        if len(self._buffer) < end:
            return None
        found = bytes(self._buffer[HEAD_BYTES:end])
        del self._buffer[:end]
        return found


def _framed(message: Message) -> bytes:
    body = message.SerializeToString()
    return b"\0" + len(body).to_bytes(4) + body


def _metadata(headers: Headers) -> dict[str, list[str]]:
    """Headers that are the caller's own, by name."""
    found: dict[str, list[str]] = {}
    for name, value in headers:
        if not name.startswith(":"):
            found.setdefault(name, []).append(value)
    return found


# --- the server's side


@dataclass(slots=True)
class Call:
    """A call that has come in."""

    metadata: Mapping[str, list[str]]
    _stream: Stream
    _reader: _Reader
    _begun: bool = False

    async def receive(self, type_: type[M]) -> M | None:
        """The client's next message, None at their end."""
        return await self._reader.read(type_)

    async def send(self, message: Message) -> None:
        await self.begin()
        await self._stream.send_data(_framed(message))

    async def begin(self) -> None:
        """Send the head now: a client may wait for it before it sends."""
        if not self._begun:
            self._begun = True
            await self._stream.send_headers([(":status", "200"), CONTENT_TYPE])

    async def finish(self, code: int, message: str, details: Sequence[AnyMessage]) -> None:
        """Send the trailers."""
        trailers = [("grpc-status", str(int(code)))]
        if message:
            trailers.append(("grpc-message", quote(message, safe=" !\"#$&'()*+,/:;<=>?@[]^_`{|}~")))
        if details:
            whole = StatusMessage(code=int(code), message=message, details=details).SerializeToString()
            trailers.append(("grpc-status-details-bin", base64.b64encode(whole).decode().rstrip("=")))
        head = [] if self._begun else [(":status", "200"), CONTENT_TYPE]
        self._begun = True
        await self._stream.send_headers([*head, *trailers], end=True)

    def close(self, connection: Connection) -> None:
        connection.forget(self._stream)


Method = Callable[[Call], Awaitable[None]]


def unary(type_: type[M], handler: Callable[[M, Call], Awaitable[Message]]) -> Method:
    """A method that takes one message and gives one."""

    async def method(call: Call) -> None:
        request = await call.receive(type_)
        if request is None:
            raise Failed(Code.INTERNAL, "a call without its message")
        await call.send(await handler(request, call))

    return method


def stream(type_: type[M], handler: Callable[[M, Call], Awaitable[None]]) -> Method:
    """A method that takes one message and sends as many as it likes."""

    async def method(call: Call) -> None:
        request = await call.receive(type_)
        if request is None:
            raise Failed(Code.INTERNAL, "a call without its message")
        await call.begin()
        await handler(request, call)

    return method


class Server:
    """Methods by path (`/package.Service/Method`), served on a connection until it is gone."""

    def __init__(self, methods: Mapping[str, Method]) -> None:
        self._methods = methods
        self._tasks: set[asyncio.Task[None]] = set()
        self.connection = Connection(accept=self._accept)

    async def serve(self) -> None:
        """Until the connection is gone; calls that run are cancelled then, and waited for."""
        try:
            await asyncio.shield(self.connection.lost)
        finally:
            self.connection.close()
            for task in tuple(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, stream: Stream) -> None:
        task = asyncio.create_task(self._answer(stream))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, stream: Stream) -> None:
        headers = stream.headers.result()
        path = dict(headers).get(":path", "")
        call = Call(_metadata(headers), stream, _Reader(stream))
        code, message, details = await self._run(path, call, stream, headers)
        try:
            await call.finish(code, message, details)
        except (StreamClosed, ConnectionLost):
            pass
        finally:
            call.close(self.connection)

    async def _run(
        self, path: str, call: Call, stream: Stream, headers: Headers
    ) -> tuple[int, str, Sequence[AnyMessage]]:
        """The status a call ends with."""
        try:
            async with asyncio.timeout(_timeout_s(dict(headers).get("grpc-timeout", ""))):
                await self._until_reset(self._method(path)(call), stream)
        except Exception as error:
            if not isinstance(error, EXPECTED):
                log.exception("%s failed", path)
            return status_of(error)
        except asyncio.CancelledError:
            return Code.CANCELLED, "context canceled", ()
        return Code.OK, "", ()

    def _method(self, path: str) -> Method:
        if path not in self._methods:
            service, _, name = path.lstrip("/").partition("/")
            raise Failed(Code.UNIMPLEMENTED, f"unknown method {name} for service {service}")
        return self._methods[path]

    async def _until_reset(self, deed: Awaitable[None], stream: Stream) -> None:
        """Await a call's handler; it is cancelled when the client wants no more of it."""
        task = asyncio.ensure_future(deed)
        gone = asyncio.ensure_future(stream.closed.wait())
        try:
            await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
        await task


def _timeout_s(text: str) -> float | None:
    """`grpc-timeout`: up to eight digits and a unit."""
    found = re.fullmatch(r"(\d{1,8})([HMSmun])", text)
    if found is None:
        return None
    return int(found[1]) * {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}[found[2]]


# --- the client's side


@dataclass(slots=True)
class ClientCall:
    """A call that was made."""

    _connection: Connection
    _stream: Stream
    _reader: _Reader = field(init=False)

    def __post_init__(self) -> None:
        self._reader = _Reader(self._stream)

    async def send(self, message: Message, *, end: bool = False) -> None:
        """Raises Failed with the server's own status where it has answered already."""
        try:
            await self._stream.send_data(_framed(message), end=end)
        except StreamClosed:
            raise await self._status_or(Failed(Code.CANCELLED, "the call was cancelled by the other side")) from None
        except ConnectionLost as error:
            raise Failed(Code.UNAVAILABLE, str(error)) from None

    async def end(self) -> None:
        """No more messages from this side."""
        try:
            await self._stream.send_data(b"", end=True)
        except StreamClosed:
            return
        except ConnectionLost as error:
            raise Failed(Code.UNAVAILABLE, str(error)) from None

    async def receive(self, type_: type[M]) -> M | None:
        """The server's next message, None when the call has ended well. Raises Failed."""
        try:
            message = await self._reader.read(type_)
        except StreamClosed:
            raise Failed(Code.CANCELLED, "the call was cancelled by the other side") from None
        except ConnectionLost as error:
            raise Failed(Code.UNAVAILABLE, str(error)) from None
        if message is None and (failure := await self._status()):
            raise failure
        return message

    async def _status(self) -> Failed | None:
        """What the trailers say; None: it went well."""
        headers = await self._stream.headers
        said = dict(headers) | dict(self._stream.trailers)
        if "grpc-status" not in said:
            return Failed(Code.UNKNOWN, f"no gRPC status (HTTP status {said.get(':status', 'missing')})")
        code = int(said["grpc-status"]) if said["grpc-status"].isdecimal() else Code.UNKNOWN
        if code == Code.OK:
            return None
        return Failed(code, unquote(said.get("grpc-message", "")), _details(said.get("grpc-status-details-bin", "")))

    async def _status_or(self, other: Failed) -> Failed:
        if self._stream.headers.done() and not self._stream.headers.exception():
            return await self._status() or other
        return other

    def close(self) -> None:
        """Let go of it, whatever state it is in."""
        self._stream.reset()


def _details(text: str) -> Sequence[AnyMessage]:
    try:
        return StatusMessage.FromString(base64.b64decode(text + "=" * (-len(text) % 4))).details
    except (binascii.Error, DecodeError):
        return ()


class Client:
    """Calls over a connection whose other side serves."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def call(self, path: str, metadata: Headers = ()) -> ClientCall:
        """Begin a call. Raises Failed."""
        head = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "localhost")]
        try:
            stream = self.connection.open([*head, ("te", "trailers"), CONTENT_TYPE, *metadata])
        except (ConnectionLost, StreamClosed) as error:
            raise Failed(Code.UNAVAILABLE, str(error)) from None
        return ClientCall(self.connection, stream)

    async def unary(self, path: str, request: Message, type_: type[M], metadata: Headers = ()) -> M:
        """One message for one message. Raises Failed."""
        call = self.call(path, metadata)
        try:
            await call.send(request, end=True)
            answer = await call.receive(type_)
            if answer is None:
                raise Failed(Code.INTERNAL, f"{path} answered nothing")
            await call.receive(type_)  # its status
            return answer
        finally:
            call.close()
