"""POST /build as the classic builder had it: a context in an archive or at an address, an image, a stream of words."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import msgspec

from pier.builder import event_words, layers
from pier.builder.asked_outputs import Asked, Head, Tell, wishes_of
from pier.builder.building import Built, built, compiled
from pier.builder.cache import Record
from pier.builder.cache_options import CacheExport, CacheImport, read_exports, read_imports, wants_inline
from pier.builder.classic import ClassicWords, Line, Message, failure
from pier.builder.dockerfile.compile import Compiled
from pier.builder.dockerfile.git_reference import parse_git_reference
from pier.builder.dockerfile.ignore import ignore_files, read_ignore_file
from pier.builder.dockerfile.instructions import Dockerfile, Instruction, Transfer
from pier.builder.dockerfile.instructions import Run as RunInstruction
from pier.builder.dockerfile.options import Options
from pier.builder.dockerfile.parse import parse
from pier.builder.dockerfile.source import DockerfileError
from pier.builder.event_words import EventWords
from pier.builder.exporting import ImageWish
from pier.builder.exports import Export
from pier.builder.exports.making import CONFIG_KEY, DIGEST_KEY
from pier.builder.graph import NetMode, Note, Output, Vertex
from pier.builder.ground import Ground
from pier.builder.lending import source_of
from pier.builder.service import BuildService
from pier.builder.session import Given
from pier.builder.solver import Build
from pier.builder.sources import context
from pier.builder.tree import Folder, Result
from pier.errors import InvalidParameter, PierError
from pier.images.image import Image
from pier.images.telling import telling
from pier.kernel.paths import closing, open_in_root
from pier.oci import Platform, Reference
from pier.storage.threads import fed

DEFAULT: Final = "Dockerfile"
OTHER_CASE: Final = "dockerfile"
FILE_MAX_BYTES: Final = 4 << 20
HEAD_MAX_BYTES: Final = 16 << 20
NETWORK_HOST: Final = "network.host"


class BadHead(InvalidParameter):
    """the line of JSON before the context cannot be read: {reason}"""


class NoDockerfile(PierError):
    """Cannot locate specified Dockerfile: {name}"""


class OutsideContext(InvalidParameter):
    """Forbidden path outside the build context: {name} ()"""


@dataclass(frozen=True, slots=True)
class ClassicRequest:
    """What the query of POST /build says."""

    options: Options
    dockerfile: str = ""
    """Path in the context; empty: `Dockerfile`."""
    remote: str = ""
    """Address of a context, or of a Dockerfile; empty: the body is the context."""
    names: tuple[Reference, ...] = ()
    quiet: bool = False
    squash: bool = False
    id: str = ""
    """For POST /build/cancel."""
    auths: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Registry -> AuthConfig."""
    cache_from: tuple[str, ...] = ()
    """Images that may carry a cache."""
    platforms: tuple[Platform, ...] = ()
    """Several, for an image of several; else the options have the one."""
    events: bool = False
    """Pier's own: the stream is what the build tells, as JSON (`event_words`), and before the context the body has a
    line of JSON: `{"secrets": {ID: base64}}`."""


@dataclass(frozen=True, slots=True)
class Files:
    """A client's files that are here already."""

    context: Folder
    dockerfile: bytes
    ignore: bytes | None = None
    ignore_name: str = ""
    head: Head = field(default_factory=Head)


def classic_build(
    service: BuildService, request: ClassicRequest, body: AsyncIterator[bytes] | Files
) -> AsyncGenerator[Message | bytes, None]:
    """Build, telling it in the classic builder's words. Raises PierError before the first message."""

    def run(say: Tell) -> Any:
        build = _Run(service, request, say)
        return build.of_files(body) if isinstance(body, Files) else build.of_stream(body)

    return telling(run, name="build")  # type: ignore[arg-type]


class _Run:
    def __init__(self, service: BuildService, request: ClassicRequest, say: Tell) -> None:
        self._service = service
        self._ground = service.ground
        self._request = request
        self._say = say
        self._text = ""
        """The Dockerfile's."""
        self._head = Head()
        self._wishes: list[Export] = []
        self._warnings: list[str] = []
        self._caches_from: list[CacheImport] = []
        self._caches_to: list[CacheExport] = []

    async def of_files(self, files: Files) -> None:
        """Build from files that are here."""
        name = self._request.dockerfile or DEFAULT
        self._take(files.head)
        try:
            file = await self._ground.in_thread(self._parsed, files.dockerfile, name)
            ignored = read_ignore_file(files.ignore, files.ignore_name) if files.ignore is not None else []
            await self._with(files.context, file, ignored)
        except DockerfileError as error:
            await self._say(event_words.failure(error, self._text))

    async def of_stream(self, body: AsyncIterator[bytes]) -> None:
        """Build from a request's body."""
        self._body = body
        place = await self._ground.in_thread(context.make, self._ground)
        try:
            await self._in(place)
        except DockerfileError as error:
            if not self._request.events:
                raise
            await self._say(event_words.failure(error, self._text))
        finally:
            await self._ground.in_thread(context.remove, place)

    async def _in(self, place: str) -> None:
        if self._request.events:
            await self._take_head()
        remote = parse_git_reference(self._request.remote) if self._request.remote else None
        if remote is None:
            await (self._fetch(place) if self._request.remote else receive(self._ground, place, self._body))
            with closing(os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as root:
                name, file, ignored = await self._ground.in_thread(self._read, root)
            if ignored:
                await self._ground.in_thread(context.leave_out, place, ignored, [*ignore_files(name), name])
            await self._with(await self._ground.in_thread(context.as_folder, place), file)
            return
        async with self._build_of({}) as build:
            source = remote.source(keep_git_dir=bool(remote.keep_git_dir), checksum=remote.checksum)
            output = Vertex(source, note=Note(f"[internal] load git source {self._request.remote}")).output()
            [files] = await self._service.solve(build, [output])
            name, file, ignored = await self._ground.in_thread(self._read_of, files)
            options = msgspec.structs.replace(self._options, main_context=output, ignore_patterns=tuple(ignored))
            await self._compile(build, file, options)

    async def _with(self, folder: Folder, file: Dockerfile, ignored: Sequence[str] = ()) -> None:
        options = msgspec.structs.replace(self._options, ignore_patterns=tuple(ignored))
        async with self._build_of({"context": folder, "dockerfile": folder}) as build:
            await self._compile(build, file, options)

    def _build_of(self, locals: Mapping[str, Folder]) -> AbstractAsyncContextManager[Build]:
        """The build, with all that its client has sent along."""
        id = self._request.id or os.urandom(16).hex()
        agents = {name: partial(self._service.agents.carry, id, name) for name in self._head.agents}
        locals = {**locals, **self._service.lending.folders(id, self._head.folders)}
        session = Given(locals=locals, secrets=self._head.secrets, auths=self._request.auths, agents=agents)
        asked = frozenset(self._head.entitlements)
        if self._request.options.network is NetMode.HOST:  # asked for by the flag, not by the file
            asked |= {NETWORK_HOST}
        return self._service.build(id, session, entitlements=self._service.granted(asked))

    @property
    def _options(self) -> Options:
        folders = {name: f"local:{source_of(name)}" for name in self._head.folders}
        return msgspec.structs.replace(self._request.options, contexts={**self._head.contexts, **folders})

    async def _compile(self, build: Build, file: Dockerfile, options: Options) -> None:
        if self._request.events:
            await self._outputs(build, file, options)
            return
        for name in self._request.cache_from:
            try:
                await self._service.caches.offer_image(build, Reference.parse(name))
            except PierError as error:
                self._warnings.append(f"the cache of {name} is not used: {error.message}")
        wanted = await compiled(self._service, build, file, options)
        await self._build(build, file, wanted)

    async def _take_head(self) -> None:
        """The line of JSON before the context. Raises BadHead."""
        head = b""
        async for chunk in self._body:
            head += chunk
            if b"\n" in head or len(head) > HEAD_MAX_BYTES:
                break
        line, newline, rest = head.partition(b"\n")
        try:
            given = msgspec.json.decode(line, type=Head)
        except msgspec.MsgspecError as error:
            raise BadHead(reason=str(error)) from None
        if not newline:
            raise BadHead(reason="it does not end")
        self._take(given)
        self._body = _after(rest, self._body)

    def _take(self, head: Head) -> None:
        """Raises what the outputs' attributes have wrong."""
        self._head = head
        self._wishes = wishes_of(head.outputs, self._request.names)
        self._caches_from = read_imports((each.type, each.attrs) for each in head.caches_from)
        self._caches_to = read_exports((each.type, each.attrs) for each in head.caches_to)

    async def _fetch(self, place: str) -> None:
        """A context at an address: an archive, or the Dockerfile alone."""
        async with (
            self._ground.registries.file(self._request.remote) as remote,
            fed(remote.chunks, name="remote context") as feed,
        ):
            await self._ground.in_thread(context.receive_either, place, feed, DEFAULT)

    def _read_of(self, files: Result) -> tuple[str, Dockerfile, list[str]]:
        with layers.shown(self._ground, files) as root:
            return self._read(root)

    def _read(self, root: int) -> tuple[str, Dockerfile, list[str]]:
        """The Dockerfile's name, what it says, and the patterns of its ignore file. Raises DockerfileError, …"""
        name = self._request.dockerfile or DEFAULT
        data = read_in(root, name)
        if data is None and not self._request.dockerfile:
            name, data = OTHER_CASE, read_in(root, OTHER_CASE)
        if data is None:
            raise NoDockerfile(name=self._request.dockerfile or DEFAULT)
        name = name.lstrip("/")
        for candidate in ignore_files(name):
            ignored = read_in(root, candidate)
            if ignored is not None:
                return name, self._parsed(data, name), read_ignore_file(ignored, candidate)
        return name, self._parsed(data, name), []

    def _parsed(self, data: bytes, name: str) -> Dockerfile:
        self._text = data.decode("utf-8", "replace")
        return parse(data, name)

    async def _build(self, build: Build, file: Dockerfile, wanted: Compiled) -> None:
        say = _nothing if self._request.quiet else self._say
        words = ClassicWords(lines_of(file, wanted), say, lambda vertex: base_id(build, vertex))
        for warning in self._warnings:
            await self._say({"stream": f"WARNING: {warning}\n"})
        telling_it = asyncio.create_task(self._tell(build, words), name="build words")
        try:
            found = await built(self._service, build, wanted)
            build.journal.close()
            await telling_it
            await self._export(build, found, words)
        except PierError as error:
            build.journal.close()
            await telling_it
            await words.failed()
            await self._say(failure(error))
        finally:
            telling_it.cancel()
            await asyncio.gather(telling_it, return_exceptions=True)

    async def _outputs(self, build: Build, file: Dockerfile, options: Options) -> None:
        """`pier build`: everything told as events, every output made, its facts told at the end."""
        request = self._request
        words = EventWords(_nothing if request.quiet else self._say)
        telling_it = asyncio.create_task(self._tell(build, words), name="build events")
        asked = Asked(
            self._service,
            build,
            file,
            options,
            request.platforms,
            squash=request.squash,
            wishes=self._wishes,
            caches_from=self._caches_from,
            caches_to=self._caches_to,
        )
        try:
            facts = await asked.run(self._say)
            build.journal.close()
            await telling_it
            await self._say({"aux": {"ID": facts.get(CONFIG_KEY) or facts.get(DIGEST_KEY, ""), "Facts": facts}})
        except PierError as error:
            build.journal.close()
            await telling_it
            await self._say(event_words.failure(error, self._text))
        finally:
            telling_it.cancel()
            await asyncio.gather(telling_it, return_exceptions=True)

    async def _tell(self, build: Build, words: ClassicWords | EventWords) -> None:
        async for event in build.journal.read():
            await words.take(event)

    async def _export(self, build: Build, found: Built, words: ClassicWords) -> None:
        request, cached = self._request, list[Record]()
        if wants_inline(request.options.build_args):
            cached = await self._service.caches.records_of(build, [found.tree], everything=False)
        base = len(found.compiled.base_image.rootfs.diff_ids) if found.compiled.base_image else 0
        wish = ImageWish(
            found.tree,
            found.compiled.image,
            epoch_s=found.compiled.epoch_s,
            squash_from=base if request.squash else None,
            cached=cached,
        )
        made = await self._service.export_image(wish, request.names)
        if request.quiet:
            await self._say({"stream": f"{made.id}\n"})
            return
        await words.done(made.id.short)
        await self._say({"aux": {"ID": str(made.id)}})
        await self._say({"stream": f"Successfully built {made.id.short}\n"})
        for name in request.names:
            await self._say({"stream": f"Successfully tagged {name.familiar}\n"})


async def receive(ground: Ground, place: str, body: AsyncIterator[bytes]) -> None:
    """Unpack the context of a request into a folder. Raises BadArchive, OSError."""
    async with fed(body, name="build context") as feed:
        await ground.in_thread(context.receive, place, feed)


def base_id(build: Build, vertex: Vertex) -> str:
    """The id, short, of the image that a source has been found to be; empty for what is no image."""
    found = build.source(vertex)
    return found.pinned.id.short if found is not None and isinstance(found.pinned, Image) else ""


async def _after(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in rest:
        yield chunk


async def _nothing(_: Message) -> None:
    pass


def read_in(root: int, name: str) -> bytes | None:
    """A small file of a context; None: there is none, or something that is no file. Raises OutsideContext."""
    if ".." in name.split("/"):
        raise OutsideContext(name=name)
    try:
        fd = open_in_root(root, name, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return None
    with closing(fd):
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        with open(fd, "rb", closefd=False) as file:
            return file.read(FILE_MAX_BYTES + 1)


def lines_of(file: Dockerfile, wanted: Compiled) -> list[Line]:
    """The instructions that are gone through, each with the steps that it has become."""
    steps: dict[tuple[str, int], list[Vertex]] = {}
    for vertex in each_vertex(wanted.output):
        if vertex.note.location is not None:
            where = vertex.note.location
            steps.setdefault((where.filename, where.ranges[0][0].line), []).append(vertex)
    starts = {state.node.start.source for state in wanted.states.values() if state.node.start is not None}
    lines = [Line(arg.code) for arg in file.global_args]
    for stage in file.stages:
        if stage.start.source not in starts:
            continue
        for instruction in (stage.start, *stage.instructions):
            lines.append(_line(instruction, steps))
            lines[-1].is_from = instruction is stage.start
    return lines


def each_vertex(output: Output | None) -> list[Vertex]:
    """All that an output needs; the same step of two places comes twice."""
    found: dict[int, Vertex] = {}
    stack = [output.vertex] if output is not None else []
    while stack:
        vertex = stack.pop()
        if id(vertex) not in found:
            found[id(vertex)] = vertex
            stack += [each.vertex for each in vertex.inputs]
    return list(found.values())


def _line(instruction: Instruction, steps: Mapping[tuple[str, int], list[Vertex]]) -> Line:
    key = instruction.source.file, instruction.source.first_line
    makes_files = isinstance(instruction, RunInstruction | Transfer)
    return Line(instruction.code, list(steps.get(key, ())), makes_files=makes_files)
