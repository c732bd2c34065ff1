"""Blobs at the client's: containerd's content service, asked over the session. Caches of the type `local` lie there.

The client has a store for each folder it was given (`--cache-to dest=`, `--cache-from src=`), under the name
`local:FOLDER`, which every call names. It writes the folder's `index.json` itself, of what the build's answer says.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from pier.builder.ground import Ground
from pier.buildkit.grpc import ClientCall, Code, Failed
from pier.buildkit.pb.content_pb2 import (
    COMMIT,
    STAT,
    WRITE,
    InfoRequest,
    InfoResponse,
    ReadContentRequest,
    ReadContentResponse,
    WriteContentRequest,
    WriteContentResponse,
)
from pier.buildkit.session import Session
from pier.errors import PierError
from pier.oci import Descriptor, Digest
from pier.oci.manifest import MAX_MANIFEST_BYTES

__all__ = ["ClientStore", "StoreFailed"]

SERVICE: Final = "/containerd.services.content.v1.Content/"
STORE_HEADER: Final = "buildkit-attachable-store-id"
CHUNK_BYTES: Final = 1 << 20


class StoreFailed(PierError):
    """the client's folder {folder}: {reason}"""


@dataclass(frozen=True, slots=True)
class ClientStore:
    """One folder of a client's. Every method raises StoreFailed."""

    session: Session
    folder: str
    ground: Ground
    id: str = ""
    """What the client calls the store; empty: as it calls that of a cache."""

    @property
    def _id(self) -> str:
        return self.id or f"local:{self.folder}"

    async def info(self, digest: Digest) -> Descriptor:
        """A blob as the store knows it: it has no media type."""
        path = self._path("Info")
        try:
            answer = await self.session.client.unary(
                path, InfoRequest(digest=digest), InfoResponse, [(STORE_HEADER, self._id)]
            )
        except Failed as error:
            raise self._failed(error) from None
        return Descriptor(media_type="", digest=digest, size=answer.info.size)

    async def manifest(self, descriptor: Descriptor) -> bytes:
        return await self.document(descriptor, MAX_MANIFEST_BYTES)

    async def document(self, descriptor: Descriptor, limit_bytes: int) -> bytes:
        """A small blob whole, verified."""
        if descriptor.size > limit_bytes:
            raise self._reason(f"{descriptor.digest} has {descriptor.size} bytes, more than the {limit_bytes} allowed")
        data = b"".join([piece async for piece in self._pieces(descriptor)])
        if len(data) != descriptor.size or Digest.of(data, descriptor.digest.algorithm) != descriptor.digest:
            raise self._reason(f"what it has as {descriptor.digest} is something else")
        return data

    async def fetch(self, blob: Descriptor) -> None:
        """Put a blob into the content store, verified. Raises ContentMismatch."""
        with self.ground.content.ingest(expected=blob.digest, size=blob.size) as writer:
            async for piece in self._pieces(blob):
                await asyncio.to_thread(writer.write, piece)
            await asyncio.to_thread(writer.commit)

    async def _pieces(self, blob: Descriptor) -> AsyncIterator[bytes]:
        """A blob in pieces, no more of it than it should have and one piece beyond."""
        call = self._call("Read")
        seen = 0
        try:
            await call.send(ReadContentRequest(digest=blob.digest), end=True)
            while seen <= blob.size and (answer := await call.receive(ReadContentResponse)) is not None:
                seen += len(answer.data)
                yield answer.data
        except Failed as error:
            raise self._failed(error) from None
        finally:
            call.close()

    async def put(self, blob: Descriptor) -> None:
        """Write a blob of the content store's to the client's, unless it has it. Raises ContentNotFound, OSError."""
        call = self._call("Write")
        try:
            await self._write(call, blob)
        except Failed as error:
            if error.code != Code.ALREADY_EXISTS:
                raise self._failed(error) from None
        finally:
            call.close()

    async def _write(self, call: ClientCall, blob: Descriptor) -> None:
        ref = f"pier-{blob.digest}"
        await call.send(WriteContentRequest(action=STAT, ref=ref, total=blob.size, expected=blob.digest))
        offset = (await self._answer(call)).offset
        with await asyncio.to_thread(self.ground.content.open, blob.digest, blob.size) as reader:
            skipped = 0
            while skipped < offset:  # an earlier export was cut there
                skipped += len(await asyncio.to_thread(reader.read, min(CHUNK_BYTES, offset - skipped)))
            while data := await asyncio.to_thread(reader.read, CHUNK_BYTES):
                await call.send(WriteContentRequest(action=WRITE, ref=ref, offset=offset, data=data))
                offset = (await self._answer(call)).offset
        end = WriteContentRequest(action=COMMIT, ref=ref, offset=offset, total=blob.size, expected=blob.digest)
        await call.send(end, end=True)
        await self._answer(call)
        while await call.receive(WriteContentResponse) is not None:
            pass

    async def _answer(self, call: ClientCall) -> WriteContentResponse:
        answer = await call.receive(WriteContentResponse)
        if answer is None:
            raise self._reason("it has ended the transfer too early")
        return answer

    def _call(self, method: str) -> ClientCall:
        try:
            return self.session.client.call(self._path(method), [(STORE_HEADER, self._id)])
        except Failed as error:
            raise self._failed(error) from None

    def _path(self, method: str) -> str:
        path = SERVICE + method
        if path not in self.session.methods:
            raise self._reason("the client offers none")
        return path

    def _failed(self, error: Failed) -> StoreFailed:
        return self._reason(error.message)

    def _reason(self, reason: str) -> StoreFailed:
        return StoreFailed(folder=self.folder, reason=reason)
