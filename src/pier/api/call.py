"""One request on its way through an operation: its parameters, its body within bounds, its answer for its version."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from pier.model import wire

from .errors import BodyTooLarge, EmptyBody, NulInBody, UnsupportedContentType
from .query import Query
from .services import Engine
from .versions import Version, adapt_answer, adapt_request

T = TypeVar("T")

MAX_JSON_BYTES = 4 << 20
CHUNK_BYTES = 64 << 10
ANSWERS_KEPT = 2048
"""Of lists: some 2 KB each."""
NUL_ESCAPED = rb"\u0000"
"""The one way to write a NUL in JSON (RFC 8259, section 7)."""


@dataclass(slots=True)
class Call:
    """What a handler gets."""

    request: web.Request
    engine: Engine
    version: Version
    operation: str
    template: str
    """The path as the contract writes it."""
    params: dict[str, str]
    query: Query

    standard_headers: dict[str, str]
    """Those of every answer, for the one that is written by hand (hijack)."""

    @property
    def id(self) -> str:
        """The object named in the path."""
        return self.params.get("id") or self.params["name"]

    async def body(self, type_: type[T], *, optional: bool = False) -> T:
        """The JSON body as a struct, changed to mean what the client's version meant by it.

        `optional`: no body is an empty object. Raises EmptyBody, UnsupportedContentType, BodyTooLarge,
        NulInBody and msgspec.MsgspecError.
        """
        data = await read_bounded(self.request, MAX_JSON_BYTES)
        if not data:
            if optional:
                return wire.decode(b"{}", type_)
            raise EmptyBody
        content_type = self.request.headers.get("Content-Type", "")
        if content_type.partition(";")[0].strip().lower() != "application/json":
            raise UnsupportedContentType(content_type=content_type[:64])
        body = wire.decode(data, type_)
        if NUL_ESCAPED in data and holds_nul(msgspec.to_builtins(body)):
            raise NulInBody
        adapt_request(self.operation, self.version, body)
        return body

    def stream(self) -> AsyncIterator[bytes]:
        """The body in chunks, however long it is: read only as fast as they are taken."""
        return self.request.content.iter_chunked(CHUNK_BYTES)

    def answer(self, value: Any, *, status: int = 200) -> web.Response:
        """A struct, or a list of them, as JSON in the shape of the client's version."""
        raw = adapt_answer(self.operation, self.version, wire.to_builtins(value))
        return web.Response(status=status, body=msgspec.json.encode(raw) + b"\n", content_type="application/json")

    def answer_list(self, items: Sequence[wire.Struct]) -> web.Response:
        """The same for a long list of the same things again and again: only those that differ take work."""
        found = [_answer_of(msgspec.json.encode(one), type(one), self.operation, self.version) for one in items]
        return web.Response(body=b"[" + b",".join(found) + b"]\n", content_type="application/json")


@functools.lru_cache(maxsize=ANSWERS_KEPT)
def _answer_of(written: bytes, type_: type[wire.Struct], operation: str, version: Version) -> bytes:
    """What a struct, `written` in full, is for a client's version; of nothing but bytes, so it is never out of date."""
    raw = wire.omit_empty(msgspec.json.decode(written), type_)
    return msgspec.json.encode(adapt_answer(operation, version, raw))


def holds_nul(value: Any) -> bool:
    """Is there a text with a NUL in what was JSON?"""
    if isinstance(value, dict):
        return any(map(holds_nul, value)) or any(map(holds_nul, value.values()))
    if isinstance(value, list):
        return any(map(holds_nul, value))
    return isinstance(value, str) and "\0" in value


async def send(request: web.Request, answer: web.Response) -> None:
    """Send an answer before its operation returns it: what is done after that nobody waits for."""
    await answer.prepare(request)
    await answer.write_eof()


def empty(status: int = 204) -> web.Response:
    """An answer without a body."""
    return web.Response(status=status)


async def read_bounded(request: web.Request, limit: int) -> bytes:
    """The whole body. Raises BodyTooLarge as soon as it is known to be larger, without reading the rest."""
    if request.content_length is not None and request.content_length > limit:
        raise BodyTooLarge(limit=limit)
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.content.iter_chunked(CHUNK_BYTES):
        size += len(chunk)
        if size > limit:
            raise BodyTooLarge(limit=limit)
        chunks.append(chunk)
    return b"".join(chunks)
