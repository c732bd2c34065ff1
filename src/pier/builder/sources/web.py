"""Files at an address (ADD https://…): one file, known by its digest."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import hashlib
import os
import posixpath
import secrets
from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import Final
from urllib.parse import unquote, urlsplit

from pier.builder import layers
from pier.builder.graph import Source, Vertex
from pier.builder.ground import Ground
from pier.builder.progress import Broadcast
from pier.builder.solver import Build, Found, Work
from pier.builder.sources.context import CONTEXTS
from pier.builder.tree import SCRATCH, Result, Tree
from pier.distribution.remote_file import RemoteFile
from pier.errors import InvalidParameter
from pier.kernel.paths import closing

MAX_BYTES: Final = 64 << 30
CLIENT_HOST: Final = "buildkit-session"
DEFAULT_MODE: Final = 0o600


class WrongChecksum(InvalidParameter):
    """digest mismatch for {url}: got {found}, expected {wanted}"""

    remedy = "the file has changed, or is not the one that --checksum was made of"


class TooLong(InvalidParameter):
    """{url}: more than {most} bytes"""


class BadAttribute(InvalidParameter):
    """source {url}: {name} is {value!r}"""


class WebSource:
    """The kinds `http` and `https`."""

    type = "regular"

    def __init__(self, ground: Ground) -> None:
        self._ground = ground

    async def find(self, vertex: Vertex, build: Build, say: Broadcast) -> Found:
        """Fetch the file, unless its digest is known beforehand. Raises WrongChecksum, TooLong, BadSource, NotThere."""
        assert isinstance(vertex.op, Source)
        url, attrs = vertex.op.identifier, vertex.op.attrs
        how = tuple(attrs.get(f"http.{name}", "") for name in ("filename", "perm", "uid", "gid"))
        wanted = attrs.get("http.checksum", "")
        if wanted:  # what the cache may have, and is fetched only if it has not
            return Found(" ".join((wanted, name_of(url, how[0]), *how[1:])))
        path, found, modified = await self._download(url, build, say)
        return Found(" ".join((found, name_of(url, how[0]), *how[1:])), (path, modified))

    async def _download(self, url: str, build: Build, say: Broadcast) -> tuple[str, str, float]:
        """(path of a file that ends with the build, digest, when it was changed last)."""
        folder = os.path.join(self._ground.data_dir, CONTEXTS)
        os.makedirs(folder, mode=0o700, exist_ok=True)
        path = os.path.join(folder, f"download-{secrets.token_hex(8)}")
        build.cleanups.append(partial(_unlink, path))
        state, size = hashlib.sha256(), 0
        async with self._opened(url, build) as remote:
            with await asyncio.to_thread(open, path, "xb") as file:
                async for chunk in remote.chunks:
                    size += len(chunk)
                    if size > MAX_BYTES:
                        raise TooLong(url=url, most=MAX_BYTES)
                    state.update(chunk)
                    await asyncio.to_thread(file.write, chunk)
                    say.counted(url, "downloading", size, remote.size)
            modified = remote.last_modified
        say.counted(url, "downloading", size, size, done=True)
        parsed = email.utils.parsedate_to_datetime(modified).timestamp() if modified else 0.0
        return path, f"sha256:{state.hexdigest()}", parsed

    @contextlib.asynccontextmanager
    async def _opened(self, url: str, build: Build) -> AsyncIterator[RemoteFile]:
        """A file at an address, or a stream of the client's own, which has an address of its own kind."""
        parts = urlsplit(url)
        if parts.hostname == CLIENT_HOST:
            yield RemoteFile(build.session.upload(parts.path))
            return
        async with self._ground.registries.file(url) as remote:
            yield remote

    async def fetch(self, work: Work, found: Found) -> Result:
        assert isinstance(work.vertex.op, Source)
        url, attrs = work.vertex.op.identifier, work.vertex.op.attrs
        if found.pinned is None:
            path, digest, modified = await self._download(url, work.build, work.broadcast)
            if digest != attrs["http.checksum"]:
                raise WrongChecksum(url=url, found=digest, wanted=attrs["http.checksum"])
        else:
            path, modified = found.pinned
        name = name_of(url, attrs.get("http.filename", ""))
        mode = _number(url, attrs, "perm", 8, DEFAULT_MODE)
        owner = _number(url, attrs, "uid", 10, 0), _number(url, attrs, "gid", 10, 0)
        return await self._ground.in_thread(self._place, path, name, mode, owner, modified)

    def _place(self, path: str, name: str, mode: int, owner: tuple[int, int], modified: float) -> Tree:
        draft, root = layers.begin(self._ground, SCRATCH)
        try:
            with layers.opened(root) as fd, open(path, "rb") as source:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                with closing(os.open(name, flags, 0o600, dir_fd=fd)) as target:
                    while os.sendfile(target, source.fileno(), None, 1 << 30):
                        pass
                    os.fchown(target, *owner)
                    os.fchmod(target, mode)
                    os.utime(target, (modified, modified))
            return layers.seal(self._ground, draft, SCRATCH)
        finally:
            layers.drop(self._ground, draft)


def name_of(url: str, wanted: str) -> str:
    """What the file is called: as asked for, else by its address. Raises BadAttribute."""
    name = wanted or unquote(posixpath.basename(urlsplit(url).path)) or "download"
    if "/" in name or "\0" in name or name in (".", ".."):
        raise BadAttribute(url=url, name="the file's name", value=name)
    return name


def _number(url: str, attrs: Mapping[str, str], name: str, base: int, default: int) -> int:
    text = attrs.get(f"http.{name}", "")
    try:
        return int(text, base) if text else default
    except ValueError:
        raise BadAttribute(url=url, name=f"http.{name}", value=text) from None


def _unlink(path: str) -> None:
    if os.path.exists(path):
        os.unlink(path)
