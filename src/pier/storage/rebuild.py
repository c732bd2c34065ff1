"""Blobs that are dropped once their layer is unpacked, and made again when they are asked for (`recipe`).

    <content>/recipes/sha256/<hex>     a recipe, written, tried and on the disk before its blob goes; empty for a blob
                                       that cannot be made again, so that nobody tries twice

A recipe needs its layer's tree: whoever sweeps layers spares those of `Recipes.layers`.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable
from typing import Final

import msgspec

from pier.errors import NotFound
from pier.oci import Digest
from pier.storage import recipe
from pier.storage.durable import fsync_dir
from pier.storage.errors import BadArchive
from pier.storage.faults import point
from pier.storage.outflow import outpour
from pier.storage.recompress import Candidate
from pier.storage.stream import CHUNK, Reader
from pier.storage.tar_writer import Sink

OpenLayer = Callable[[Digest], int]
"""`Snapshotter.open_layer`"""
Stop = Callable[[], bool]
"""Asked now and then whether the work is to end, by `Stopped`."""
TRIES: Final = 3
"""Compressors that begin alike and are run in full."""
MAX_BYTES: Final = 64 << 20
"""Of a recipe, which is in memory while it is tried."""


class Stopped(Exception):
    """The work on a recipe was ended before its end; nothing has changed."""


def never() -> bool:
    return False


class _Stoppable:
    """A blob that is read until someone asks for the end."""

    def __init__(self, blob: Reader, stop: Stop) -> None:
        self._blob = blob
        self._stop = stop

    def read(self, size: int = -1, /) -> bytes:
        if self._stop():
            raise Stopped
        return self._blob.read(size)


class _Hashing:
    """An archive whose digest is known once it has been read."""

    def __init__(self, archive: Reader, expected: Digest) -> None:
        self._archive = archive
        self._state = expected.hasher()

    def read(self, size: int = -1, /) -> bytes:
        data = self._archive.read(size)
        self._state.update(data)
        return data

    @property
    def digest(self) -> Digest:
        return Digest.finish(self._state)


class Recipes:
    """The recipes of one content store."""

    def __init__(self, root: str) -> None:
        self._root = os.path.join(root, "recipes")
        self.open_layer: OpenLayer | None = None
        """Set by whoever has both content and layers; without it no recipe can be followed."""
        os.makedirs(os.path.join(self._root, "sha256"), mode=0o700, exist_ok=True)
        for left in os.listdir(self._root):
            if left.startswith("new-"):
                os.unlink(os.path.join(self._root, left))

    def path(self, digest: Digest) -> str:
        return os.path.join(self._root, digest.algorithm, digest.hex)

    def header(self, digest: Digest) -> recipe.Header | None:
        """What a recipe says of its blob; None where there is none, or none that is worth anything."""
        try:
            with open(self.path(digest), "rb") as file:
                return recipe.read_header(file)
        except (FileNotFoundError, BadArchive):
            return None

    def usable(self, digest: Digest) -> recipe.Header | None:
        """The same, where the layer that the recipe needs is there too."""
        header = self.header(digest)
        if header is None or self.open_layer is None:
            return None
        try:
            os.close(self.open_layer(Digest(header.chain_id)))
        except NotFound:
            return None
        return header

    def hopeless(self, digest: Digest) -> bool:
        """Whether it was tried in vain to make a recipe."""
        try:
            return not os.stat(self.path(digest)).st_size
        except FileNotFoundError:
            return False

    def all(self) -> set[Digest]:
        """The blobs for which there is a recipe, or word that there can be none."""
        return {
            Digest(f"{algorithm}:{name}")
            for algorithm in os.listdir(self._root)
            if not algorithm.startswith("new-")
            for name in os.listdir(os.path.join(self._root, algorithm))
        }

    def layers(self) -> set[Digest]:
        """The layers whose trees are needed."""
        return {Digest(header.chain_id) for digest in self.all() if (header := self.header(digest)) is not None}

    def recheck(self, digest: Digest, stop: Stop = never) -> bool:
        """Prove a recipe again if another version of its compressor is installed since; one that fails is forgotten.

        False where that was done: the blob is lost then, and comes back with the next pull or load. Raises OSError,
        Stopped.
        """
        header = self.usable(digest)
        if header is None or header.library == header.compressor.library:
            return True
        with open(self.path(digest), "rb") as file:
            recipe.read_header(file)
            body = file.read()
        fresh = msgspec.structs.replace(header, library=header.compressor.library)
        if self._settle(digest, fresh, body, stop):
            return True
        self.forget(digest)
        return False

    def forget(self, digest: Digest) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path(digest))

    def open(self, digest: Digest) -> recipe.Rebuilt | None:
        """The blob, made as it is read; None where it cannot be made."""
        if self.open_layer is None:
            return None
        try:
            file = open(self.path(digest), "rb")  # noqa: SIM115 - closed by Rebuilt
        except FileNotFoundError:
            return None
        try:
            header = recipe.read_header(file)
            return recipe.Rebuilt(header, file, self.open_layer(Digest(header.chain_id)))
        except (BadArchive, NotFound):
            file.close()
            return None

    def record(self, digest: Digest, chain_id: Digest, write: Callable[[Sink], object]) -> int:
        """Write a recipe for an archive that `write` makes of the layer's tree and that nobody has stored.

        Returns the archive's size; 0, and nothing is kept, where a recipe is not worth it, or what `write` has made is
        not what the digest says. Raises what writing raises, OSError.
        """
        assert self.open_layer is not None
        with tempfile.TemporaryFile(dir=self._root) as body:
            tree_fd = self.open_layer(chain_id)
            try:
                with outpour(write) as archive:
                    reader = _Hashing(archive, digest)
                    plain_size = recipe.write(reader, tree_fd, body)
            finally:
                os.close(tree_fd)
            if body.tell() > min(plain_size // 2, MAX_BYTES) or reader.digest != digest:
                return 0
            body.seek(0)
            header = recipe.Header.of(Candidate(""), chain_id=chain_id, size=plain_size, plain_size=plain_size)
            # Proved by its making: what was read is the blob, and what was left out of it was found in the tree.
            fresh = self._fresh(msgspec.json.encode(header) + b"\n" + body.read())
        point("recipe-written")
        self._name(fresh, digest)
        return plain_size

    def make(self, digest: Digest, size: int, chain_id: Digest, read: Callable[[], Reader], stop: Stop = never) -> bool:
        """Write a recipe for a blob that `read` opens, and prove it. False where there can be none, which is noted.

        Raises what reading raises, OSError, Stopped.
        """
        assert self.open_layer is not None
        found = recipe.compressors(read())[:TRIES]
        if found and self._try(digest, size, chain_id, _Stoppable(read(), stop), found, stop=stop):
            return True
        self._name(self._fresh(b""), digest)
        return False

    def _try(
        self, digest: Digest, size: int, chain_id: Digest, blob: Reader, found: list[Candidate], *, stop: Stop
    ) -> bool:
        assert self.open_layer is not None
        with tempfile.TemporaryFile(dir=self._root) as body:
            tree_fd = self.open_layer(chain_id)
            try:
                plain_size = recipe.write(blob, tree_fd, body)
            finally:
                os.close(tree_fd)
            if body.tell() > min(size // 2, MAX_BYTES):  # not worth a rebuild at every push
                return False
            body.seek(0)
            recorded = body.read()
        headers = (recipe.Header.of(how, chain_id=chain_id, size=size, plain_size=plain_size) for how in found)
        return any(self._settle(digest, header, recorded, stop) for header in headers)

    def proves(self, digest: Digest, stop: Stop = never) -> bool:
        """Whether the recipe makes the blob, tried. Raises OSError, Stopped."""
        header = self.usable(digest)
        return header is not None and self._makes(digest, header, self.path(digest), stop)

    def _settle(self, digest: Digest, header: recipe.Header, body: bytes, stop: Stop) -> bool:
        """Keep the recipe if what it makes has the digest."""
        fresh = self._fresh(msgspec.json.encode(header) + b"\n" + body)
        try:
            point("recipe-written")
            if not self._makes(digest, header, fresh, stop):
                return False
            self._name(fresh, digest)
            return True
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(fresh)

    def _makes(self, digest: Digest, header: recipe.Header, path: str, stop: Stop) -> bool:
        assert self.open_layer is not None
        file = open(path, "rb")  # noqa: SIM115 - closed by Rebuilt
        recipe.read_header(file)
        rebuilt = recipe.Rebuilt(header, file, self.open_layer(Digest(header.chain_id)))
        state, size = digest.hasher(), 0
        try:
            with contextlib.closing(rebuilt):
                while (data := rebuilt.read(CHUNK)) and size <= header.size:
                    state.update(data)
                    size += len(data)
                    if stop():
                        raise Stopped
        except BadArchive:
            return False
        return size == header.size and Digest.finish(state) == digest

    def _fresh(self, data: bytes) -> str:
        fd, path = tempfile.mkstemp(prefix="new-", dir=self._root)
        try:
            with open(fd, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            os.unlink(path)
            raise
        return path

    def _name(self, fresh: str, digest: Digest) -> None:
        place = self.path(digest)
        os.makedirs(os.path.dirname(place), mode=0o700, exist_ok=True)
        os.rename(fresh, place)
        fsync_dir(os.path.dirname(place))
        point("recipe-named")
