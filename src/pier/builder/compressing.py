"""Layers of an image in the compression that its export asks for."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec
import zstandard
from isal import isal_zlib

from pier.builder.ground import Ground
from pier.oci import Descriptor, Digest
from pier.oci.manifest import OCI_LAYER
from pier.storage.compression import decompressed

__all__ = ["GZIP", "KINDS", "PLAIN", "Compression", "compressed"]

PLAIN: Final = "uncompressed"
GZIP: Final = "gzip"
ZSTD: Final = "zstd"
KINDS: Final = (PLAIN, GZIP, ZSTD)
MEDIA_TYPES: Final = {PLAIN: OCI_LAYER, GZIP: f"{OCI_LAYER}+gzip", ZSTD: f"{OCI_LAYER}+zstd"}
GZIP_WINDOW: Final = 31
"""zlib's number for its largest window in gzip's format."""
ISAL_LEVEL: Final = 2
ZSTD_LEVEL: Final = 3
PIECE: Final = 1 << 20
KNOWN_MAX: Final = 1000


@dataclass(frozen=True, slots=True)
class Compression:
    """What layers are to be like."""

    kind: str = PLAIN
    level: int | None = None
    """As the kind counts them: gzip 0 to 9, zstd 1 to 22; beyond the ends, the end."""
    force: bool = False
    """Layers that are compressed already, since they came so with an image, are made anew too."""


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


def compressed(ground: Ground, layer: Descriptor, diff_id: Digest, wanted: Compression) -> Descriptor:
    """A layer's blob in the store as it is wanted. Blocks; call it inside `content.keep()`.

    `layer` has one of OCI's media types. Raises ContentNotFound, ContentMismatch, BadArchive, OSError.
    """
    packed = layer.digest != diff_id
    own = bool(layer.urls) or layer.media_type not in MEDIA_TYPES.values()
    if own or layer.media_type == MEDIA_TYPES[wanted.kind] or (packed and not wanted.force):
        return layer
    key = diff_id, wanted.kind, wanted.level
    known = ground.compressed.get(key)
    if known is not None and ground.content.has(known.digest):
        return known
    with ground.content.open(layer.digest, layer.size) as reader, ground.content.ingest() as writer:
        _, plain = decompressed(reader)
        compressor = _COMPRESSORS[wanted.kind](wanted.level)
        while data := plain.read(PIECE):
            writer.write(compressor.compress(data))
        writer.write(compressor.flush())
        made = writer.commit(MEDIA_TYPES[wanted.kind])
    ground.compressed[key] = made
    for older in list(ground.compressed)[:-KNOWN_MAX]:
        ground.compressed.pop(older, None)
    return msgspec.structs.replace(made, annotations=layer.annotations)


class _Plain:
    def compress(self, data: bytes, /) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


def _gzip(level: int | None) -> _Compressor:
    """ISA-L's way by default, which is as fast as disks; a level that is asked for is zlib's."""
    if level is None:
        return isal_zlib.compressobj(ISAL_LEVEL, isal_zlib.DEFLATED, GZIP_WINDOW)
    return zlib.compressobj(min(max(level, 0), 9), zlib.DEFLATED, GZIP_WINDOW)


def _zstd(level: int | None) -> _Compressor:
    wanted = ZSTD_LEVEL if level is None else min(max(level, 1), zstandard.MAX_COMPRESSION_LEVEL)
    return zstandard.ZstdCompressor(level=wanted).compressobj()


_COMPRESSORS: Final[dict[str, Callable[[int | None], _Compressor]]] = {
    PLAIN: lambda _: _Plain(),
    GZIP: _gzip,
    ZSTD: _zstd,
}
