"""The Engine API without a client: one connection, as few bytes as HTTP/1.1 allows."""

from __future__ import annotations

import json
import socket
from typing import Any

API = "/v1.43"


class Connection:
    """Keeps one connection to an engine's socket open."""

    def __init__(self, path: str) -> None:
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.settimeout(60)
        self._sock.connect(path)
        self._file = self._sock.makefile("rb")

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The decoded answer. Raises OSError for a status that is no success."""
        text = self.fetch(method, path, body)
        return json.loads(text) if text.strip() else None

    def fetch(self, method: str, path: str, body: Any = None) -> bytes:
        """The answer's body as it is. Raises as `call` does."""
        content = b"" if body is None else json.dumps(body).encode()
        head = (
            f"{method} {API}{path} HTTP/1.1\r\nHost: engine\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        self._sock.sendall(head.encode() + content)
        status = int(self._file.readline().split()[1])
        headers = {}
        while line := self._file.readline().strip():
            key, _, value = line.decode().partition(":")
            headers[key.lower()] = value.strip()
        text = self._body(headers)
        if status >= 300 and status != 304:
            raise OSError(f"{method} {path}: {status} {text.decode(errors='replace')}")
        return text

    def _body(self, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding") != "chunked":
            return self._file.read(int(headers.get("content-length", 0)))
        text = b""
        while size := int(self._file.readline(), 16):
            text += self._file.read(size)
            self._file.readline()
        self._file.readline()
        return text

    def run(self, image: str, command: list[str]) -> None:
        """What `docker run --rm` asks for, on one connection: create, start, wait, delete."""
        made = self.call("POST", "/containers/create", {"Image": image, "Cmd": command})["Id"]
        self.call("POST", f"/containers/{made}/start")
        self.call("POST", f"/containers/{made}/wait")
        self.call("DELETE", f"/containers/{made}")

    def close(self) -> None:
        self._file.close()
        self._sock.close()


def hijack(path: str, resource: str, body: Any) -> bytes:
    """A POST that becomes a stream, on a connection of its own: everything up to the engine's end of file."""
    content = json.dumps(body).encode()
    head = (
        f"POST {API}{resource} HTTP/1.1\r\nHost: engine\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(60)
        sock.connect(path)
        sock.sendall(head.encode() + content)
        text = b""
        while data := sock.recv(65536):
            text += data
    return text
