"""Which compressor, with which settings, makes a given stream again, bit for bit.

Compressors promise the content back, not the bytes, and differ between programs and versions. zlib and libzstd are
tried here: what Python, Java and `zstd` write. Go's gzip and zstd, GNU gzip and pigz decide otherwise about the same
content, and nothing that can be called here decides as they do. What is found is only believed after a whole run.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast

import zstandard

SAMPLE_BYTES: Final = 1 << 18
"""Plain bytes that candidates are tried on before one is run in full."""
COMPARED_BYTES: Final = 1 << 12
"""Compressed bytes that must be equal for that; less where the whole stream has less."""

_ZSTD_LEVELS: Final = (3, 1, 19, 9, 6, 12, 15, 2, 4, 5, 7, 8, 10, 11, 22)
_GZIP_LEVELS: Final = (6, 9, 1, 5, 2, 3, 4, 7, 8)


class Compressor(Protocol):
    """What zlib's and libzstd's objects have in common."""

    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Candidate:
    """A compressor with its settings; `head` is what stands in front of what it makes."""

    kind: str
    """Empty (not compressed), `gzip` or `zstd`."""
    level: int = 0
    head: bytes = b""
    mem_level: int = 8
    checksum: bool = False
    sized: bool = False
    """Whether the zstd frame states how long its content is."""
    threads: int = 0
    """libzstd cuts the content into jobs where it may use threads, as `zstd` does even for one."""

    @property
    def library(self) -> str:
        """What makes the bytes, with its version: another one may make others."""
        if self.kind == "gzip":
            return f"zlib {zlib.ZLIB_RUNTIME_VERSION}"
        return f"libzstd {'.'.join(map(str, zstandard.ZSTD_VERSION))}" if self.kind == "zstd" else ""

    def start(self, plain_size: int) -> Compressor:
        """A fresh run for so many bytes."""
        if self.kind == "gzip":
            return _Gzip(self)
        if self.kind == "zstd":
            compressor = zstandard.ZstdCompressor(
                level=self.level, write_checksum=self.checksum, write_content_size=self.sized, threads=self.threads
            )
            return compressor.compressobj(size=plain_size if self.sized else -1)
        return _Plain()


class _Plain:
    def compress(self, data: bytes, /) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


class _Gzip:
    """One member (RFC 1952) by zlib, with the header given."""

    def __init__(self, how: Candidate) -> None:
        self._deflate = zlib.compressobj(how.level, zlib.DEFLATED, -zlib.MAX_WBITS, how.mem_level)
        self._head = how.head
        self._crc = 0
        self._size = 0

    def compress(self, data: bytes, /) -> bytes:
        head, self._head = self._head, b""
        self._crc = zlib.crc32(data, self._crc)
        self._size += len(data)
        return head + self._deflate.compress(data)

    def flush(self) -> bytes:
        head, self._head = self._head, b""
        return head + self._deflate.flush() + struct.pack("<II", self._crc, self._size & 0xFFFFFFFF)


def candidates(kind: str, head: bytes) -> Iterator[Candidate]:
    """What may have made a stream of `kind` that begins with `head`, the likeliest first."""
    if not kind:
        yield Candidate("")
    elif kind == "gzip" and (header := gzip_header(head)):
        for mem_level in (8, 9):
            for level in _GZIP_LEVELS:
                yield Candidate("gzip", level, header, mem_level)
    elif kind == "zstd" and len(head) > 4:
        descriptor = head[4]  # RFC 8878, 3.1.1.1.1
        sized, checksum = bool(descriptor & 0xE0), bool(descriptor & 0x04)
        for threads in (0, 1):
            for level in _ZSTD_LEVELS:
                yield Candidate("zstd", level, checksum=checksum, sized=sized, threads=threads)


def gzip_header(head: bytes) -> bytes:
    """The header of the first gzip member (RFC 1952, 2.3); empty where it is none or longer than `head`."""
    if len(head) < 10 or head[:3] != b"\x1f\x8b\x08":
        return b""
    flags, at = head[3], 10
    if flags & 0x04:
        at += 2 + int.from_bytes(head[at : at + 2], "little")
    for flag in (0x08, 0x10):
        if flags & flag:
            at = head.find(b"\0", at) + 1
            if not at:
                return b""
    at += 2 if flags & 0x02 else 0
    return head[:at] if at <= len(head) else b""


def plausible(kind: str, head: bytes, sample: bytes, *, whole: bool) -> Iterator[Candidate]:
    """The candidates whose output on `sample`, the beginning of the content, begins as the stream does.

    `head` is the beginning of the stream, `sample` of its content, or all of it (`whole`).
    """
    plain_size = len(sample) if whole else stated_size(kind, head)
    for candidate in candidates(kind, head):
        run = candidate.start(plain_size)
        made = run.compress(sample)
        if whole:
            made += run.flush()
        elif kind == "zstd":  # which gives nothing away before a buffer is full; whole blocks are not changed by this
            made += cast(Any, run).flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
        if head.startswith(made[:COMPARED_BYTES]):
            yield candidate


def stated_size(kind: str, head: bytes) -> int:
    """Bytes of content that the stream says it has; 0 where it does not."""
    if kind != "zstd":
        return 0
    try:
        return max(0, zstandard.frame_content_size(head))
    except zstandard.ZstdError:
        return 0
