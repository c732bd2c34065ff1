"""A minimal HTTP/1.1 client for the Engine API (RFC 9112): one idle connection, chunked bodies, upgrades.

No ping goes ahead: every request names the newest API version this client knows, and only when the daemon answers
that it is older is the version lowered and the request repeated.
"""

from __future__ import annotations

import _socket

from pier.cli.errors import ApiError, Failure, Unreachable
from pier.cli.jsontext import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from pier.cli.endpoint import Endpoint

API_VERSION = "1.51"
_READ = 65536
_MAX_HEAD = 256 * 1024
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
MULTIPLEXED = "application/vnd.docker.multiplexed-stream"


def quote(text: str, safe: bytes = b"") -> str:
    """Percent-encode for a path segment or a query value (RFC 3986)."""
    data = text.encode("utf-8", "surrogateescape")
    return "".join(chr(b) if b in _UNRESERVED or b in safe else f"%{b:02X}" for b in data)


def query_string(pairs: dict[str, Any]) -> str:
    """`?a=1&b=x`: None and "" are left out, True is 1, False is left out, lists repeat, dicts are JSON."""
    parts: list[str] = []
    for key, value in pairs.items():
        if value is None or value is False or value == "":
            continue
        for item in value if isinstance(value, list) else (value,):
            text = "1" if item is True else dumps(item) if isinstance(item, dict) else str(item)
            parts.append(f"{key}={quote(text)}")
    return "?" + "&".join(parts) if parts else ""


class Connection:
    """A socket and the bytes read from it that nobody took yet."""

    __slots__ = ("_buffer", "sock")

    def __init__(self, sock: _socket.socket) -> None:
        self.sock = sock
        self._buffer = b""

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def fill(self) -> bool:
        """Read once into the buffer; False at the end of the stream."""
        data = self.sock.recv(_READ)
        self._buffer += data
        return bool(data)

    def line(self) -> bytes:
        """A line without its CRLF. EOFError when the stream ends inside it, ValueError when it is too long."""
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > _MAX_HEAD:
                raise ValueError("a line of the answer is too long")
            if not self.fill():
                raise EOFError
        line, self._buffer = self._buffer[:end], self._buffer[end + 1 :]
        return line.rstrip(b"\r")

    def some(self, limit: int) -> bytes:
        """At least one and at most `limit` bytes; b"" at the end of the stream."""
        if not self._buffer:
            self._buffer = self.sock.recv(min(_READ, limit) if limit > 0 else _READ)
        data, self._buffer = self._buffer[:limit], self._buffer[limit:]
        return data

    def take_buffer(self) -> bytes:
        """What was read beyond the last answer: the first bytes of an upgraded stream."""
        data, self._buffer = self._buffer, b""
        return data

    def close(self) -> None:
        self.sock.close()


class Response:
    """A status, headers (lower case) and a body read as it comes."""

    __slots__ = ("_client", "_connection", "_remaining", "chunked", "headers", "status")

    def __init__(
        self, client: Client, connection: Connection, status: int, headers: dict[str, str], *, bodyless: bool
    ) -> None:
        self._client = client
        self._connection: Connection | None = connection
        self.status = status
        self.headers = headers
        self.chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        length = headers.get("content-length")
        self._remaining = int(length) if length is not None else -1
        if status == 101:
            self.chunked, self._remaining = False, -1
        elif bodyless or status in (204, 304):
            self.chunked, self._remaining = False, 0
        if not self.chunked and self._remaining == 0:
            self._done()

    @property
    def multiplexed(self) -> bool:
        """Whether the body is in frames (stdout and stderr apart) and not a terminal's bytes."""
        return self.headers.get("content-type", "") == MULTIPLEXED

    def chunks(self) -> Iterator[bytes]:
        """The body in pieces as they arrive. Failure when the daemon goes away in the middle."""
        try:
            yield from self._chunked() if self.chunked else self._plain()
        except (OSError, EOFError) as error:
            self.close()
            raise Failure(f"error reading from the daemon: {error or 'unexpected EOF'}") from None
        self._done()

    def _plain(self) -> Iterator[bytes]:
        connection = self._connection
        while connection and self._remaining:
            data = connection.some(self._remaining if self._remaining > 0 else _READ)
            if not data:
                if self._remaining > 0:
                    raise EOFError
                break
            if self._remaining > 0:
                self._remaining -= len(data)
            yield data

    def _chunked(self) -> Iterator[bytes]:
        connection = self._connection
        if connection is None:
            return
        while size := int(connection.line().partition(b";")[0], 16):
            while size:
                data = connection.some(size)
                if not data:
                    raise EOFError
                size -= len(data)
                yield data
            connection.line()
        while connection.line():
            pass  # trailers

    def lines(self) -> Iterator[bytes]:
        """The body's non-empty lines as they arrive: the Engine API's JSON streams."""
        rest = b""
        for chunk in self.chunks():
            *whole, rest = (rest + chunk).split(b"\n")
            for text in whole:
                if stripped := text.strip():
                    yield stripped
        if rest.strip():
            yield rest.strip()

    def read(self) -> bytes:
        return b"".join(self.chunks())

    def json(self) -> Any:
        """The body as JSON; None when it is empty. Failure when it is something else."""
        body = self.read()
        if not body.strip():
            return None
        try:
            return loads(body)
        except ValueError:
            raise Failure(f"the daemon's answer is not JSON: {body[:200]!r}") from None

    def _done(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        until_close = not self.chunked and self._remaining < 0
        if until_close or self.headers.get("connection", "").lower() == "close":
            connection.close()
        else:
            self._client.idle = connection

    def upgraded(self) -> tuple[_socket.socket, bytes]:
        """The raw socket after 101 (or a hijacking 200), and the bytes that came with the headers."""
        connection = self._connection
        assert connection is not None
        self._connection = None
        return connection.sock, connection.take_buffer()

    def fileno(self) -> int:
        """For poll(2) while a body is awaited; -1 when it is all here."""
        return self._connection.sock.fileno() if self._connection else -1

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection:
            connection.close()


class Client:
    """Requests to one daemon. A second request while a body is still open uses a second connection."""

    def __init__(self, endpoint: Endpoint, version: str = API_VERSION) -> None:
        self.endpoint = endpoint
        self.version = version
        self.idle: Connection | None = None

    def get(self, path: str, **query: Any) -> Any:
        """GET and the JSON of the answer."""
        return self.request("GET", path, query=query).json()

    def post(self, path: str, body: Any = None, **query: Any) -> Any:
        """POST (a JSON body when given) and the JSON of the answer."""
        return self.request("POST", path, query=query, body=body).json()

    def delete(self, path: str, **query: Any) -> Any:
        """DELETE and the JSON of the answer."""
        return self.request("DELETE", path, query=query).json()

    def request(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, Any] | None = None,
        body: Any = None,
        stream: Iterable[bytes] | None = None,
        headers: tuple[str, ...] = (),
        upgrade: bool = False,
    ) -> Response:
        """One request; the answer's body is still to be read.

        `body` is sent as JSON, `stream` as a chunked body. ApiError for a status of 400 or more, Unreachable when no
        daemon answers.
        """
        return self.begin(
            method, path, query=query, body=body, stream=stream, headers=headers, upgrade=upgrade
        ).response()

    def begin(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, Any] | None = None,
        body: Any = None,
        stream: Iterable[bytes] | None = None,
        headers: tuple[str, ...] = (),
        upgrade: bool = False,
    ) -> Exchange:
        """Send a request as `request` does and leave its answer for later: until then the daemon works for us."""
        target = path + query_string(query or {})
        payload = b"" if body is None else dumps(body).encode("utf-8", "surrogateescape")
        lines = list(headers)
        if upgrade:
            lines += ["Connection: Upgrade", "Upgrade: tcp"]
        if body is not None:
            lines.append("Content-Type: application/json")
        if stream is not None:
            lines += ["Content-Type: application/x-tar", "Transfer-Encoding: chunked"]
        elif payload or method == "POST":
            lines.append(f"Content-Length: {len(payload)}")
        return Exchange(self, method, target, lines, payload, stream=stream)

    def lower_version(self, message: str) -> bool:
        """Take the version a daemon says it can do; False when that was not the complaint."""
        marker = "Maximum supported API version is "
        if marker not in message:
            return False
        version = message.partition(marker)[2].split()[0].rstrip(".")
        if version == self.version:
            return False
        self.version = version
        return True

    def connect(self) -> Connection:
        try:
            return Connection(self.endpoint.connect())
        except OSError as error:
            from pier.cli.diagnose import cannot_connect  # noqa: PLC0415 - only when nothing answers

            raise Unreachable(cannot_connect(self.endpoint, error)) from None

    def broken(self, error: Exception) -> Failure:
        from pier.cli.diagnose import broken_answer  # noqa: PLC0415 - only when the answer is not HTTP

        return Unreachable(broken_answer(self.endpoint, error))


class Exchange:
    """One request that was sent, and its answer. An idle connection that the daemon has closed is replaced once."""

    __slots__ = ("_client", "_connection", "_lines", "_method", "_payload", "_reused", "_stream", "_target")

    def __init__(
        self,
        client: Client,
        method: str,
        target: str,
        lines: list[str],
        payload: bytes,
        *,
        stream: Iterable[bytes] | None,
    ) -> None:
        self._client = client
        self._method = method
        self._target = target
        self._lines = lines
        self._payload = payload
        self._stream = stream
        self._send()

    def response(self) -> Response:
        """Wait for the head of the answer. ApiError for a status of 400 or more, Unreachable when none comes."""
        while True:
            response = self._read()
            if response.status < 400:
                return response
            message = _message(response)
            if self._stream is not None or response.status != 400 or not self._client.lower_version(message):
                raise ApiError(response.status, message)
            self._send()

    def _send(self) -> None:
        client = self._client
        head = "\r\n".join(
            (
                f"{self._method} /v{client.version}{self._target} HTTP/1.1",
                f"Host: {client.endpoint.host_header}",
                "User-Agent: Pier-Client/0.1 (linux)",
                *self._lines,
                "\r\n",
            )
        ).encode("latin-1")
        self._reused = client.idle is not None
        self._connection, client.idle = client.idle or client.connect(), None
        try:
            self._write(head + self._payload)
        except OSError as error:
            self._again(error)

    def _read(self) -> Response:
        while True:
            try:
                return self._read_head()
            except (OSError, EOFError, ValueError) as error:
                self._again(error)

    def _again(self, error: Exception) -> None:
        """Send once more on a new connection, if an idle one has failed; else raise what is wrong."""
        self._connection.close()
        if not self._reused or self._stream is not None or isinstance(error, ValueError):
            raise self._client.broken(error) from None
        self._send()

    def _write(self, head: bytes) -> None:
        self._connection.send(head)
        if self._stream is None:
            return
        try:
            for chunk in self._stream:
                if chunk:
                    self._connection.send(b"%x\r\n" % len(chunk) + chunk + b"\r\n")
            self._connection.send(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            return  # refused half-way: the answer says why

    def _read_head(self) -> Response:
        connection = self._connection
        while True:
            protocol, _, rest = connection.line().partition(b" ")
            if not protocol.startswith(b"HTTP/1."):
                raise ValueError(protocol.decode("latin-1")[:60])
            status = int(rest[:3])
            headers: dict[str, str] = {}
            while line := connection.line():
                name, _, value = line.partition(b":")
                headers[name.decode("latin-1").lower()] = value.strip().decode("latin-1")
            if status != 100:
                return Response(self._client, connection, status, headers, bodyless=self._method == "HEAD")


def _message(response: Response) -> str:
    """The daemon's error text: `{"message": …}` or plain text."""
    body = response.read()
    try:
        message = loads(body)["message"]
    except (ValueError, KeyError, TypeError):
        message = body.decode("utf-8", "replace")
    return str(message).strip() or f"status {response.status} without a message"
