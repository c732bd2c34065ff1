"""From a request to build a Dockerfile to what is to be solved: files found and read, one graph for each platform.

Where the files are is said by names of the client's folders, `context` and `dockerfile`, or by another source.
"""

from __future__ import annotations

import asyncio
import json
import os
import posixpath
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import msgspec

from pier.builder import layers
from pier.builder.building import compiled
from pier.builder.dockerfile.compile import Compiled
from pier.builder.dockerfile.ignore import ignore_files, read_ignore_file
from pier.builder.dockerfile.options import Options
from pier.builder.dockerfile.parse import parse
from pier.builder.dockerfile.source import DockerfileError
from pier.builder.graph import Copy, File, FileAction, Note, Output, Source, Vertex
from pier.builder.service import BuildService
from pier.builder.solver import Build
from pier.builder.steps.unpacking import is_archive
from pier.builder.tree import Result
from pier.errors import NotFound
from pier.kernel.paths import closing, open_in_root
from pier.oci import Platform

DEFAULT_NAME: Final = "Dockerfile"
CONTEXT_FILE: Final = "context"
DOCKERFILE_MAX_BYTES: Final = 4 << 20


class NoDockerfile(NotFound):
    """failed to read dockerfile: open {name}: no such file or directory"""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A build of a Dockerfile."""

    options: Options
    filename: str = DEFAULT_NAME
    dockerfile_folder: str = "dockerfile"
    """The client's name for the folder that has the Dockerfile."""
    context_folder: str = "context"
    context: Output | None = None
    """Files from elsewhere than the client; the Dockerfile is among them."""
    context_file: Output | None = None
    """One file called `context`: an archive of such files, or the Dockerfile itself."""
    dockerfile: bytes | None = None
    """The file itself, where it came with the request."""
    platforms: tuple[Platform, ...] = ()
    """None: the builder's own."""


@dataclass(slots=True)
class Frontend:
    """One build's reading."""

    service: BuildService
    build: Build
    wanted: Wanted
    files: dict[str, bytes] = field(default_factory=dict)
    """The Dockerfile, by its name, once it is read: errors and warnings point into it."""

    async def graphs(self) -> list[Compiled]:
        """What is to be built, for each platform in turn. Raises DockerfileError, StepFailed, PierError."""
        if self.wanted.context_file is not None:
            self.wanted = await self._found_in_file(self.wanted.context_file)
        wanted = self.wanted
        data, ignored = await self._read()
        file = await asyncio.to_thread(parse, data, wanted.filename)
        options = msgspec.structs.replace(
            wanted.options, ignore_patterns=tuple(ignored), main_context=self.wanted.context
        )
        several = len(wanted.platforms) > 1
        each = [
            msgspec.structs.replace(options, target_platform=platform, several_platforms=several)
            for platform in wanted.platforms or (options.target_platform,)
        ]
        return [await compiled(self.service, self.build, file, one) for one in each]

    # --- the files

    async def _found_in_file(self, file: Output) -> Wanted:
        """What the one file is: an archive, whose files are the context, or a Dockerfile."""
        tree = await self._solve(file)
        if await self.service.ground.in_thread(self._is_archive, tree):
            copy = Copy(f"/{CONTEXT_FILE}", "/", attempt_unpack=True, create_dest_path=True)
            step = Vertex(
                File((FileAction(copy, secondary_input=0, output=0),)), (file,), note=Note("[internal] extract context")
            )
            return replace(self.wanted, context=step.output())
        data = await self._file(tree, CONTEXT_FILE)
        return replace(self.wanted, context=file, dockerfile=data)

    def _is_archive(self, tree: Result) -> bool:
        with layers.shown(self.service.ground, tree) as root:
            flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
            with closing(open_in_root(root, CONTEXT_FILE, flags)) as fd:
                return is_archive(fd)

    async def _read(self) -> tuple[bytes, list[str]]:
        """(the Dockerfile, patterns of what is ignored)."""
        wanted = self.wanted
        own_ignore, _ = ignore_files(wanted.filename)
        if wanted.context is not None:
            tree = await self._solve(wanted.context)
            data = wanted.dockerfile if wanted.dockerfile is not None else await self._file(tree, wanted.filename)
            ignore = await self._file(tree, own_ignore, ".dockerignore")
            return self._dockerfile(data), read_ignore_file(ignore or b"")
        data, own = wanted.dockerfile, None
        if data is None:
            tree = await self._solve(self._definition([wanted.filename, own_ignore, wanted.filename.lower()]))
            data = await self._file(tree, wanted.filename, *self._other_spellings())
            own = await self._file(tree, own_ignore)
        text = self._dockerfile(data)
        if own is None:
            own = await self._file(await self._solve(self._ignore_source()), ".dockerignore")
        return text, read_ignore_file(own or b"")

    def _other_spellings(self) -> tuple[str, ...]:
        return (DEFAULT_NAME.lower(),) if self.wanted.filename == DEFAULT_NAME else ()

    def _dockerfile(self, data: bytes | None) -> bytes:
        if data is None:
            raise NoDockerfile(name=self.wanted.filename)
        self.files[self.wanted.filename] = data
        return data

    def _definition(self, paths: Sequence[str]) -> Output:
        name = self.wanted.dockerfile_folder
        attrs = {"local.followpaths": json.dumps(paths), "local.sharedkeyhint": name, "local.differ": "none"}
        shown = posixpath.basename(self.wanted.filename)
        return Vertex(
            Source(f"local://{name}", attrs), note=Note(f"[internal] load build definition from {shown}")
        ).output()

    def _ignore_source(self) -> Output:
        name = self.wanted.context_folder
        attrs = {
            "local.followpaths": json.dumps([".dockerignore"]),
            "local.sharedkeyhint": f"{name}-.dockerignore",
            "local.differ": "none",
        }
        return Vertex(Source(f"local://{name}", attrs), note=Note("[internal] load .dockerignore")).output()

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
                    info = os.fstat(fd)
                    if not stat.S_ISREG(info.st_mode):
                        raise DockerfileError(f"failed to read {name}: it is not a file")
                    if info.st_size > DOCKERFILE_MAX_BYTES:
                        raise DockerfileError(f"failed to read {name}: it is larger than {DOCKERFILE_MAX_BYTES} bytes")
                    return os.pread(fd, DOCKERFILE_MAX_BYTES, 0)
        return None
