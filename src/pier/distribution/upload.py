"""One blob from here to a registry: asked for first, mounted where the registry has it elsewhere, else sent
(distribution-spec, "Push").

The blob goes up in one streamed PATCH, as Docker sends it, which every registry takes; after a cut the registry is
asked how much it has and the rest follows from there. A proxy that refuses so large a body (413) gets pieces.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

import aiohttp
from yarl import URL

from pier.distribution.download import TRANSIENT, Attempts, Backoff
from pier.distribution.endpoints import Endpoint
from pier.distribution.errors import (
    BlobUnknown,
    ContentRefused,
    PushDenied,
    RegistryError,
    RequestRefused,
    ServerFailed,
    TooLarge,
    Unauthorized,
    UploadRefused,
)
from pier.distribution.request import Request
from pier.distribution.session import Session
from pier.distribution.transport import location_of
from pier.oci import Descriptor

MONOLITHIC_BYTES: Final = 1 << 20
"""Up to here a blob is sent with the request that completes it."""
PIECE_BYTES: Final = 16 << 20
"""Of a blob whose whole was refused as too large."""
READ_BYTES: Final = 1 << 20
MAX_MOUNTS: Final = 3
"""Repositories that are tried to mount from."""

_RANGE: Final = re.compile(r"(?:bytes=)?0-(\d+)")


class Blob(Protocol):
    """A blob that is read for sending; calls are made one at a time."""

    async def read(self, offset: int, size: int) -> bytes:
        """At least one byte and at most `size`, from `offset`, which is below the blob's size."""


class Source(Protocol):
    """A blob that may have to be sent."""

    @property
    def descriptor(self) -> Descriptor: ...

    def open(self) -> AbstractAsyncContextManager[Blob]:
        """Only entered where it has to be sent."""


class UploadWatcher(Protocol):
    """Is told how an upload goes; calls come from the event loop and must not block."""

    def sent(self, offset: int) -> None:
        """Bytes of the blob that have left."""

    def retrying(self, delay_s: float) -> None:
        """A failure; the next attempt begins in so many seconds."""


async def upload(
    session: Session,
    endpoint: Endpoint,
    source: Source,
    watcher: UploadWatcher,
    *,
    backoff: Backoff,
    mount_from: tuple[str, ...] = (),
) -> str:
    """See that the repository has the blob: `exists`, `mounted REPOSITORY`, `uploaded`. Raises RegistryError."""
    descriptor = source.descriptor
    attempts = Attempts(backoff, watcher)
    transfer = _Transfer(session, endpoint, source, watcher)
    while True:
        begun = transfer.offset
        try:
            if transfer.location is None:
                if await _exists(session, endpoint, descriptor):
                    return "exists"
                mounted = await transfer.begin(mount_from)
                if mounted:
                    return f"mounted {mounted}"
            elif attempts.failures:
                await transfer.ask_where()
            await transfer.send()
            return "uploaded"
        except TooLarge:
            if transfer.in_pieces:
                raise
            transfer.in_pieces, transfer.location = True, None
        except TRANSIENT:
            if not await attempts.another(transfer.offset - begun):
                raise


async def _exists(session: Session, endpoint: Endpoint, descriptor: Descriptor) -> bool:
    try:
        async with session.ask(endpoint, Request("HEAD", f"blobs/{descriptor.digest}", {})) as response:
            length = response.headers.get("Content-Length", "")
    except (BlobUnknown, PushDenied, RequestRefused, Unauthorized) as error:
        if isinstance(error, ServerFailed):
            raise
        return False  # whoever may write and not read is told so by what follows
    if length.isdecimal() and int(length) != descriptor.size:
        what = f"blob {descriptor.digest}"
        raise ContentRefused(
            what=what, host=endpoint.host, reason=f"it has {length} bytes there, not {descriptor.size}"
        )
    return True


class _Transfer:
    """An upload that the registry keeps open under a location of its own."""

    def __init__(self, session: Session, endpoint: Endpoint, source: Source, watcher: UploadWatcher) -> None:
        self._session = session
        self._endpoint = endpoint
        self._source = source
        self._descriptor = source.descriptor
        self._watcher = watcher
        self.location: URL | None = None
        self.offset = 0
        self.in_pieces = False

    async def begin(self, mount_from: tuple[str, ...]) -> str:
        """Open the upload; or the repository that the blob was mounted from instead."""
        self.offset = 0
        for repository in mount_from[:MAX_MOUNTS]:
            path = URL("blobs/uploads/").with_query({"mount": self._descriptor.digest, "from": repository})
            scope = f"{self._session.scope} repository:{repository}:pull"
            try:
                if await self._open(str(path), scope):
                    return repository
            except (PushDenied, RequestRefused, Unauthorized) as error:
                if isinstance(error, ServerFailed):
                    raise
            if self.location is not None:
                return ""
        await self._open("blobs/uploads/", "")
        return ""

    async def _open(self, path: str, scope: str) -> bool:
        request = Request("POST", path, {"Content-Length": "0"}, scope=scope)
        async with self._session.ask(self._endpoint, request) as response:
            if response.status == 201:
                return True
            self._follow(response)
        return False

    def _follow(self, response: aiohttp.ClientResponse) -> None:
        """Take the place that the answer names for what comes next (attack 18: not anywhere)."""
        place = location_of(response, response.url)
        if place is None:
            raise RequestRefused(what=self._endpoint.host, detail="the answer to an upload names no place to go on")
        self._session.transport.check_target(response.url, place, self._endpoint)
        self.location = place

    async def ask_where(self) -> None:
        """After a cut: how much has arrived? An upload that is forgotten begins anew."""
        assert self.location is not None
        try:
            async with self._session.ask(self._endpoint, Request("GET", self.location, {})) as response:
                arrived = _RANGE.fullmatch(response.headers.get("Range", "").strip())
                if response.headers.get("Location"):
                    self._follow(response)
        except RequestRefused as error:
            if isinstance(error, ServerFailed):
                raise
            arrived = None
        last = int(arrived.group(1)) if arrived else 0
        if not last:  # Docker's registry says 0-0 of nothing and of one byte alike
            await self.begin(())
            return
        self.offset = min(last + 1, self._descriptor.size)

    async def send(self) -> None:
        """Everything that is left, and then the digest."""
        size = self._descriptor.size
        async with self._source.open() as blob:
            if size <= MONOLITHIC_BYTES and not self.offset and not self.in_pieces:
                return await self._complete(blob)
            while self.offset < size:
                await self._patch(blob, min(size, self.offset + PIECE_BYTES) if self.in_pieces else size)
            await self._complete(blob)

    async def _patch(self, blob: Blob, end: int) -> None:
        assert self.location is not None
        start = self.offset
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(end - start)}
        if start or self.in_pieces:
            headers["Content-Range"] = f"{start}-{end - 1}"
        request = Request("PATCH", self.location, headers, body=lambda: self._pieces(blob, start, end))
        async with self._session.ask(self._endpoint, request) as response:
            self._follow(response)
        self.offset = end

    async def _complete(self, blob: Blob) -> None:
        assert self.location is not None
        start, end = self.offset, self._descriptor.size
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(end - start)}
        place = self.location.update_query({"digest": self._descriptor.digest})
        request = Request("PUT", place, headers, body=lambda: self._pieces(blob, start, end))
        try:
            async with self._session.ask(self._endpoint, request):
                self._watcher.sent(end)
        except RequestRefused as error:
            if "digest" not in error.message.lower() or isinstance(error, ServerFailed):
                raise
            raise UploadRefused(digest=self._descriptor.digest, reason=error.message) from None

    async def _pieces(self, blob: Blob, start: int, end: int) -> AsyncIterator[bytes]:
        self.offset = start
        while self.offset < end:
            data = await blob.read(self.offset, min(READ_BYTES, end - self.offset))
            if not data:
                raise RegistryError(f"blob {self._descriptor.digest} is shorter here than its descriptor says")
            yield data
            self.offset += len(data)
            self._watcher.sent(self.offset)
