"""Layers' blobs that can be made again of their unpacked trees are dropped (`layer-blobs: rebuild`)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, TypeVar

from pier.errors import NotFound, PierError
from pier.images.catalog import Catalog
from pier.images.image import Image
from pier.oci import Digest, Manifest, decode_manifest
from pier.oci.manifest import MAX_MANIFEST_BYTES
from pier.storage import ContentStore
from pier.storage.rebuild import Stopped

log = logging.getLogger(__name__)

NICE: Final = 10
T = TypeVar("T")


class Compactor:
    """Runs `compact` in the background, one run at a time, after images have come in; first of all, `recheck`."""

    def __init__(
        self,
        store: ContentStore,
        current: Callable[[], Awaitable[Catalog]],
        collect: Callable[[], Awaitable[object]],
        *,
        drops: bool,
    ) -> None:
        """`collect` sweeps: what is removed while a layer is looked at is left to the next sweep.

        Without `drops` nothing is dropped, and what was dropped earlier stays so.
        """
        self._store = store
        self._current = current
        self._collect = collect
        self._drops = drops
        self._rechecked = False
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="compact", initializer=_stand_back)
        self._task: asyncio.Task[None] | None = None
        self._again = False
        self._stopped = False

    def wake(self) -> None:
        """There may be something to do."""
        self._again = True
        if not self._stopped and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._run(), name="compact layers")

    async def _run(self) -> None:
        while self._again and not self._stopped:
            self._again = False
            if not self._rechecked:
                await self._in_thread(partial(recheck, self._store, stop=lambda: self._stopped))
                self._rechecked = True
            if not self._drops:
                return
            catalog = await self._current()
            freed = await self._in_thread(partial(compact, self._store, catalog, stop=lambda: self._stopped))
            if freed:
                log.info("%d bytes freed: blobs of unpacked layers, which can be made again", freed)
            if self._store.leases.take_spared():
                await self._collect()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    async def settled(self) -> None:
        """Wait until there is nothing to do."""
        if self._task is not None:
            await asyncio.shield(self._task)

    async def close(self) -> None:
        """End; a layer that is being looked at stays as it is."""
        self._stopped = True
        with contextlib.suppress(asyncio.CancelledError):
            await self.settled()
        self._executor.shutdown()


def _stand_back() -> None:
    """Let everything else go first: on Linux a thread has a nice value of its own (setpriority(2))."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)


def recheck(store: ContentStore, *, stop: Callable[[], bool]) -> None:
    """See that dropped blobs can still be made after an update of a compressor; tell of those that cannot. Blocks."""
    for digest in store.recipes.all():
        if stop():
            return
        try:
            with store.keep():
                lost = not store.recipes.recheck(digest, stop)
        except Stopped:
            return
        except OSError as error:
            log.warning("layer %s could not be rebuilt: %s", digest, error)
            continue
        if lost:
            log.warning(
                "layer %s can no longer be compressed as it was: its images run, but cannot be pushed or saved before "
                "they are pulled again",
                digest,
            )


def compact(store: ContentStore, catalog: Catalog, *, stop: Callable[[], bool]) -> int:
    """Drop what can be dropped of all images; returns the bytes freed. `stop` ends it. Blocks."""
    freed, seen = 0, set[Digest]()
    for image in (one for each in catalog.images.values() for one in (each, *each.others)):
        for digest, chain_id in _layers(store, image):
            if stop():
                return freed
            if digest in seen:
                continue
            seen.add(digest)
            try:
                with store.keep():
                    freed += store.drop(digest, chain_id, stop)
            except Stopped:
                return freed
            except NotFound:
                continue  # removed meanwhile
            except (PierError, OSError) as error:  # of one layer, which stays as it is
                log.warning("layer %s of image %s stays compressed: %s", digest, image.id.short, error)
    return freed


def _layers(store: ContentStore, image: Image) -> list[tuple[Digest, Digest]]:
    """(blob, chain id) of an image's layers, the base first."""
    try:
        raw = store.read(image.manifest.digest, limit_bytes=MAX_MANIFEST_BYTES)
        manifest = decode_manifest(raw, media_type=image.manifest.media_type, what=image.manifest.digest)
    except (PierError, OSError):
        return []
    if not isinstance(manifest, Manifest):
        return []
    return list(zip((layer.digest for layer in manifest.layers), image.layers, strict=False))
