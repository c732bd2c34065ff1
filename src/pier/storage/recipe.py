"""Recipes: a layer's blob without what its unpacked tree holds anyway, and the blob made of both again.

A recipe is what tar-split's metadata is, in a form of our own: the archive's bytes that are no file's content (headers,
padding, the end), and where in the layer's tree the rest is, all of it compressed; and by which compressor the blob was
made of the archive. On disk: a line of JSON, then a zstd frame of

    'P' u16 name        the file that what follows is taken from
    'C' u64 u32         so many bytes of it (the second) from an offset (the first)
    'R' u32 bytes       bytes of the archive as they are

numbers being big-endian. A recipe is only kept after the blob has been made by it once and had its digest.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Generator, Iterator
from dataclasses import asdict
from typing import IO, Final, cast

import msgspec
import zstandard

from pier.kernel.paths import RESOLVE_IN_ROOT, RESOLVE_NO_SYMLINKS, open_in_root
from pier.oci import Digest
from pier.storage.compression import decompressed, kind_of
from pier.storage.errors import BadArchive
from pier.storage.recompress import COMPARED_BYTES, SAMPLE_BYTES, Candidate, plausible
from pier.storage.stream import CHUNK, Prefixed, Reader, read_exactly, read_up_to
from pier.storage.tar import TarReader
from pier.storage.tar_header import REGULAR, Entry

VERSION: Final = 1
INLINE_BYTES: Final = 256
"""Contents shorter than this stay in the recipe: a name takes as much."""
MAX_HEADER_BYTES: Final = 1 << 20
_LEVEL: Final = 9
_NAME: Final = struct.Struct(">cH")
_COPY: Final = struct.Struct(">cQI")
_RAW: Final = struct.Struct(">cI")
_FILE_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK


class Header(msgspec.Struct, frozen=True):
    """The first line of a recipe."""

    version: int
    chain_id: str
    """The layer whose tree has the contents."""
    size: int
    """Bytes of the blob."""
    plain_size: int
    """Bytes of the archive in it."""
    kind: str
    level: int
    head: bytes
    mem_level: int
    checksum: bool
    sized: bool
    threads: int
    library: str
    """What made the blob when that was tried; see `Candidate.library`."""

    @classmethod
    def of(cls, how: Candidate, *, chain_id: Digest, size: int, plain_size: int) -> Header:
        return cls(VERSION, str(chain_id), size, plain_size, library=how.library, **asdict(how))

    @property
    def compressor(self) -> Candidate:
        return Candidate(
            self.kind, self.level, self.head, self.mem_level, self.checksum, self.sized, threads=self.threads
        )


# --- writing


def compressors(blob: Reader) -> list[Candidate]:
    """What may have made `blob`, by its beginning, the likeliest first. Raises BadArchive and what reading raises."""
    head = read_up_to(blob, COMPARED_BYTES + (1 << 16))
    _, plain = decompressed(Prefixed(head, blob))
    sample = read_up_to(plain, SAMPLE_BYTES)
    return list(plausible(kind_of(head), head, sample, whole=not plain.read(1)))


def write(blob: Reader, tree_fd: int, out: IO[bytes]) -> int:
    """Write the body of a recipe for `blob`, whose layer is unpacked below `tree_fd`.

    Returns the bytes of its content. Raises BadArchive and what reading raises.
    """
    _, plain = decompressed(blob)
    with zstandard.ZstdCompressor(level=_LEVEL).stream_writer(out, closefd=False) as body:
        recorder = _Recorder(plain, cast(IO[bytes], body))
        archive = TarReader(recorder)
        for entry in archive:
            if entry.type == REGULAR and entry.size >= INLINE_BYTES:
                _content(archive, entry, tree_fd, recorder)
        while recorder.read(CHUNK):
            pass
        recorder.flush()
    return recorder.size


class _Recorder:
    """The archive on its way to a TarReader: what is read goes into the recipe, unless it was found in a file."""

    def __init__(self, plain: Reader, body: IO[bytes]) -> None:
        self._plain = plain
        self._body = body
        self._raw = bytearray()
        self._mute = False
        self.size = 0

    def read(self, size: int = -1, /) -> bytes:
        data = self._plain.read(size)
        self.size += len(data)
        if not self._mute:
            self.raw(data)
        return data

    def muted(self, archive: TarReader, size: int) -> bytes:
        """Content of the archive's current entry, which the caller records."""
        self._mute = True
        try:
            return archive.read(size)
        finally:
            self._mute = False

    def raw(self, data: bytes) -> None:
        self._raw += data
        if len(self._raw) >= CHUNK:
            self.flush()

    def flush(self) -> None:
        if self._raw:
            self._body.write(_RAW.pack(b"R", len(self._raw)) + self._raw)
            self._raw.clear()

    def name(self, name: bytes) -> None:
        self.flush()
        self._body.write(_NAME.pack(b"P", len(name)) + name)

    def copy(self, offset: int, length: int) -> None:
        self.flush()
        self._body.write(_COPY.pack(b"C", offset, length))


def _content(archive: TarReader, entry: Entry, tree_fd: int, recorder: _Recorder) -> None:
    """One file's content: by reference as far as the tree's file has the same bytes, as it is where it has not."""
    pieces = entry.sparse.fragments if entry.sparse is not None else ((0, entry.size),)
    fd = _open(tree_fd, entry.name)
    if fd < 0:
        return
    try:
        recorder.name(entry.name)
        for start, length in pieces:
            offset, left = start, length
            while left and (data := recorder.muted(archive, min(left, CHUNK))):
                if os.pread(fd, len(data), offset) == data:
                    recorder.copy(offset, len(data))
                else:
                    recorder.raw(data)
                offset += len(data)
                left -= len(data)
    finally:
        os.close(fd)


def _open(tree_fd: int, name: bytes) -> int:
    """A regular file of the layer's tree, no link followed; -1 where there is none under that name."""
    try:
        fd = open_in_root(tree_fd, name, _FILE_FLAGS, resolve=RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS)
    except OSError:
        return -1
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        return -1
    return fd


# --- reading


def read_header(recipe: IO[bytes]) -> Header:
    """The first line; what follows is the body. Raises BadArchive."""
    line = recipe.readline(MAX_HEADER_BYTES)
    try:
        header = msgspec.json.decode(line, type=Header)
    except msgspec.MsgspecError as error:
        raise BadArchive(reason=f"a damaged recipe ({error})") from None
    if header.version != VERSION:
        raise BadArchive(reason=f"a recipe of version {header.version}")
    return header


class Rebuilt:
    """The blob of a recipe, made as it is read. Takes over `recipe`, which stands behind its header, and `tree_fd`.

    Raises BadArchive where the recipe is damaged; that the bytes are right is for a digest to say.
    """

    def __init__(self, header: Header, recipe: IO[bytes], tree_fd: int) -> None:
        self._recipe = recipe
        self._tree_fd = tree_fd
        self._pieces = self._compressed(header)
        self._rest = b""

    def read(self, size: int = -1, /) -> bytes:
        if size < 0:
            return b"".join(iter(lambda: self.read(CHUNK), b""))
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._rest = piece
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    def close(self) -> None:
        if self._tree_fd >= 0:
            self._pieces.close()
            self._recipe.close()
            os.close(self._tree_fd)
            self._tree_fd = -1

    def _compressed(self, header: Header) -> Generator[bytes, None, None]:
        run = header.compressor.start(header.plain_size)
        for data in self._plain():
            if made := run.compress(data):
                yield made
        if made := run.flush():
            yield made

    def _plain(self) -> Iterator[bytes]:
        fd = -1
        try:
            body = cast(Reader, zstandard.ZstdDecompressor().stream_reader(self._recipe, closefd=False))
            while kind := body.read(1):
                if kind == b"R":
                    left = int.from_bytes(read_exactly(body, 4, where="a recipe"), "big")
                    yield read_exactly(body, left, where="a recipe")
                elif kind == b"C":
                    offset, left = struct.unpack(">QI", read_exactly(body, 12, where="a recipe"))
                    yield _pread(fd, left, offset)
                elif kind == b"P":
                    length = int.from_bytes(read_exactly(body, 2, where="a recipe"), "big")
                    name = read_exactly(body, length, where="a recipe")
                    if fd >= 0:
                        os.close(fd)
                    fd = _open(self._tree_fd, name)
                else:
                    raise BadArchive(reason="a damaged recipe")
        except (zstandard.ZstdError, OSError) as error:
            raise BadArchive(reason=f"a recipe that cannot be followed ({error})") from error
        finally:
            if fd >= 0:
                os.close(fd)


def _pread(fd: int, size: int, offset: int) -> bytes:
    data = os.pread(fd, size, offset)
    if len(data) != size:
        raise BadArchive(reason="a recipe that cannot be followed (a file of the layer has changed)")
    return data
