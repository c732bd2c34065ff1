"""The image service: what the Engine API, the containers and the builder ask of images.

All of it is called on the event loop; disk work goes to worker threads, loads and imports to a few of their own. Names
live in the content store's index and nowhere else; the catalogue is a view of it that is renewed when it changed.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, cast

from pier.distribution import Registries, RegistryConfig
from pier.errors import InvalidParameter, NotFound
from pier.events.bus import EventBus
from pier.images import removal
from pier.images.archives import Archives
from pier.images.catalog import Catalog, read_catalog, shown
from pier.images.collect import NOTHING, Collected, Kept, collect
from pier.images.commit import BaseImageGone, Commit, commit
from pier.images.compact import Compactor
from pier.images.delete import User, is_id, named
from pier.images.family import Family
from pier.images.history import history
from pier.images.image import Image
from pier.images.inspect import inspection
from pier.images.listing import Listed, summaries
from pier.images.manifests import manifest_summaries, root_descriptor
from pier.images.notes import Notes
from pier.images.progress import Message
from pier.images.pull import MAX_DOWNLOADS, Puller
from pier.images.push import MAX_UPLOADS, Pusher
from pier.images.usage import LayerSizes, Usage, disk_usage, shared_bytes
from pier.model.filters import Filters
from pier.model.image import (
    DriverData,
    ImageDeleteResponseItem,
    ImageHistoryResponseItem,
    ImageInspect,
    ImageManifestSummary,
    ImagePruneResponse,
    ImageSummary,
)
from pier.oci import Descriptor, Digest, Platform, Reference
from pier.state.store import Store
from pier.storage import ContentStore, Snapshotter

TRANSFERS: Final = 4
"""Loads, imports and commits that run at once; further ones wait."""


class DigestTag(InvalidParameter):
    """refusing to create a tag with a digest reference"""


class NotThatPlatform(NotFound):
    """image with reference {reference} was found but does not provide the specified platform ({wanted})"""


class BothAsked(InvalidParameter):
    """conflicting options: manifests and platform options cannot both be set"""


class ImageService:
    """One per daemon."""

    def __init__(
        self,
        content: ContentStore,
        snapshots: Snapshotter,
        store: Store,
        events: EventBus,
        *,
        registries: Registries | None = None,
        max_downloads: int = MAX_DOWNLOADS,
        max_uploads: int = MAX_UPLOADS,
        rebuilds_blobs: bool = False,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.content = content
        self.snapshots = snapshots
        self.users: Callable[[], Mapping[str, Sequence[User]]] = dict
        """Image id -> containers made from it."""
        self.kept: Callable[[], Kept] = lambda: NOTHING
        """What the build cache needs beside them."""
        self.notes = Notes(store)
        self.sizes = LayerSizes(snapshots)
        self._events = events
        self._registries = registries or Registries(RegistryConfig())
        self.puller = Puller(self._registries, content, snapshots, events, max_downloads=max_downloads)
        self.pusher = Pusher(self._registries, content, events, mounts=self._mounts, max_uploads=max_uploads)
        self._clock_ns = clock_ns
        self._executor = ThreadPoolExecutor(TRANSFERS, thread_name_prefix="image")
        self.archives = Archives(self, self._registries, self._executor, clock_ns)
        self._catalog = Catalog()
        self._reading = asyncio.Lock()
        self.naming = asyncio.Lock()
        self._litter = False
        self.content.recipes.open_layer = snapshots.open_layer
        self.compactor = Compactor(content, self.current, self.collect, drops=rebuilds_blobs)

    async def start(self) -> None:
        """Read what is there and clear away what an interrupted load or removal left."""
        await self.notes.load()
        catalog = await self.current()
        await self.collect()
        if not catalog.damaged:
            await self.notes.keep_only(catalog.images)
        self.compactor.wake()

    async def close(self) -> None:
        """End transfers that nobody waits for any more, and the registry connections."""
        await self.compactor.close()
        await self._registries.close()
        await asyncio.to_thread(self._executor.shutdown, wait=True, cancel_futures=True)

    def limit_transfers(self, *, downloads: int, uploads: int) -> None:
        """How many blobs may be on their way at once, from the next one on."""
        self.puller.downloads.limit(downloads)
        self.pusher.limit(uploads)

    async def current(self) -> Catalog:
        """The catalogue as of now."""
        if self._catalog.generation != self.content.generation:
            async with self._reading:
                if self._catalog.generation != self.content.generation:
                    self._catalog = await asyncio.to_thread(read_catalog, self.content, self._catalog)
        return self._catalog

    # --- looking

    async def get(self, ref: str, platform: str = "") -> Image:
        """What a name, `name@digest`, id or beginning of an id means; with a platform the image for it, if it is here.

        Raises NoSuchImage, InvalidReference, InvalidPlatform.
        """
        image = (await self.current()).get(ref)
        return (image.for_platform(Platform.parse(platform)) or image) if platform else image

    async def list(
        self, *, all: bool = False, filters: Filters | None = None, manifests: bool = False, shared_size: bool = False
    ) -> builtins.list[ImageSummary]:
        """All images, the newest first; `all` adds the nameless ones that others were committed from.

        `manifests` tells the manifests of each image, those of other platforms too; `shared_size` what its layers
        have in common with others.
        """
        catalog = await self.current()
        images = catalog.images.values()
        if not self.sizes.know(images):
            await asyncio.to_thread(lambda: builtins.list(map(self.sizes.image, images)))
        family, users = self.family(catalog), self.users()
        shared = shared_bytes(images, self.sizes) if shared_size else {}
        listed = [
            Listed(
                image,
                size_bytes=self.sizes.image(image),
                containers=sum(len(users.get(one.id, ())) for one in image.platforms),
                shared_bytes=shared.get(image.id, -1),
                parent=family.parent(image.id),
                has_children=family.has_children(image.id),
            )
            for image in images
        ]
        rows = summaries(listed, filters or Filters(), catalog.get, all=all)
        for row in rows if manifests else ():
            image = catalog.images[Digest(row.id)]
            row.descriptor, row.manifests = root_descriptor(image), await self._manifests(image)
        return rows

    async def inspect(self, ref: str, *, platform: str = "", manifests: bool = False) -> ImageInspect:
        """With a platform, the image for it. Raises NoSuchImage, InvalidReference, NotThatPlatform, BothAsked."""
        if platform and manifests:
            raise BothAsked
        image = await self._exactly(ref, platform)
        parent = self.family(await self.current()).parent(image.id)
        answer = inspection(
            image,
            size_bytes=await asyncio.to_thread(self.sizes.image, image),
            driver=DriverData(name=self.snapshots.name, data=self.snapshots.layer_data(image.layers)),
            last_tag_ns=self.notes.of(image.id).last_tag_ns,
            parent=str(parent.id) if parent else "",
        )
        if manifests:
            answer.descriptor, answer.manifests = root_descriptor(image), await self._manifests(image)
        return answer

    async def _manifests(self, image: Image) -> builtins.list[ImageManifestSummary]:
        every = self.users()

        def users(image_id: Digest) -> builtins.list[str]:
            return [container for container, _ in every.get(image_id, ())]

        return await asyncio.to_thread(manifest_summaries, self.content, image, self.sizes.image, users)

    async def history(self, ref: str, *, platform: str = "") -> builtins.list[ImageHistoryResponseItem]:
        """The steps that made an image, the newest first. Raises NoSuchImage, InvalidReference, NotThatPlatform."""
        image = await self._exactly(ref, platform)
        ancestors = self.family(await self.current()).ancestors(image.id)
        return await asyncio.to_thread(history, image, ancestors, self.sizes.of)

    async def _exactly(self, ref: str, platform: str) -> Image:
        """As `get`, but for a platform that was asked for no other will do. Raises NotThatPlatform."""
        image = await self.get(ref, platform)
        if platform and image.for_platform(Platform.parse(platform)) is not image:
            raise NotThatPlatform(reference=shown(ref), wanted=Platform.parse(platform))
        return image

    def family(self, catalog: Catalog) -> Family:
        """What was committed from what."""
        return Family(catalog.images, lambda image_id: self.notes.of(image_id).parent)

    async def disk_usage(self) -> Usage:
        """What all images take together."""
        catalog, used = await self.current(), [Digest(image_id) for image_id in self.users()]
        return await asyncio.to_thread(
            disk_usage, catalog.images.values(), used, self.sizes, self.content, self.snapshots
        )

    # --- names

    async def tag(self, ref: str, name: str, tag: str = "") -> None:
        """Give an image one more name, taken from the image that has it now. Raises NoSuchImage, InvalidReference."""
        image = await self.get(ref)
        reference = Reference.parse(f"{name}:{tag}" if tag else name)
        if reference.digest is not None:
            raise DigestTag
        await self.name(image.id, await self._root_of(ref, image), [str(reference)])
        self.tell("tag", image.id, reference.familiar, image)

    async def _root_of(self, ref: str, image: Image) -> Descriptor:
        """What a further name of `ref` points at: the same as that name, else what the image came with."""
        if not is_id(image, ref):
            known = (await asyncio.to_thread(self.content.tags)).get(named(image, ref))
            if known is not None:
                return known
        return image.root

    async def name(self, image_id: Digest, target: Descriptor, names: Iterable[str]) -> None:
        """Point names at an image and remember when."""
        for name in names:
            await asyncio.to_thread(self.content.set_tag, name, target)
        await self.notes.add(image_id, last_tag_ns=self._clock_ns())

    # --- taking in and giving out

    async def commit(self, asked: Commit, name: Reference | None) -> Digest:
        """Make an image of what a container changed, under a name or none; returns its id.

        Raises BaseImageGone, TreeTooDeep, ContentNotFound, OSError.
        """
        base = (await self.current()).find(str(asked.base))
        if base is None:
            raise BaseImageGone(id=asked.base, container=asked.container_id[:12])
        async with self.transfer():
            work = partial(commit, asked, base, self.content, self.snapshots, now_ns=self._clock_ns())
            loaded = await asyncio.get_running_loop().run_in_executor(self._executor, work)
            await asyncio.to_thread(self.content.add, loaded.root)
            await self.notes.add(loaded.id, parent=str(base.id))
            image = await self.get(loaded.id)
            self.tell("create", image.id, image.id, image)
            if name is not None:
                await self.name(loaded.id, loaded.root, [str(name)])
                self.tell("tag", image.id, name.familiar, image)
        return loaded.id

    async def pull(
        self, reference: str, *, platform: str = "", auth: dict[str, str] | None = None
    ) -> AsyncIterator[Message]:
        """Fetch an image from its registry, telling the progress as Docker does. Raises PierError."""
        messages = cast(AsyncGenerator[Message, None], self.puller.pull(reference, platform=platform, auth=auth))
        async with self.transfer(), contextlib.aclosing(messages):
            async for message in messages:
                yield message

    async def push(
        self, reference: str, *, platform: str = "", auth: dict[str, str] | None = None
    ) -> AsyncIterator[Message]:
        """Send a tag, or without one all tags of a repository, to its registry. Raises PierError."""
        await self.current()  # which says where blobs may be mounted from
        messages = cast(AsyncGenerator[Message, None], self.pusher.push(reference, platform=platform, auth=auth))
        async with contextlib.aclosing(messages):
            async for message in messages:
                yield message

    def _mounts(self, blob: Digest, registry: str) -> tuple[str, ...]:
        """Repositories of a registry that images with this blob were pulled from or pushed to."""
        names = (
            Reference.parse(name)
            for image in self._catalog.images.values()
            if blob in image.content
            for name in image.digests
        )
        return tuple(sorted({name.path for name in names if name.domain == registry}))

    @contextlib.asynccontextmanager
    async def transfer(self, *, sweep: bool = False) -> AsyncIterator[None]:
        """While blobs come in that no name reaches yet; what a failed one leaves is cleared away after the last.

        `sweep`: one that ends well leaves something too.
        """
        try:
            with self.content.keep():
                yield
            self._litter |= sweep
        except BaseException:
            self._litter = True
            raise
        finally:
            if self._litter:
                await self.collect()
            self.compactor.wake()

    # --- taking away

    async def delete(
        self, ref: str, *, force: bool = False, noprune: bool = False, platforms: Sequence[str] = ()
    ) -> builtins.list[ImageDeleteResponseItem]:
        """Take a name or the image away, as `docker rmi`; with platforms the image for these alone.

        Raises NoSuchImage, NoSuchPlatform, ReferenceInUse, ImageInUse, InvalidPlatform.
        """
        if platforms:
            return await removal.delete_platforms(self, ref, [Platform.parse(one) for one in platforms], force=force)
        return await removal.delete(self, ref, force=force, noprune=noprune)

    async def prune(self, filters: Filters) -> ImagePruneResponse:
        """Remove the images that nothing uses. Raises UnknownFilter, InvalidFilterValue, BadTime, SeveralUntil."""
        return await removal.prune(self, filters, now_ns=self._clock_ns())

    async def collect(self) -> Collected:
        """Clear away what nothing needs; what running transfers have met waits for their end."""
        catalog = await self.current()
        gone = await asyncio.to_thread(partial(collect, self.content, self.snapshots, catalog, self.kept()))
        self.sizes.forget(gone.layers)
        self._litter = self.content.leases.take_spared()
        return gone

    def tell(self, action: str, image_id: Digest, name: str, image: Image) -> None:
        self.publish(action, str(image_id), {**image.labels, "name": str(name)})

    def publish(self, action: str, image_id: str, attributes: dict[str, str]) -> None:
        self._events.publish("image", action, image_id, attributes)
