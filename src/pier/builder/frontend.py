"""A client's request to build a Dockerfile -> what is to be solved: files found and read, one graph for each platform.

Where the files are is said by names of the client's folders, or by the address of a repository, archive or Dockerfile.
"""

from __future__ import annotations

import asyncio
import json
import os
import posixpath
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from pier.builder import layers
from pier.builder.building import compiled
from pier.builder.dockerfile import subrequests
from pier.builder.dockerfile.compile import Compiled
from pier.builder.dockerfile.frontend import FrontendRequest, for_platform
from pier.builder.dockerfile.git_reference import parse_git_reference
from pier.builder.dockerfile.ignore import DEFAULT_IGNORE_FILE, ignore_files, read_ignore_file
from pier.builder.dockerfile.parse import parse
from pier.builder.dockerfile.source import DockerfileError
from pier.builder.graph import Copy, File, FileAction, Note, Output, Source, Vertex
from pier.builder.resolving import ImageResolver
from pier.builder.service import BuildService
from pier.builder.solver import Build
from pier.builder.steps.unpacking import is_archive
from pier.builder.tree import Result
from pier.errors import InvalidParameter, NotFound
from pier.kernel.paths import closing, open_in_root

CONTEXT_FILE: Final = "context"
"""What the one file is called that was found at an address."""
DOCKERFILE_MAX_BYTES: Final = 4 << 20


class NoDockerfile(NotFound):
    """failed to read dockerfile: open {name}: no such file or directory"""


class BadContext(InvalidParameter):
    """invalid context {text!r}: neither a git repository nor an address"""


@dataclass(slots=True)
class Frontend:
    """One build's reading of its Dockerfile."""

    service: BuildService
    build: Build
    request: FrontendRequest
    inputs: Mapping[str, Output | None] = field(default_factory=dict)
    """Results that stand for folders of the client's."""
    files: dict[str, bytes] = field(default_factory=dict)
    """The Dockerfile, by its name, once it is read: errors and warnings point into it."""
    _context: Output | None = None
    """Files from elsewhere than the client."""
    _dockerfile: bytes | None = None

    async def graphs(self) -> list[Compiled]:
        """What is to be built, for each platform in turn. Raises DockerfileError, StepFailed, PierError."""
        data, ignored = await self._read()
        file = await asyncio.to_thread(parse, data, self.request.filename)
        found = []
        for platform in self.request.platforms or (None,):
            options = for_platform(self.request, platform)
            options = msgspec.structs.replace(options, ignore_patterns=tuple(ignored), main_context=self._context)
            found.append(await compiled(self.service, self.build, file, options))
        return found

    async def answer(self) -> Mapping[str, bytes]:
        """What the request's subrequest gives. Raises UnsupportedSubrequest, DockerfileError, StepFailed, PierError."""
        data, ignored = await self._read()
        platform = self.request.platforms[0] if self.request.platforms else None
        options = msgspec.structs.replace(
            for_platform(self.request, platform), ignore_patterns=tuple(ignored), main_context=self._context
        )
        resolver = ImageResolver(self.service.images, self.build, platform)
        return await subrequests.answer(self.request.subrequest, data, self.request.filename, options, resolver)

    # --- the files

    async def _read(self) -> tuple[bytes, list[str]]:
        """(the Dockerfile, patterns of what is ignored)."""
        await self._find_context()
        own_ignore, common_ignore = ignore_files(self.request.filename)
        if self._context is not None and not self.request.local_dockerfile:
            tree = await self._solve(self._context)
            data = self._dockerfile or await self._file(tree, self.request.filename)
            ignored = await self._file(tree, own_ignore, common_ignore)
            return self._found(data), read_ignore_file(ignored or b"")
        folder = await self._solve(self._definition([self.request.filename, own_ignore, *self._other_spellings()]))
        data = self._found(await self._file(folder, self.request.filename, *self._other_spellings()))
        ignored = await self._file(folder, own_ignore)
        if ignored is None:
            tree = await self._solve(self._context or self._ignore_source())
            ignored = await self._file(tree, common_ignore)
        return data, read_ignore_file(ignored or b"")

    def _other_spellings(self) -> tuple[str, ...]:
        lower = posixpath.join(posixpath.dirname(self.request.filename), "dockerfile")
        return (lower,) if posixpath.basename(self.request.filename) == "Dockerfile" else ()

    def _found(self, data: bytes | None) -> bytes:
        if data is None:
            raise NoDockerfile(name=self.request.filename)
        self.files[self.request.filename] = data
        return data

    async def _find_context(self) -> None:
        """Files that do not come from a folder of the client's. Raises BadContext."""
        text = self.request.context
        self._context = self.inputs.get(self.request.context_name)
        if self._context is not None or not text:
            return
        git = parse_git_reference(text)
        if git is not None:
            keep = self.request.keep_git_dir if git.keep_git_dir is None else git.keep_git_dir
            source = git.source(keep_git_dir=keep, checksum=git.checksum)
            self._context = Vertex(source, note=Note(f"[internal] load git source {text}")).output()
        elif text.startswith(("http://", "https://")):
            self._context = await self._in_file(text)
        else:
            raise BadContext(text=text)
        if self.request.context_subdir:
            copy = Copy(
                f"/{self.request.context_subdir.strip('/')}", "/", dir_copy_contents=True, create_dest_path=True
            )
            self._context = _step(copy, self._context, "[internal] take a part of the context")

    async def _in_file(self, url: str) -> Output:
        """What is at an address: an archive, whose files are the context, or a Dockerfile."""
        source = Source(url, {"http.filename": CONTEXT_FILE})
        file = Vertex(source, note=Note("[internal] load remote build context")).output()
        tree = await self._solve(file)
        if await self.service.ground.in_thread(self._is_archive, tree):
            copy = Copy(f"/{CONTEXT_FILE}", "/", attempt_unpack=True, create_dest_path=True)
            return _step(copy, file, "[internal] extract context")
        self._dockerfile = await self._file(tree, CONTEXT_FILE)
        return file

    def _is_archive(self, tree: Result) -> bool:
        with layers.shown(self.service.ground, tree) as root:
            flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
            with closing(open_in_root(root, CONTEXT_FILE, flags)) as fd:
                return is_archive(fd)

    def _definition(self, paths: Sequence[str]) -> Output:
        name = self.request.dockerfile_name
        if given := self.inputs.get(name):
            return given
        attrs = {"local.followpaths": json.dumps(paths), "local.sharedkeyhint": name, "local.differ": "none"}
        note = Note(f"[internal] load build definition from {posixpath.basename(self.request.filename)}")
        return Vertex(Source(f"local://{name}", attrs), note=note).output()

    def _ignore_source(self) -> Output:
        name = self.request.context_name
        attrs = {
            "local.followpaths": json.dumps([DEFAULT_IGNORE_FILE]),
            "local.sharedkeyhint": f"{name}-{DEFAULT_IGNORE_FILE}",
            "local.differ": "none",
        }
        return Vertex(Source(f"local://{name}", attrs), note=Note(f"[internal] load {DEFAULT_IGNORE_FILE}")).output()

    async def _solve(self, output: Output) -> Result:
        return (await self.service.solve(self.build, [output]))[0]

    async def _file(self, tree: Result, *names: str) -> bytes | None:
        """The first of these files that is there; None: none is."""
        return await self.service.ground.in_thread(self._first, tree, names)

    def _first(self, tree: Result, names: Sequence[str]) -> bytes | None:
        with layers.shown(self.service.ground, tree) as root:
            for name in names:
                try:
                    fd = open_in_root(root, name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                except (FileNotFoundError, NotADirectoryError):
                    continue
                with closing(fd):
                    return _content(fd, name)
        return None


def _content(fd: int, name: str) -> bytes:
    info = os.fstat(fd)
    if not stat.S_ISREG(info.st_mode):
        raise DockerfileError(f"failed to read {name}: it is not a file")
    if info.st_size > DOCKERFILE_MAX_BYTES:
        raise DockerfileError(f"failed to read {name}: it is larger than {DOCKERFILE_MAX_BYTES} bytes")
    return os.pread(fd, DOCKERFILE_MAX_BYTES, 0)


def _step(copy: Copy, source: Output, name: str) -> Output:
    """A copy out of a tree into an empty one."""
    return Vertex(File((FileAction(copy, secondary_input=0, output=0),)), (source,), note=Note(name)).output()
