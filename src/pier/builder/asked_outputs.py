"""`pier build`: a Dockerfile built for one platform or several, and what becomes of it, told on the one stream.

What is for the client comes between the lines of JSON: a line `{"output": {"number": N, "bytes": COUNT}}` and as many
bytes of an archive; `{"output": {"number": N}}` ends one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

import msgspec

from pier.builder import transfer
from pier.builder.building import compiled
from pier.builder.cache_options import INLINE, LOCAL, CacheExport, CacheImport, wants_inline
from pier.builder.cacheconfig import NoCache
from pier.builder.caches import Origin
from pier.builder.caching import export_caches, import_caches
from pier.builder.classic import Message
from pier.builder.dockerfile.instructions import Dockerfile
from pier.builder.dockerfile.options import Options
from pier.builder.exports import Export, Job, NothingToReceiveIt, PlatformResult, Results, Telling, export, read
from pier.builder.exports.files import archive_of
from pier.builder.progress import Warned
from pier.builder.service import BuildService
from pier.builder.solver import Build
from pier.builder.tree import SCRATCH
from pier.oci import Descriptor, Platform, Reference
from pier.storage.outflow import outflow
from pier.storage.tar_writer import Sink

__all__ = ["Asked", "Head", "Tell", "Wanted", "wishes_of"]

Tell = Callable[[Message | bytes], Awaitable[None]]


class Wanted(msgspec.Struct):
    """One output, as BuildKit's clients ask for it."""

    type: str
    attrs: dict[str, str] = msgspec.field(default_factory=dict)


class Head(msgspec.Struct, kw_only=True):
    """What of a build has no place in an address."""

    secrets: dict[str, bytes] = msgspec.field(default_factory=dict)
    outputs: list[Wanted] | None = None
    """None: an image in the store."""
    agents: list[str] = msgspec.field(default_factory=list)
    """Ids of ssh agents that the client has connections to (`POST /build/ssh`)."""
    entitlements: list[str] = msgspec.field(default_factory=list)
    caches_from: list[Wanted] = msgspec.field(default_factory=list)
    caches_to: list[Wanted] = msgspec.field(default_factory=list)
    """A folder's is the output after those of `outputs`, and so on."""
    contexts: dict[str, str] = msgspec.field(default_factory=dict)
    """Named contexts: addresses of repositories, archives and images (`docker-image://`)."""
    folders: list[str] = msgspec.field(default_factory=list)
    """Named contexts that are folders of the client's, and have come already (`POST /build/context`)."""


def wishes_of(wanted: Sequence[Wanted] | None, names: Sequence[Reference]) -> list[Export]:
    """None: an image in the store. Raises what `exports.read` raises."""
    if wanted is None:
        wanted = [Wanted("moby", {"name": ",".join(map(str, names))})]
    return [read(each.type, each.attrs, number) for number, each in enumerate(wanted)]


@dataclass(frozen=True, slots=True)
class _StreamClient:
    """The `Client` that gets everything on the stream."""

    say: Tell

    async def take_archive(self, number: int, pieces: AsyncIterator[bytes], facts: Mapping[str, str]) -> None:
        async for piece in pieces:
            head = msgspec.json.encode({"output": {"number": number, "bytes": len(piece)}})
            await self.say(head + b"\n" + piece)
        await self.say({"output": {"number": number}})

    async def take_files(
        self, number: int, folder: str, root_fd: int, told: Callable[[int], None], *, time_ns: int | None = None
    ) -> None:
        async def counted() -> AsyncIterator[bytes]:
            async with aclosing(archive_of([(folder, root_fd)], time_ns)) as pieces:
                async for piece in pieces:
                    told(len(piece))
                    yield piece

        await self.take_archive(number, counted(), {})

    async def take_blobs(self, number: int, blobs: Sequence[Descriptor], told: Callable[[Descriptor], None]) -> None:
        raise NothingToReceiveIt


@dataclass(frozen=True, slots=True)
class _StreamFolders:
    """Caches for folders of the client's, as further outputs; what it has in folders it has sent before."""

    client: _StreamClient
    service: BuildService
    wishes: Sequence[CacheExport]
    first: int
    """The number of the first."""

    async def open(self, wish: CacheImport) -> tuple[Origin, Descriptor]:
        raise NoCache(reason="a folder's is taken in by POST /build/cache")

    async def put(self, wish: CacheExport, parts: Sequence[tuple[str, Descriptor]], telling: Telling) -> None:
        blobs = [blob for _, blob in parts]
        number = self.first + [each for each in self.wishes if each.kind == LOCAL].index(wish)

        def work(sink: Sink) -> None:
            transfer.write(self.service.ground, blobs[-1], blobs, sink, wish.tag)

        with telling.part("sending tarball"):
            async with aclosing(outflow(work, name="cache of a build")) as pieces:
                await self.client.take_archive(number, pieces, {})


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be built, and what is to become of it."""

    service: BuildService
    build: Build
    file: Dockerfile
    options: Options
    platforms: Sequence[Platform] = ()
    """Empty: the builder's own."""
    squash: bool = False
    wishes: Sequence[Export] = field(default_factory=list)
    caches_from: Sequence[CacheImport] = ()
    caches_to: Sequence[CacheExport] = ()

    async def run(self, say: Tell) -> dict[str, str]:
        """Build and export; returns what the client is told of its outputs. Raises DockerfileError, PierError."""
        folders = _StreamFolders(_StreamClient(say), self.service, self.caches_to, len(self.wishes))
        for text in [text for each in self.caches_to for text in each.warnings]:
            self.build.say(Warned(None, text))
        await import_caches(self.service, self.build, self.caches_from, folders)
        parts = {}
        several = len(self.platforms) > 1
        wanted = []
        for platform in self.platforms or (self.options.target_platform,):
            options = msgspec.structs.replace(self.options, target_platform=platform, several_platforms=several)
            wanted.append(await compiled(self.service, self.build, self.file, options))
        trees = await self.service.solve(self.build, [each.output for each in wanted if each.output is not None])
        solved = iter(trees)
        for each in wanted:
            base = len(each.base_image.rootfs.diff_ids) if each.base_image else 0
            parts[str(each.platform) if several else ""] = PlatformResult(
                next(solved) if each.output is not None else SCRATCH,
                each.image,
                each.platform,
                squash_from=base if self.squash else None,
            )
        inline = any(each.kind == INLINE for each in self.caches_to) or wants_inline(self.options.build_args)
        results = Results(parts, epoch_s=wanted[0].epoch_s, carry_cache=inline)
        job = Job(self.service, self.build, results, _StreamClient(say))
        facts: dict[str, str] = {}
        for wish in self.wishes:
            facts |= await export(job, wish)
        made = [await self.service.as_tree(part.tree) for part in parts.values()]
        return facts | await export_caches(self.service, self.build, self.caches_to, made, folders)
