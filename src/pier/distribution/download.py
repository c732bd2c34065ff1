"""One blob from a registry into the content store: cut at any byte and resumed there, tried again with back-off.

What is written is hashed on the way and appears in the store only when digest and size are right (attack 11).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, ExitStack
from dataclasses import dataclass
from typing import Final, Protocol

import aiohttp

from pier.distribution.blocking import in_thread
from pier.distribution.errors import ContentRefused, RegistryError, RegistryUnreachable, ServerFailed, TooManyRequests
from pier.distribution.transport import host_of
from pier.oci import Descriptor
from pier.storage.content import ContentStore, Writer
from pier.storage.errors import ContentMismatch

Open = Callable[[Mapping[str, str]], AbstractAsyncContextManager[aiohttp.ClientResponse]]
"""Ask for the blob with these headers (a Range); the answer is 2xx or a RegistryError was raised."""

GOOD_PROGRESS: Final = 1 << 20
"""Bytes received in one go after which earlier failures no longer count."""

_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
TRANSIENT: Final = (RegistryUnreachable, ServerFailed, TooManyRequests)


class Watcher(Protocol):
    """Is told how a download goes; calls come from the event loop and must not block."""

    def received(self, offset: int) -> None:
        """Bytes of the blob that are here."""

    def retrying(self, delay_s: float) -> None:
        """A failure; the next attempt begins in so many seconds."""

    def verifying(self) -> None:
        """Everything is here."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """How often a failed download is tried again: after `first_s`, then each time twice as long, up to `longest_s`."""

    retries: int = 5
    first_s: float = 1.0
    longest_s: float = 30.0

    def delay_s(self, failures: int) -> float:
        """Seconds to wait after the `failures`-th failure in a row, counted from 1."""
        return min(self.first_s * 2.0 ** (failures - 1), self.longest_s)


class Retried(Protocol):
    """Is told of pauses."""

    def retrying(self, delay_s: float) -> None: ...


@dataclass(slots=True)
class Attempts:
    """Those of one transfer."""

    backoff: Backoff
    watcher: Retried
    failures: int = 0
    """In a row: one that comes after good progress is the first again."""

    async def another(self, progress_bytes: int) -> bool:
        """An attempt has failed after so much: wait for the next one; False: there is none."""
        self.failures = 1 if progress_bytes >= GOOD_PROGRESS else self.failures + 1
        if self.failures > self.backoff.retries:
            return False
        delay_s = self.backoff.delay_s(self.failures)
        self.watcher.retrying(delay_s)
        await asyncio.sleep(delay_s)
        return True


async def download(
    open_blob: Open, descriptor: Descriptor, content: ContentStore, watcher: Watcher, *, backoff: Backoff
) -> None:
    """Fetch a blob whole; what an earlier download of it left is gone on with. Raises RegistryError, ContentMismatch.

    Whatever ends it early leaves no blob, and the bytes that are here for the next time.
    """
    resumed = await _download(open_blob, descriptor, content, watcher, backoff, last=False)
    if resumed:  # and it was not what it should be: the old bytes may be at fault
        await _download(open_blob, descriptor, content, watcher, backoff, last=True)


async def _download(
    open_blob: Open, descriptor: Descriptor, content: ContentStore, watcher: Watcher, backoff: Backoff, *, last: bool
) -> bool:
    """One ingest; True where it began with bytes from earlier, and ended in another digest."""
    stack = ExitStack()
    try:
        ingest = content.ingest(expected=descriptor.digest, size=descriptor.size, resume=True)
        writer = await in_thread(stack.enter_context, ingest)
        resumed = writer.offset > 0
        await _fill(open_blob, descriptor, writer, watcher, backoff)
        watcher.verifying()
        try:
            await in_thread(writer.commit, descriptor.media_type)
        except ContentMismatch:
            if last or not resumed:
                raise
            return True
        return False
    finally:
        await in_thread(stack.close)


async def _fill(open_blob: Open, descriptor: Descriptor, writer: Writer, watcher: Watcher, backoff: Backoff) -> None:
    """Receive until the blob is whole, going on where the last attempt ended."""
    attempts = Attempts(backoff, watcher)
    while writer.offset < descriptor.size:
        begun = writer.offset
        try:
            await _receive(open_blob, descriptor, writer, watcher)
        except TRANSIENT:
            if not await attempts.another(writer.offset - begun):
                raise


async def _receive(open_blob: Open, descriptor: Descriptor, writer: Writer, watcher: Watcher) -> None:
    """One request: append what it answers. Raises RegistryUnreachable when that ends too early."""
    headers = {"Range": f"bytes={writer.offset}-"} if writer.offset else {}
    async with open_blob(headers) as response:
        host = host_of(response.url)
        skip = bytes_to_skip(response.status, response.headers.get("Content-Range", ""), writer.offset)
        if skip is None:
            raise _refused(descriptor, host, "the answer to a range request is of another range")
        length = response.content_length
        if length is not None and length - skip > descriptor.size - writer.offset:
            raise _refused(descriptor, host, f"it has {length} bytes, not {descriptor.size}")
        async for data in response.content.iter_any():
            fresh, skip = data[skip:], max(0, skip - len(data))
            if fresh:
                await in_thread(writer.write, fresh)
                watcher.received(writer.offset)
    if writer.offset < descriptor.size:
        raise RegistryUnreachable(
            method="Get",
            url=str(descriptor.digest),
            host=host,
            reason=f"unexpected EOF after {writer.offset} of {descriptor.size} bytes",
            via="",
        )


def bytes_to_skip(status: int, content_range: str, offset: int) -> int | None:
    """How many bytes at the start of an answer are here already; None where the answer cannot be used.

    A server may answer a range request with the whole (200) or with a range (206) that begins where it was asked to.
    """
    if status == 200:
        return offset
    found = _CONTENT_RANGE.fullmatch(content_range.strip())
    return 0 if status == 206 and found is not None and int(found.group(1)) == offset else None


def _refused(descriptor: Descriptor, host: str, reason: str) -> RegistryError:
    return ContentRefused(what=f"blob {descriptor.digest}", host=host, reason=reason)
