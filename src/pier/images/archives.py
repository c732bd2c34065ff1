"""Images in and out as archives: what the Engine API asks for with load, import and save.

All of it is called on the event loop; reading and writing goes on in threads. What an archive turns out to hold is said
by `load`, `import_` and `save`; here it gets its names, and is told of.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from dataclasses import replace
from functools import partial
from typing import Final, Protocol

from pier.distribution import Registries
from pier.distribution.remote_file import RemoteFile, printable
from pier.errors import InvalidParameter
from pier.images import progress
from pier.images.catalog import Catalog
from pier.images.changes import apply_changes
from pier.images.image import Image, familiar
from pier.images.import_ import import_root
from pier.images.load import Loaded, load
from pier.images.progress import Counted, Message
from pier.images.save import SavePlan, choose_images, plan_layout, plan_save, write_archive
from pier.oci import Descriptor, Digest, InvalidReference, Platform, Reference, RunConfig, host_platform
from pier.storage import ContentStore, Snapshotter
from pier.storage.outflow import outflow
from pier.storage.stream import Reader
from pier.storage.tar_writer import Sink
from pier.storage.threads import Report, Transfer

STDIN: Final = "-"


class DigestReference(InvalidParameter):
    """cannot import digest reference"""


class DigestName(InvalidParameter):
    """{name}: a loaded image cannot be named by a digest"""


class SeveralImages(InvalidParameter):
    """--tag names one image, and this archive holds several: {images}"""

    remedy = "load it without --tag, then `tag` each"


class NothingToSave(InvalidParameter):
    """no image to save: names is empty"""


class Keeper(Protocol):
    """What archives need of the image service."""

    content: ContentStore
    snapshots: Snapshotter

    async def current(self) -> Catalog:
        """The catalogue as of now."""
        ...

    async def name(self, image_id: Digest, target: Descriptor, names: Iterable[str]) -> None:
        """Point full names at an image and remember when."""
        ...

    def tell(self, action: str, image_id: Digest, name: str, image: Image) -> None:
        """Publish an event."""
        ...

    def transfer(self, *, sweep: bool = False) -> AbstractAsyncContextManager[None]:
        """While blobs are kept that no name may reach; `sweep`: some are there that nobody needs."""
        ...

    @property
    def naming(self) -> asyncio.Lock:
        """Held by whoever gives and takes names."""
        ...


class Archives:
    """One per image service."""

    def __init__(self, keeper: Keeper, registries: Registries, executor: Executor, clock_ns: Callable[[], int]) -> None:
        self._keeper = keeper
        self._registries = registries
        self._executor = executor
        """Where what comes in is read."""
        self._clock_ns = clock_ns

    # --- in

    async def load(
        self, source: AsyncIterator[bytes], *, quiet: bool = True, platform: str = "", tags: Sequence[str] = ()
    ) -> AsyncIterator[Message]:
        """Load images from an archive, telling the progress as Docker does.

        `platform` takes that one of each image alone. With `tags` the one image of the archive gets these names in
        place of its own (wish 8). Raises PierError.
        """
        names = [tag_name(text) for text in tags]
        wanted = Platform.parse(platform) if platform else None
        keeper = self._keeper

        def work(body: Reader, report: Report) -> list[Loaded]:
            found = load(body, keeper.content, keeper.snapshots, report, quiet=quiet, wanted=wanted)
            return renamed(found, names) if names else found

        # An archive has files that are of no image: tables, what older readers want, other platforms.
        async with keeper.transfer(sweep=True), Transfer(self._executor, source, work) as transfer:
            async for message in transfer:
                yield message
            for loaded in await transfer.result():
                async for message in self._adopt(loaded):
                    yield message

    async def _adopt(self, loaded: Loaded) -> AsyncIterator[Message]:
        """Name an image that was loaded."""
        keeper = self._keeper
        async with keeper.naming:
            catalog = await keeper.current()
            for name in loaded.names:
                old = catalog.names.get(name)
                if old is not None and old != loaded.id:
                    note = (
                        f"The image {familiar(name)} already exists, renaming the old one with ID {old} to empty string"
                    )
                    yield progress.stream(note)
            if loaded.names:
                await keeper.name(loaded.id, loaded.root, loaded.names)
            else:
                await asyncio.to_thread(keeper.content.add, loaded.root)
        image = (await keeper.current()).get(loaded.id)
        keeper.tell("load", image.id, image.id, image)
        for name in loaded.names:
            yield progress.stream(f"Loaded image: {familiar(name)}")
        if not loaded.names:
            yield progress.stream(f"Loaded image ID: {loaded.id}")

    async def import_(
        self,
        source: AsyncIterator[bytes],
        *,
        origin: str = STDIN,
        repo: str = "",
        tag: str = "",
        message: str = "",
        changes: Sequence[str] = (),
        platform: str = "",
    ) -> AsyncIterator[Message]:
        """Make an image of a root file system's archive; the last message's status is its id.

        The archive is `source`, or what `origin` names with a URL. Raises PierError.
        """
        reference = import_reference(repo, tag)
        config = apply_changes(RunConfig(), changes)
        target = Platform.parse(platform) if platform else host_platform()
        keeper = self._keeper

        where = origin if origin == STDIN else printable(origin)
        if origin != STDIN:
            yield progress.status(f"Downloading from {where}")
        async with keeper.transfer(), self._archive_at(origin, source) as file:

            def work(body: Reader, report: Report) -> Loaded:
                tell = partial(_importing, report)
                return import_root(
                    Counted(body, file.size, tell) if file.size else body,
                    keeper.content,
                    keeper.snapshots,
                    config=config,
                    platform=target,
                    message=message or f"Imported from {where}",
                    now_ns=self._clock_ns(),
                )

            async with Transfer(self._executor, file.chunks, work) as transfer:
                async for progress_message in transfer:
                    yield progress_message
                loaded: Loaded = await transfer.result()
            if reference is not None:
                await keeper.name(loaded.id, loaded.root, [str(reference)])
            else:
                await asyncio.to_thread(keeper.content.add, loaded.root)
            image = (await keeper.current()).get(loaded.id)
            if reference is not None:
                keeper.tell("tag", image.id, reference.familiar, image)
            keeper.tell("import", image.id, image.id, image)
        yield progress.status(str(loaded.id))

    def _archive_at(self, origin: str, source: AsyncIterator[bytes]) -> AbstractAsyncContextManager[RemoteFile]:
        return nullcontext(RemoteFile(source)) if origin == STDIN else self._registries.file(origin)

    # --- out

    async def save(self, refs: Sequence[str], *, platform: str = "") -> AsyncIterator[bytes]:
        """The archive of images by name or id, in pieces; `platform` saves that one of each alone.

        Raises NothingToSave, NoSuchImage, InvalidReference, NoExportTarget, ContentNotFound, before the first piece.
        """
        if not refs:
            raise NothingToSave
        wanted = Platform.parse(platform) if platform else None
        catalog = await self._keeper.current()
        return self._saving(await asyncio.to_thread(self._plan, catalog, refs, wanted))

    async def save_layout(
        self, root: Descriptor, names: Sequence[Reference], *, docker_table: bool = False
    ) -> AsyncIterator[bytes]:
        """The archive of one manifest or index, under names that it need not have here. Raises ContentNotFound."""
        plan = await asyncio.to_thread(plan_layout, self._keeper.content, root, names, docker_table=docker_table)
        return self._saving(plan)

    async def layout_blobs(self, root: Descriptor) -> list[Descriptor]:
        """Every blob of one manifest or index, what others need first. Raises ContentNotFound."""
        plan = await asyncio.to_thread(plan_layout, self._keeper.content, root, ())
        return list(reversed(plan.blobs.values()))

    def _plan(self, catalog: Catalog, refs: Sequence[str], wanted: Platform | None) -> SavePlan:
        store = self._keeper.content
        return plan_save(store, choose_images(store, catalog, refs, wanted))

    async def _saving(self, plan: SavePlan) -> AsyncIterator[bytes]:
        store = self._keeper.content

        def work(sink: Sink) -> None:
            write_archive(store, plan, sink)

        async with self._keeper.transfer(), aclosing(outflow(work, name="save")) as pieces:
            async for piece in pieces:
                yield piece
        for image in plan.images:
            self._keeper.tell("save", image.id, image.id, image)


def _importing(report: Report, current: int, total: int) -> None:
    report(progress.advance("Importing", "", current, total))


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


def tag_name(text: str) -> str:
    """The full name that a loaded image is to get. Raises InvalidReference, DigestName."""
    reference = Reference.parse(text)
    if reference.digest is not None:
        raise DigestName(name=reference.familiar)
    return str(reference)


def renamed(found: list[Loaded], names: Sequence[str]) -> list[Loaded]:
    """The one image of an archive under other names. Raises SeveralImages."""
    if len(found) > 1:
        listed = ", ".join(familiar(name) for one in found for name in one.names) or f"{len(found)} without names"
        raise SeveralImages(images=listed)
    return [replace(found[0], names=tuple(dict.fromkeys(names)))]
