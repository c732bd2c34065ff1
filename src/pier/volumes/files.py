"""What the API asks of the files in volumes, over the service that knows the volumes (wish 16)."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

from pier.errors import Conflict
from pier.kernel.paths import closing
from pier.model.volume import Volume
from pier.storage.archive_paths import PathStat
from pier.storage.copy_tree import copy_tree
from pier.storage.outflow import outflow
from pier.storage.stream import Reader
from pier.storage.threads import Transfer
from pier.volumes import transfer
from pier.volumes.record import ANONYMOUS
from pier.volumes.service import VolumeService

COPIES = 8
"""Archives on their way into volumes at the same time."""


class VolumeExists(Conflict):
    """volume {name} exists already"""

    remedy = "choose another name, or remove it: `pier volume rm {name}`"


class Archive(NamedTuple):
    """What is at a path, and its archive, which must be read to its end or closed."""

    stat: PathStat
    chunks: AsyncIterator[bytes]


class VolumeFiles:
    """One per daemon. Errors are those of `transfer` and of the service."""

    def __init__(self, service: VolumeService) -> None:
        self._service = service
        self._copies = ThreadPoolExecutor(COPIES, thread_name_prefix="volume-copy")

    async def stat(self, name: str, path: str) -> PathStat:
        """What is at a path of a volume."""
        async with self._service.use.opened(name) as root:
            found = await asyncio.to_thread(transfer.find, root, name, path)
            with closing(found.fd):
                return found.stat

    @contextlib.asynccontextmanager
    async def archive(self, name: str, path: str) -> AsyncIterator[Archive]:
        """The archive of a file or a tree, while the block runs."""
        async with self._service.use.opened(name) as root:
            found = await asyncio.to_thread(transfer.find, root, name, path)
            with closing(found.fd):
                chunks = outflow(partial(transfer.write_archive, root, found), name="volume")
                async with contextlib.aclosing(chunks):
                    yield Archive(found.stat, chunks)

    async def extract(
        self, name: str, path: str, source: AsyncIterator[bytes], *, keep_kinds: bool = False, root_too: bool = False
    ) -> None:
        """Unpack an archive over what is at a path; `root_too`: the directory there gets the archive's attributes."""
        async with self._service.use.opened(name) as root:

            def work(body: Reader, _: object) -> None:
                transfer.read_archive(root, name, path, body, keep_kinds=keep_kinds, root_too=root_too)

            async with Transfer(self._copies, source, work) as running:
                await running.result()

    @contextlib.asynccontextmanager
    async def listing(self, name: str, path: str, *, recursive: bool) -> AsyncIterator[AsyncIterator[bytes]]:
        """Lines of JSON about the files at a path, while the block runs."""
        async with self._service.use.opened(name) as root:
            work = partial(transfer.list_files, root, name, path, recursive=recursive)
            chunks = outflow(work, name="volume")
            async with contextlib.aclosing(chunks):
                yield chunks

    async def clone(self, name: str, new: str, labels: Mapping[str, str] | None = None) -> Volume:
        """A new volume, a folder, with the files of another: shared where the file system can, whole or not at all.

        It gets the other's labels and its bound, and `labels` over them. Raises VolumeExists, NoSuchVolume, and what
        making a volume raises.
        """
        source = self._service.get(name)
        own = {key: value for key, value in (source.labels or {}).items() if key != ANONYMOUS}
        options = {key: value for key, value in (source.options or {}).items() if key == "size"}
        async with self._service.use.opened(name) as root:
            made = await self._service.create_filled(
                new or snapshot_name(name, time.time()),
                options,
                {**own, **(labels or {})},
                lambda data_fd: copy_tree(root, data_fd),
            )
        if made is None:
            raise VolumeExists(name=new)
        return made

    async def close(self) -> None:
        await asyncio.to_thread(self._copies.shutdown, wait=True, cancel_futures=True)


def snapshot_name(name: str, now_s: float) -> str:
    """`NAME-20300131T235959Z`, shortened to what a name may have."""
    return f"{name[:230]}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(now_s))}"
