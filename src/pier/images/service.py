"""The image service: what the Engine API, the containers and the builder ask of images.

All of it is called on the event loop; disk work goes to worker threads, loads and imports to a few of their own. Names
live in the content store's index and nowhere else; the catalogue is a view of it that is renewed when it changed.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, cast

import msgspec

from pier.distribution import Registries, RegistryConfig
from pier.errors import InvalidParameter, NotFound
from pier.events.bus import EventBus
from pier.images import progress
from pier.images.catalog import Catalog, read_catalog, shown
from pier.images.changes import apply_changes
from pier.images.collect import collect
from pier.images.compact import Compactor
from pier.images.delete import User, is_id, named, plan_delete
from pier.images.image import Image, NoSuchImage, familiar
from pier.images.import_ import import_root
from pier.images.inspect import inspection
from pier.images.listing import Listed, summaries
from pier.images.load import Loaded, load
from pier.images.manifests import manifest_summaries, root_descriptor
from pier.images.progress import Message
from pier.images.pull import MAX_DOWNLOADS, Puller
from pier.images.push import MAX_UPLOADS, Pusher
from pier.images.threads import Report, Transfer
from pier.model.filters import Filters
from pier.model.image import DriverData, ImageDeleteResponseItem, ImageInspect, ImageManifestSummary, ImageSummary
from pier.oci import Descriptor, Digest, InvalidReference, Platform, Reference, RunConfig, host_platform
from pier.state.store import Delete, Put, Store
from pier.storage import ContentStore, Snapshotter
from pier.storage.stream import Reader

META: Final = "image-meta"
TRANSFERS: Final = 4
"""Loads and imports that run at once; further ones wait."""


class DigestReference(InvalidParameter):
    """cannot import digest reference"""


class DigestTag(InvalidParameter):
    """refusing to create a tag with a digest reference"""


class NotThatPlatform(NotFound):
    """image with reference {reference} was found but does not provide the specified platform ({wanted})"""


class BothAsked(InvalidParameter):
    """conflicting options: manifests and platform options cannot both be set"""


class ImageMeta(msgspec.Struct, omit_defaults=True):
    """What this machine knows of an image beyond its content; kept by image id."""

    last_tag_ns: int = 0


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
        self.users_of: Callable[[Digest], builtins.list[User]] = lambda _: []
        self._store = store
        self._events = events
        self._registries = registries or Registries(RegistryConfig())
        self.puller = Puller(self._registries, content, snapshots, events, max_downloads=max_downloads)
        self.pusher = Pusher(self._registries, content, events, mounts=self._mounts, max_uploads=max_uploads)
        self._clock_ns = clock_ns
        self._executor = ThreadPoolExecutor(TRANSFERS, thread_name_prefix="image")
        self._catalog = Catalog()
        self._reading = asyncio.Lock()
        self._naming = asyncio.Lock()
        self._litter = False
        self._meta: dict[str, ImageMeta] = {}
        self.content.recipes.open_layer = snapshots.open_layer
        self.compactor = Compactor(content, self._current, self._collect, drops=rebuilds_blobs)

    async def start(self) -> None:
        """Read what is there and clear away what an interrupted load or removal left."""
        self._meta = {
            key: msgspec.json.decode(value, type=ImageMeta) for key, value in (await self._store.load(META)).items()
        }
        catalog = await self._current()
        await self._collect()
        stale = [Delete(META, key) for key in self._meta if key not in catalog.images and not catalog.damaged]
        if stale:
            await self._store.write(*stale)
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

    async def _current(self) -> Catalog:
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
        image = (await self._current()).get(ref)
        return (image.for_platform(Platform.parse(platform)) or image) if platform else image

    async def list(
        self, *, all: bool = False, filters: Filters | None = None, manifests: bool = False
    ) -> builtins.list[ImageSummary]:
        """All images, the newest first; `all` adds nothing, since there are no intermediate ones.

        `manifests` tells the manifests of each image, those of other platforms too.
        """
        catalog = await self._current()
        images = builtins.list(catalog.images.values())
        sizes = await asyncio.to_thread(lambda: [self._size(image) for image in images])
        users = [len(self.users_of(image.id)) for image in images]
        listed = map(Listed, images, sizes, users)
        rows = summaries(listed, filters or Filters(), catalog.get)
        for row in rows if manifests else ():
            image = catalog.images[Digest(row.id)]
            row.descriptor, row.manifests = root_descriptor(image), await self._manifests(image)
        return rows

    async def inspect(self, ref: str, *, platform: str = "", manifests: bool = False) -> ImageInspect:
        """With a platform, the image for it. Raises NoSuchImage, InvalidReference, NotThatPlatform, BothAsked."""
        if platform and manifests:
            raise BothAsked
        image = await self.get(ref, platform)
        if platform and image.for_platform(Platform.parse(platform)) is not image:
            raise NotThatPlatform(reference=shown(ref), wanted=Platform.parse(platform))
        answer = inspection(
            image,
            size_bytes=await asyncio.to_thread(self._size, image),
            driver=DriverData(name=self.snapshots.name, data=self.snapshots.layer_data(image.layers)),
            last_tag_ns=self._meta.get(image.id, ImageMeta()).last_tag_ns,
        )
        if manifests:
            answer.descriptor, answer.manifests = root_descriptor(image), await self._manifests(image)
        return answer

    async def _manifests(self, image: Image) -> builtins.list[ImageManifestSummary]:
        def users(image_id: Digest) -> builtins.list[str]:
            return [container for container, _ in self.users_of(image_id)]

        return await asyncio.to_thread(manifest_summaries, self.content, image, self._size, users)

    def _size(self, image: Image) -> int:
        """Bytes of the files of all layers; a layer that is missing counts nothing."""
        return sum(self.snapshots.layer_size(chain) for chain in image.layers if self.snapshots.has_layer(chain))

    # --- names

    async def tag(self, ref: str, name: str, tag: str = "") -> None:
        """Give an image one more name, taken from the image that has it now. Raises NoSuchImage, InvalidReference."""
        image = await self.get(ref)
        reference = Reference.parse(f"{name}:{tag}" if tag else name)
        if reference.digest is not None:
            raise DigestTag
        await self._name(image.id, await self._root_of(ref, image), [str(reference)])
        self._tell("tag", image.id, reference.familiar, image)

    async def _root_of(self, ref: str, image: Image) -> Descriptor:
        """What a further name of `ref` points at: the same as that name, else what the image came with."""
        if not is_id(image, ref):
            known = (await asyncio.to_thread(self.content.tags)).get(named(image, ref))
            if known is not None:
                return known
        return image.root

    async def _name(self, image_id: Digest, target: Descriptor, names: Iterable[str]) -> None:
        """Point names at an image and remember when."""
        for name in names:
            await asyncio.to_thread(self.content.set_tag, name, target)
        meta = ImageMeta(last_tag_ns=self._clock_ns())
        await self._store.write(Put(META, str(image_id), msgspec.json.encode(meta)))
        self._meta[str(image_id)] = meta

    # --- taking in

    async def load(self, source: AsyncIterator[bytes], *, quiet: bool = True) -> AsyncIterator[Message]:
        """Load images from an archive, telling the progress as Docker does. Raises PierError."""

        def work(body: Reader, report: Report) -> builtins.list[Loaded]:
            return load(body, self.content, self.snapshots, report, quiet=quiet)

        async with self._transfer(), Transfer(self._executor, source, work) as transfer:
            async for message in transfer:
                yield message
            for loaded in await transfer.result():
                async for message in self._adopt(loaded):
                    yield message

    async def _adopt(self, loaded: Loaded) -> AsyncIterator[Message]:
        """Name an image that was loaded."""
        async with self._naming:
            catalog = await self._current()
            for name in loaded.names:
                old = catalog.names.get(name)
                if old is not None and old != loaded.id:
                    note = (
                        f"The image {familiar(name)} already exists, renaming the old one with ID {old} to empty string"
                    )
                    yield progress.stream(note)
            if loaded.names:
                await self._name(loaded.id, loaded.manifest, loaded.names)
            else:
                await asyncio.to_thread(self.content.add, loaded.manifest)
        image = await self.get(loaded.id)
        self._tell("load", image.id, image.id, image)
        for name in loaded.names:
            yield progress.stream(f"Loaded image: {familiar(name)}")
        if not loaded.names:
            yield progress.stream(f"Loaded image ID: {loaded.id}")

    async def import_(
        self,
        source: AsyncIterator[bytes],
        *,
        repo: str = "",
        tag: str = "",
        message: str = "",
        changes: Sequence[str] = (),
        platform: str = "",
    ) -> AsyncIterator[Message]:
        """Make an image of a root file system's archive; the last message's status is its id. Raises PierError."""
        reference = import_reference(repo, tag)
        config = apply_changes(RunConfig(), changes)
        target = Platform.parse(platform) if platform else host_platform()

        def work(body: Reader, _: Report) -> Loaded:
            return import_root(
                body,
                self.content,
                self.snapshots,
                config=config,
                platform=target,
                message=message or "Imported from -",
                now_ns=self._clock_ns(),
            )

        async with self._transfer(), Transfer(self._executor, source, work) as transfer:
            async for progress_message in transfer:
                yield progress_message
            loaded: Loaded = await transfer.result()
            if reference is not None:
                await self._name(loaded.id, loaded.manifest, [str(reference)])
            else:
                await asyncio.to_thread(self.content.add, loaded.manifest)
            image = await self.get(loaded.id)
            if reference is not None:
                self._tell("tag", image.id, reference.familiar, image)
            self._tell("import", image.id, image.id, image)
        yield progress.status(str(loaded.id))

    async def pull(
        self, reference: str, *, platform: str = "", auth: dict[str, str] | None = None
    ) -> AsyncIterator[Message]:
        """Fetch an image from its registry, telling the progress as Docker does. Raises PierError."""
        messages = cast(AsyncGenerator[Message, None], self.puller.pull(reference, platform=platform, auth=auth))
        async with self._transfer(), contextlib.aclosing(messages):
            async for message in messages:
                yield message

    async def push(
        self, reference: str, *, platform: str = "", auth: dict[str, str] | None = None
    ) -> AsyncIterator[Message]:
        """Send a tag, or without one all tags of a repository, to its registry. Raises PierError."""
        await self._current()  # which says where blobs may be mounted from
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
    async def _transfer(self) -> AsyncIterator[None]:
        """While blobs come in that no name reaches yet; what a failed one leaves is cleared away after the last."""
        try:
            with self.content.keep():
                yield
        except BaseException:
            self._litter = True
            raise
        finally:
            if self._litter:
                await self._collect()
            self.compactor.wake()

    # --- taking away

    async def delete(
        self, ref: str, *, force: bool = False, noprune: bool = False
    ) -> builtins.list[ImageDeleteResponseItem]:
        """Take a name or the image away, as `docker rmi`; `noprune` spares nothing, for there are no parents.

        Raises NoSuchImage, ReferenceInUse, ImageInUse.
        """
        async with self._naming:
            image = await self.get(ref)
            if not is_id(image, ref) and named(image, ref) not in image.names:
                raise NoSuchImage(reference=ref)
            plan = plan_delete(image, ref, self._users_of_all(image), force=force)
            deeds = []
            for name in plan.untag:
                await asyncio.to_thread(self.content.remove_tag, name)
                self._tell("untag", image.id, image.id, image)
                deeds.append(ImageDeleteResponseItem(untagged=familiar(name)))
            if not plan.delete:
                return deeds
            await asyncio.to_thread(self.content.forget, image.roots)
            self._events.publish("image", "delete", str(image.id), {"name": str(image.id)})
            deeds.append(ImageDeleteResponseItem(deleted=str(image.id)))
            self._meta.pop(image.id, None)
            await self._store.write(Delete(META, str(image.id)))
            gone = await self._collect()
        layers = [chain_id for chain_id in reversed(image.all_layers) if chain_id in gone]
        return deeds + [ImageDeleteResponseItem(deleted=str(chain_id)) for chain_id in layers]

    def _users_of_all(self, image: Image) -> builtins.list[User]:
        """Containers of the image on any platform: the others go with it."""
        return [user for one in (image, *image.others) for user in self.users_of(one.id)]

    async def _collect(self) -> set[Digest]:
        """Clear away what nothing needs; what running transfers have met waits for their end. Returns the layers."""
        catalog = await self._current()
        gone = await asyncio.to_thread(partial(collect, self.content, self.snapshots, catalog))
        self._litter = self.content.leases.take_spared()
        return gone or set()

    def _tell(self, action: str, image_id: Digest, name: str, image: Image) -> None:
        self._events.publish("image", action, str(image_id), {**image.labels, "name": str(name)})


def import_reference(repo: str, tag: str) -> Reference | None:
    """The name an import is to get; None for none. Raises InvalidReference, DigestReference."""
    if not repo:
        return None
    reference = Reference.parse(f"{repo}:{tag}" if tag else repo)
    if reference.digest is not None:
        raise DigestReference
    if reference.tag is None:
        raise InvalidReference
    return reference
