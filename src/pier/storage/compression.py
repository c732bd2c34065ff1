"""Compressed streams: which kind it is, by its first bytes, and its plain content, in bounded memory.

gzip by ISA-L, zstd by libzstd, bzip2 and xz by the standard library. Nothing is ever executed to unpack (attack 9).
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import IO, Any, Final, Protocol, cast

import zstandard
from isal import igzip, isal_zlib

from pier.storage.errors import BadArchive, TruncatedArchive
from pier.storage.stream import CHUNK, Prefixed, Reader, read_up_to

MAGIC_BYTES: Final = 6
_MAGIC: Final = {
    "gzip": b"\x1f\x8b\x08",
    "zstd": b"\x28\xb5\x2f\xfd",
    "bzip2": b"BZh",
    "xz": b"\xfd7zXZ\x00",
}
_ZSTD_SKIPPABLE: Final = tuple(bytes([0x50 + n]) + b"\x2a\x4d\x18" for n in range(16))

MAX_WINDOW_BYTES: Final = 1 << 27
"""Memory a zstd frame may ask for; what `zstd -19` writes stays below, `--ultra --long=31` does not."""
MAX_XZ_MEMORY_BYTES: Final = 256 << 20

_IGZIP_ERROR: Final = cast(type[Exception], isal_zlib.error)  # typed as an instance in isal's stubs
_ERRORS: Final = (OSError, EOFError, zlib.error, _IGZIP_ERROR, lzma.LZMAError, zstandard.ZstdError, ValueError)


def kind_of(head: bytes) -> str:
    """`gzip`, `zstd`, `bzip2`, `xz`, or empty for anything else; `head` is the first MAGIC_BYTES bytes or more."""
    if head.startswith(_ZSTD_SKIPPABLE):
        return "zstd"
    return next((kind for kind, magic in _MAGIC.items() if head.startswith(magic)), "")


def decompressed(stream: Reader) -> tuple[str, Reader]:
    """(kind, the plain content) of a stream that is compressed in any of the ways known here, or not at all.

    Reading raises BadArchive for damaged data, TruncatedArchive where the data ends too early.
    """
    head = read_up_to(stream, MAGIC_BYTES)
    kind = kind_of(head)
    whole = Prefixed(head, stream)
    if not kind:
        return "", whole
    return kind, _Checked(kind, _OPENERS[kind](_Source(whole)))


class _Source:
    """The compressed side: sets errors of the stream below apart from errors of the decompressor."""

    def __init__(self, stream: Reader) -> None:
        self._stream = stream
        self.error: Exception | None = None
        self.name = ""

    def read(self, size: int = -1, /) -> bytes:
        try:
            return self._stream.read(size)
        except Exception as error:
            self.error = error
            raise

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seekable(self) -> bool:
        return False


class _Plain(Protocol):
    source: _Source

    def read(self, size: int, /) -> bytes: ...


class _Checked:
    """The plain side: whatever a decompressor raises becomes an error of ours."""

    def __init__(self, kind: str, plain: _Plain) -> None:
        self._kind = kind
        self._plain = plain

    def read(self, size: int = -1, /) -> bytes:
        if size < 0:
            return b"".join(iter(lambda: self.read(CHUNK), b""))
        try:
            return self._plain.read(size)
        except TruncatedArchive:
            raise
        except EOFError:
            raise TruncatedArchive(where=f"its {self._kind} data") from None
        except _ERRORS as error:
            if self._plain.source.error is not None:
                raise
            raise BadArchive(reason=f"damaged {self._kind} data ({error})") from None


class _Gzip:
    """Any number of members, each with its check sum verified."""

    def __init__(self, source: _Source) -> None:
        self.source = source
        self._reader = igzip.GzipFile(fileobj=source, mode="rb")  # type: ignore[no-untyped-call]

    def read(self, size: int, /) -> bytes:
        return bytes(self._reader.read(size))


class _Zstd:
    """Any number of frames. libzstd's reader takes a cut frame for the end: the archive inside tells the difference."""

    def __init__(self, source: _Source) -> None:
        self.source = source
        decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)
        self._reader = decompressor.stream_reader(cast(IO[bytes], source), read_size=CHUNK, read_across_frames=True)

    def read(self, size: int, /) -> bytes:
        return self._reader.read(size)


class _Incremental(Protocol):
    """What BZ2Decompressor and LZMADecompressor have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Members:
    """Streams of one or more members, each with a decompressor of its own."""

    def __init__(self, source: _Source, make: Callable[[], _Incremental]) -> None:
        self.source = source
        self._make = make
        self._member: _Incremental | None = None
        self._pending = b""

    def read(self, size: int, /) -> bytes:
        while True:
            if self._member is None or self._member.eof:
                rest = self._member.unused_data if self._member else b""
                rest = (rest or self.source.read(CHUNK)).lstrip(b"\0") if self._member else self.source.read(CHUNK)
                if not rest:
                    return b""
                self._member, self._pending = self._make(), rest
            if self._member.needs_input and not self._pending:
                self._pending = self.source.read(CHUNK)
                if not self._pending:
                    raise EOFError
            data, self._pending = self._member.decompress(self._pending, size), b""
            if data:
                return data


_OPENERS: Final[dict[str, Callable[[_Source], _Plain]]] = {
    "gzip": _Gzip,
    "zstd": _Zstd,
    "bzip2": lambda source: _Members(source, bz2.BZ2Decompressor),
    "xz": lambda source: _Members(source, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, MAX_XZ_MEMORY_BYTES)),
}
