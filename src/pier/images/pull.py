"""Pull: from a name to an image in the store (Engine API, POST /images/create?fromImage=).

Order of deeds: resolve the name, choose the platform, fetch manifest and configuration, download the layers that are
not there side by side, unpack them one on the other as they arrive, and only when all is there and verified point the
names at it. Whatever ends a pull earlier leaves whole layers and nothing half done.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import aclosing
from typing import Final
from weakref import WeakValueDictionary

from pier.distribution import Credentials, Registries, Repository
from pier.distribution.blocking import in_thread, interruptible
from pier.errors import PierError
from pier.events.bus import EventBus
from pier.images import progress
from pier.images.admit import check_diff_id
from pier.images.attestations import fetch_attestations
from pier.images.downloads import DOWNLOADING, VERIFYING, Download, Downloads
from pier.images.progress import Counted, Message
from pier.images.resolve import Found, Layer, find, plan_layers
from pier.images.telling import TICK_S, Say, telling
from pier.oci import Descriptor, Digest, Platform, Reference, host_platform
from pier.storage.content import ContentStore
from pier.storage.snapshots import Snapshotter

DOWNLOADED: Final = "Downloaded newer image"
UP_TO_DATE: Final = "Image is up to date"
MAX_DOWNLOADS: Final = 3
"""`max-concurrent-downloads`, Docker's default."""


class Puller:
    """Pulls images into one store; all pulls of the daemon go through one of these, so that they share downloads."""

    def __init__(
        self,
        registries: Registries,
        content: ContentStore,
        snapshots: Snapshotter,
        events: EventBus,
        *,
        max_downloads: int = MAX_DOWNLOADS,
    ) -> None:
        self.content = content
        self.snapshots = snapshots
        self.events = events
        self.downloads = Downloads(content, most=max_downloads)
        self._registries = registries
        self._unpacking: WeakValueDictionary[Digest, asyncio.Lock] = WeakValueDictionary()

    async def pull(
        self, reference: str, *, platform: str = "", auth: Mapping[str, str] | None = None
    ) -> AsyncIterator[Message]:
        """Pull a tag or digest, or without one all tags, telling the progress as Docker does.

        `auth` is the Engine API's AuthConfig.

        Raises PierError: before the first message where the name cannot be resolved, later for what goes wrong then.
        """
        name = Reference.parse(reference, default_tag=None)
        wanted = Platform.parse(platform) if platform else None
        repository = self._registries.repository(name, Credentials.from_auth_config(auth))

        def run(say: Say) -> Coroutine[None, None, None]:
            return _Pull(self, repository, wanted, say).run()

        async with aclosing(telling(run, name=f"pull {name}")) as messages:
            async for message in messages:
                yield message

    def unpack_lock(self, chain_id: Digest) -> asyncio.Lock:
        """Held by whoever unpacks that layer; gone when nobody does."""
        return self._unpacking.setdefault(chain_id, asyncio.Lock())


class _Pull:
    """One run of a pull."""

    def __init__(self, shared: Puller, repository: Repository, wanted: Platform | None, say: Say) -> None:
        self._shared = shared
        self._repository = repository
        self._reference = repository.reference
        self._wanted = wanted
        self._say = say
        self._afterwards: list[Message] = []

    async def run(self) -> None:
        reference = self._reference
        if reference.tag is not None or reference.digest is not None:
            verdict = await self._one(self._repository)
        else:
            verdicts = [await self._one(self._repository.at(tag)) for tag in await self._repository.tags()]
            verdict = DOWNLOADED if DOWNLOADED in verdicts else UP_TO_DATE
        await self._say(progress.status(f"Status: {verdict} for {reference.familiar}"))
        for line in self._afterwards:
            await self._say(line)

    async def _one(self, repository: Repository) -> str:
        """Pull one tag or digest; returns UP_TO_DATE or DOWNLOADED."""
        shared, content, reference = self._shared, self._shared.content, repository.reference
        top = await repository.resolve()
        await self._say(progress.status(f"Pulling from {reference.path}", _id_of(reference)))
        names = names_of(reference, top.digest)
        with content.keep():
            tags = await in_thread(content.tags)
            found = await find(repository, content, top, self._wanted or host_platform())
            layers = await plan_layers(content, shared.snapshots, found)
            whole = await self._is_admitted(found, tags) and all(layer.stored and layer.unpacked for layer in layers)
            if not whole:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._fetch(layers))
                    group.create_task(fetch_attestations(repository, content, found.attestations))
            if not (whole and await self._is_stored(found)):
                await in_thread(_store_manifests, content, found)
            for name in names:
                await in_thread(content.set_tag, name, found.top)
        shared.events.publish("image", "pull", reference.familiar, {"name": reference.familiar_name})
        await self._say(progress.status(f"Digest: {top.digest}"))
        before = tags.get(names[0])
        current = whole and before is not None and before.digest == found.top.digest
        self._remember(reference, before, found)
        return UP_TO_DATE if current else DOWNLOADED

    async def _is_admitted(self, found: Found, tags: Mapping[str, Descriptor]) -> bool:
        """Has this manifest been taken in before, its blobs checked against its configuration?"""
        known = {entry.digest for entry in tags.values()}
        if found.descriptor.digest in known:
            return True
        return found.top.digest in known and await in_thread(self._shared.content.has, found.descriptor.digest)

    async def _is_stored(self, found: Found) -> bool:
        documents = [found.descriptor, *(index for index, _ in found.indexes)]
        return all([await in_thread(self._shared.content.has, document.digest) for document in documents])

    def _remember(self, reference: Reference, before: Descriptor | None, found: Found) -> None:
        """What is said at the end: whether the name moved (wish 7), and that the platform is another."""
        if before is not None and before.digest != found.top.digest:
            self._afterwards.append(progress.status(f"updated: {before.digest} -> {found.top.digest}"))
        elif before is not None:
            same = {"Previous": str(before.digest), "Digest": str(found.top.digest), "Tag": reference.tag or ""}
            self._afterwards.append({"progressDetail": {}, "aux": same})
        if self._wanted is not None and not found.config.platform.matches(self._wanted):
            self._afterwards.append(progress.status(_other_platform(reference, found.config.platform, self._wanted)))

    # --- its layers

    async def _fetch(self, layers: list[Layer]) -> None:
        """Download side by side, unpack in order."""
        for layer in layers:
            there = layer.unpacked and layer.stored
            await self._say(progress.layer("Already exists" if there else "Pulling fs layer", layer.id))
        async with asyncio.TaskGroup() as group:
            arrivals = [group.create_task(self._download(layer)) for layer in layers]
            for layer, arrival in zip(layers, arrivals, strict=True):
                await arrival
                await self._settle(layer)
                if not (layer.unpacked and layer.stored):
                    await self._say(progress.layer("Pull complete", layer.id))

    async def _settle(self, layer: Layer) -> None:
        """Unpack a layer whose blob is here, or, where it was unpacked before, verify that this blob is that layer."""
        shared = self._shared
        async with shared.unpack_lock(layer.chain_id):
            if await in_thread(shared.snapshots.has_layer, layer.chain_id):
                await in_thread(check_diff_id, shared.content, layer.descriptor, layer.diff_id)
            else:
                await self._unpack(layer)

    async def _download(self, layer: Layer) -> None:
        """Bring a layer's blob into the store."""
        if layer.stored:
            if not layer.unpacked:
                await self._say(progress.layer("Download complete", layer.id))
            return None
        while True:
            download = self._shared.downloads.join(self._repository, layer.descriptor)
            try:
                return await self._follow(download)
            except PierError:
                # Another pull's registry or login failed it; ours may do.
                if download.repository is self._repository:
                    raise

    async def _follow(self, download: Download) -> None:
        """Tell a download's progress until it is done; leaving it ends it unless others watch."""
        id, last = download.descriptor.digest.short, ("", 0)
        try:
            await asyncio.sleep(0)  # lets it begin, so that only those that must wait say so
            while not download.task.done():
                now = download.stage, download.offset
                if now != last:
                    await self._say(_telling(download, id))
                last = now
                await asyncio.wait({download.task}, timeout=TICK_S)
            await download.task
            if last[0] != VERIFYING:
                await self._say(progress.layer(VERIFYING, id))
            await self._say(progress.layer("Download complete", id))
        finally:
            await self._shared.downloads.leave(download)

    async def _unpack(self, layer: Layer) -> None:
        """Put a layer onto its parent; the snapshot driver verifies that it is the one its chain id stands for."""
        unpacking = _Unpacking(self._shared, layer)
        work = asyncio.create_task(interruptible(unpacking.run, interrupt=unpacking.stop))
        try:
            while not work.done():
                await self._say(progress.advance("Extracting", layer.id, unpacking.offset, layer.descriptor.size))
                await asyncio.wait({work}, timeout=TICK_S)
            await work
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
        await self._say(progress.advance("Extracting", layer.id, layer.descriptor.size, layer.descriptor.size))


class UnpackStopped(PierError):
    """the pull was cancelled"""


class _Unpacking:
    """The unpacking of one layer in a worker thread; the event loop looks at `offset` and may stop it."""

    def __init__(self, shared: Puller, layer: Layer) -> None:
        self._shared = shared
        self._layer = layer
        self._stopped = False
        self.offset = 0

    def run(self) -> None:
        layer = self._layer
        with self._shared.content.open(layer.descriptor.digest, layer.descriptor.size) as blob:
            counted = Counted(blob, layer.descriptor.size, self._report)
            self._shared.snapshots.unpack(layer.chain_id, layer.parent, counted)

    def stop(self) -> None:
        self._stopped = True

    def _report(self, current: int, total: int) -> None:
        if self._stopped:
            raise UnpackStopped
        self.offset = current


def names_of(reference: Reference, digest: Digest) -> list[str]:
    """What the pulled image is called in the store: as it was asked for, and by the digest the registry gave."""
    pinned = str(reference.with_digest(digest))
    return [pinned] if reference.digest is not None or reference.tag is None else [str(reference), pinned]


def _telling(download: Download, id: str) -> Message:
    if download.stage == DOWNLOADING:
        return progress.advance(DOWNLOADING, id, download.offset, download.descriptor.size)
    return progress.layer(download.stage, id)


def _store_manifests(content: ContentStore, found: Found) -> None:
    """The manifest first: an index is never here without the image it was pulled for."""
    for descriptor, data in ((found.descriptor, found.manifest_bytes), *reversed(found.indexes)):
        with content.ingest(expected=descriptor.digest, size=descriptor.size) as writer:
            writer.write(data)
            writer.commit(descriptor.media_type)


def _id_of(reference: Reference) -> str:
    return reference.tag if reference.tag is not None and reference.digest is None else reference.familiar


def _other_platform(reference: Reference, found: Platform, wanted: Platform) -> str:
    return (
        f"WARNING: image with reference {reference.familiar} was found but its platform ({found}) "
        f"does not match the specified platform ({wanted})"
    )
