"""The build service: what the faces ask of the builder.

All of it is called on the event loop. A build is a session, a journal of what it tells, and the solver's work for it;
a lease keeps what it meets in the stores until it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from typing import Any, Final

from pier.builder import folders, layers, usage
from pier.builder.agents import Agents
from pier.builder.cache import Cache, Record
from pier.builder.caches import Caches
from pier.builder.checksum import Checksums
from pier.builder.contexts import Contexts
from pier.builder.exporting import ImageWish, MadeImage, make_image
from pier.builder.graph import Diff, Exec, File, Merge, Output
from pier.builder.ground import Ground
from pier.builder.lending import Lending
from pier.builder.session import Session
from pier.builder.solver import Build, Solver
from pier.builder.sources import context
from pier.builder.sources.git import GitSource
from pier.builder.sources.image import ImageSource
from pier.builder.sources.local import LocalSource
from pier.builder.sources.web import WebSource
from pier.builder.steps.combining import DiffSteps, MergeSteps
from pier.builder.steps.files import FileSteps
from pier.builder.steps.mounts import CacheMounts
from pier.builder.steps.process import ProcessSteps, kill
from pier.builder.tree import Result, Tree
from pier.errors import Conflict, InvalidParameter
from pier.model.build import BuildCache
from pier.model.disk_usage import BuildCachePruneResponse, BuildCacheUsage
from pier.model.filters import Filters
from pier.oci import Descriptor, Digest, Reference

EVERYTHING: Final = Filters()

log = logging.getLogger("pier.builder")


class BuildCancelled(Conflict):
    """build canceled"""


class NotGranted(InvalidParameter):
    """granting entitlement {name} is not allowed by build daemon configuration"""

    remedy = 'builds may have: {grants}; "builder": {{"entitlements": …}} in daemon.json says which'


class BuildInProgress(InvalidParameter):
    """a build with the id {id} is running already"""


class BuildService:
    """One per daemon."""

    def __init__(
        self,
        ground: Ground,
        cache: Cache,
        *,
        keep_bytes: int | None = None,
        grants: frozenset[str] = frozenset({"network.host"}),
    ) -> None:
        """`cache` is loaded already: before the first sweep of the stores it must say what it keeps.

        `keep_bytes`: what may stay of the cache after each build; None: everything. `grants`: entitlements that builds
        may have.
        """
        self._grants = grants
        self.agents = Agents()
        self.lending = Lending()
        self._keep_bytes = keep_bytes
        self._trimming = asyncio.Lock()
        self.ground = ground
        self.cache = cache
        self.images = ImageSource(ground)
        self.caches = Caches(ground, cache)
        self.contexts = Contexts(ground.data_dir, cache)
        self._builds: dict[str, asyncio.Task[Any]] = {}
        self._cancelled: set[str] = set()
        caches = CacheMounts(ground, self.cache)
        self.solver = Solver(
            self.cache,
            {
                "docker-image": self.images,
                "local": LocalSource(),
                "git": GitSource(ground),
                "http": WebSource(ground),
                "https": WebSource(ground),
            },
            {
                Exec: ProcessSteps(ground, caches),
                File: FileSteps(ground),
                Merge: MergeSteps(ground),
                Diff: DiffSteps(ground),
            },
            Checksums(ground),
        )

    async def start(self) -> list[str]:
        """End what a killed daemon left running; returns what was repaired, in words."""
        os.makedirs(self.ground.data_dir, mode=0o700, exist_ok=True)
        os.makedirs(self.ground.exec_dir, mode=0o700, exist_ok=True)
        repaired = await self._end_leftovers()
        await self.ground.in_thread(self._clear, {record.folder for record in self.cache.records.values()})
        return repaired

    async def _end_leftovers(self) -> list[str]:
        """Steps outlive a daemon that was killed, as containers do; nobody waits for them any more."""
        ended = []
        for name in os.listdir(self.ground.exec_dir):
            folder = os.path.join(self.ground.exec_dir, name)
            monitor = await self.ground.runtime.reconnect(folder)
            if monitor is not None:
                await kill(monitor)
                monitor.close()
                ended.append(f"build step {name[:12]} of an earlier daemon: killed")
            await self.ground.in_thread(shutil.rmtree, folder, ignore_errors=True)
        return ended

    def _clear(self, kept: Collection[str]) -> None:
        for name in self.ground.snapshots.claims():
            if name.startswith(layers.PREFIX):
                self.ground.snapshots.remove(name)
        context.sweep(self.ground)
        folders.sweep(self.ground.data_dir, kept)

    async def close(self) -> None:
        """End builds and write what is to be remembered."""
        for task in self._builds.values():
            task.cancel()
        await asyncio.gather(*self._builds.values(), return_exceptions=True)
        await self.solver.close()
        await self.cache.close()
        await asyncio.to_thread(self.ground.threads.shutdown, wait=True, cancel_futures=True)

    # --- builds

    @contextlib.asynccontextmanager
    async def build(
        self, id: str, session: Session, *, entitlements: frozenset[str] = frozenset()
    ) -> AsyncIterator[Build]:
        """One build; what it meets stays while the block runs. Raises BuildInProgress, and BuildCancelled where
        `cancel` has ended it."""
        task = asyncio.current_task()
        assert task is not None
        if id in self._builds:
            raise BuildInProgress(id=id)
        self._builds[id] = task
        build = Build(id, session, entitlements=entitlements)
        try:
            async with self.ground.images.transfer():
                yield build
        except asyncio.CancelledError:
            if id in self._cancelled:
                task.uncancel()
                raise BuildCancelled from None
            raise
        finally:
            build.release()
            build.journal.close()
            await asyncio.shield(_left(build))
            for cleanup in build.cleanups:
                await self.ground.in_thread(cleanup)
            del self._builds[id]
            self._cancelled.discard(id)
            if not self._builds:
                self.ground.fresh.clear()
            await asyncio.shield(self.trim())

    def granted(self, asked: frozenset[str]) -> frozenset[str]:
        """The entitlements a client asks for, if it may. Raises NotGranted."""
        if refused := sorted(asked - self._grants):
            raise NotGranted(name=refused[0], grants=", ".join(sorted(self._grants)) or "none")
        return asked

    def cancel(self, id: str) -> bool:
        """End a build; False: there is none of that id."""
        task = self._builds.get(id)
        if task is None or not task.cancel():
            return False
        self._cancelled.add(id)
        return True

    async def solve(self, build: Build, outputs: Sequence[Output]) -> list[Result]:
        """The trees of the outputs. Raises StepFailed."""
        return await self.solver.solve(build, outputs)

    async def as_tree(self, result: Result) -> Tree:
        """A result as layers."""
        return await self.ground.in_thread(layers.as_tree, self.ground, result)

    async def export_image(self, wish: ImageWish, names: Sequence[Reference]) -> MadeImage:
        """Make an image in the store, under names or under none. Called within a build. Raises PierError, OSError."""
        made = await self.ground.in_thread(make_image, self.ground, wish)
        await self.keep_image(made.manifest, made.id, names)
        return made

    async def keep_image(self, root: Descriptor, id: Digest, names: Sequence[Reference]) -> None:
        """Keep a manifest or an index, whose image for one platform is `id`, under names or under none."""
        images = self.ground.images
        await asyncio.to_thread(self.ground.content.add, root)
        image = await images.get(id)
        images.tell("create", image.id, image.id, image)
        if names:
            await images.name(image.id, root, [str(name) for name in names])
        for name in names:
            images.tell("tag", image.id, name.familiar, image)

    # --- the cache

    async def trim(self) -> None:
        """Bring the cache down to what it may keep, those first that were not used for the longest time."""
        if self._keep_bytes is None or self._trimming.locked():
            return
        async with self._trimming:
            if await self._total(await self._shared()) > self._keep_bytes:
                await self.prune(Filters(), everything=True, keep_bytes=max(1, self._keep_bytes))

    async def disk_usage(self, filters: Filters = EVERYTHING) -> list[BuildCache]:
        """The records of the cache. Raises UnknownFilter, InvalidFilterValue, BadDuration."""
        filters.validate(usage.FILTERS)
        shared, now = await self._shared(), self.ground.clock_ns()
        return await self.ground.in_thread(usage.entries, self.cache, shared, filters, now_ns=now)

    async def usage(self) -> BuildCacheUsage:
        """The same with its sums; layers that several records or images have count once."""
        items = await self.disk_usage()
        shared = await self._shared()
        idle = [record for record in self.cache.records.values() if record.id not in self.cache.in_use]
        return BuildCacheUsage(
            active_count=len(items) - len(idle),
            total_count=len(items),
            reclaimable=await self.ground.in_thread(usage.total_bytes, self.cache, idle, shared),
            total_size=await self._total(shared),
            items=items,
        )

    async def _shared(self) -> frozenset[Digest]:
        catalog = await self.ground.images.current()
        return frozenset(chain_id for image in catalog.images.values() for chain_id in image.all_layers)

    async def prune(
        self, filters: Filters, *, everything: bool = False, keep_bytes: int = 0
    ) -> BuildCachePruneResponse:
        """Forget what nothing uses, and take its space back. Raises UnknownFilter, InvalidFilterValue, BadTime."""
        filters.validate(usage.FILTERS)
        shared = await self._shared()
        now = self.ground.clock_ns()
        candidates = usage.chosen(self.cache, filters, shared, everything=everything, now_ns=now)
        before = await self._total(shared)
        gone = usage.to_drop(candidates, self._size_of(shared), before, keep_bytes)
        for record in gone:
            self.cache.drop(record.id)
        await self.cache.flush()
        for record in gone:
            if record.folder:
                await self.ground.in_thread(folders.remove, self.ground.data_dir, record.folder)
        await self.ground.images.collect()
        freed = before - await self._total(shared)
        return BuildCachePruneResponse(caches_deleted=[record.id for record in gone] or None, space_reclaimed=freed)

    def _size_of(self, shared: frozenset[Digest]) -> Callable[[Record], int]:
        return lambda record: usage.total_bytes(self.cache, [record], shared)

    async def _total(self, shared: frozenset[Digest]) -> int:
        records = list(self.cache.records.values())
        return await self.ground.in_thread(usage.total_bytes, self.cache, records, shared)


async def _left(build: Build) -> None:
    """Wait until what the build's steps had is put away. What could not be is told in the log: the steps are done."""
    for error in await asyncio.gather(*build.leaving, return_exceptions=True):
        if isinstance(error, Exception):
            log.warning("a step of build %s has left something behind: %s", build.id, error)
