"""Downloads that several pulls share: a layer comes over the network once, a few layers at a time.

One lives as long as somebody watches it; when the last watcher leaves it is cancelled and leaves no file.
"""

from __future__ import annotations

import asyncio
from typing import Final

from pier.distribution import Repository
from pier.images import progress
from pier.oci import Descriptor, Digest
from pier.storage.content import ContentStore

WAITING: Final = "Waiting"
DOWNLOADING: Final = "Downloading"
VERIFYING: Final = "Verifying Checksum"


class Download:
    """One blob on its way, and how far it is. The downloading task writes here, watchers read."""

    def __init__(
        self, repository: Repository, descriptor: Descriptor, content: ContentStore, slots: asyncio.Semaphore
    ) -> None:
        self.repository = repository
        """Whose credentials it goes with: a failure may be that pull's alone."""
        self.descriptor = descriptor
        self.stage = WAITING
        self.offset = 0
        self.watchers = 0
        self.task = asyncio.create_task(self._run(content, slots), name=f"download {descriptor.digest.short}")

    async def _run(self, content: ContentStore, slots: asyncio.Semaphore) -> None:
        async with slots:
            self.stage = DOWNLOADING
            await self.repository.download(self.descriptor, content, self)

    def received(self, offset: int) -> None:
        self.stage, self.offset = DOWNLOADING, offset

    def retrying(self, delay_s: float) -> None:
        self.stage = progress.retrying(delay_s)

    def verifying(self) -> None:
        self.stage = VERIFYING


class Downloads:
    """All downloads of the daemon, at most `most` at once."""

    def __init__(self, content: ContentStore, *, most: int) -> None:
        self._content = content
        self._slots = asyncio.Semaphore(max(1, most))
        self._running: dict[tuple[Digest, int], Download] = {}

    def limit(self, most: int) -> None:
        """How many may run at once, from the next one on."""
        self._slots = asyncio.Semaphore(max(1, most))

    def join(self, repository: Repository, descriptor: Descriptor) -> Download:
        """The running download of a blob, or a new one; the caller leaves it."""
        key = descriptor.digest, descriptor.size
        download = self._running.get(key)
        if download is None or download.task.done():
            download = self._running[key] = Download(repository, descriptor, self._content, self._slots)
        download.watchers += 1
        return download

    async def leave(self, download: Download) -> None:
        """Watch no more; the last one ends it, and waits until nothing of it is left."""
        download.watchers -= 1
        if download.watchers:
            return
        key = download.descriptor.digest, download.descriptor.size
        if self._running.get(key) is download:
            del self._running[key]
        download.task.cancel()
        await asyncio.gather(download.task, return_exceptions=True)
