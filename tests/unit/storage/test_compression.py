"""Compressed streams: recognised, read whole, refused when damaged."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import struct

import pytest
import zstandard

from pier.storage.compression import MAX_WINDOW_BYTES, decompressed, kind_of
from pier.storage.errors import BadArchive, TruncatedArchive
from pier.storage.stream import ReadAhead, Reader

PLAIN = random.Random(1).randbytes(300_000) + bytes(500_000)
WRITERS = {
    "gzip": gzip.compress,
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "": bytes,
}


def whole(stream: Reader) -> bytes:
    return b"".join(iter(lambda: stream.read(10_000), b""))


class Dribble:
    """A stream that gives a few bytes at a time, as a socket may."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def read(self, size: int = -1, /) -> bytes:
        return self._data.read(min(size, 7) if size >= 0 else 7)


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("source", [io.BytesIO, Dribble])
def test_every_kind(kind: str, source: type[io.BytesIO | Dribble]) -> None:
    found, stream = decompressed(source(WRITERS[kind](PLAIN[:400_000])))
    assert found == kind
    assert whole(stream) == PLAIN[:400_000]


@pytest.mark.parametrize("kind", list(WRITERS)[:4])
def test_several_members_are_one_stream(kind: str) -> None:
    one = WRITERS[kind](b"one")
    assert whole(decompressed(io.BytesIO(one + WRITERS[kind](b"two")))[1]) == b"onetwo"


def test_chunked_forms_are_read_as_what_they_are_compressed_with() -> None:
    """estargz: a member a chunk, then a footer, an empty member whose header says where the table of contents is."""
    chunks = [PLAIN[start : start + 100_000] for start in range(0, 400_000, 100_000)]
    extra = b"SG" + struct.pack("<H", 22) + b"%016xSTARGZ" % 123456
    footer = b"\x1f\x8b\x08\x04" + bytes(5) + b"\xff" + struct.pack("<H", len(extra)) + extra
    footer += b"\x01\0\0\xff\xff" + bytes(8)
    assert len(footer) == 51
    data = b"".join(gzip.compress(chunk) for chunk in chunks) + footer
    assert whole(decompressed(io.BytesIO(data))[1]) == PLAIN[:400_000]
    # zstd:chunked: a frame a chunk, tables in skippable frames before, between and behind
    skippable = struct.pack("<II", 0x184D2A50, 30) + bytes(30)
    frames = b"".join(skippable + zstandard.compress(chunk) for chunk in chunks) + 2 * skippable
    found, stream = decompressed(io.BytesIO(frames))
    assert (found, whole(stream)) == ("zstd", PLAIN[:400_000])


@pytest.mark.parametrize("kind", ["gzip", "bzip2", "xz"])
def test_cut_data(kind: str) -> None:
    data = WRITERS[kind](PLAIN)
    with pytest.raises(TruncatedArchive, match="unexpected EOF"):
        whole(decompressed(io.BytesIO(data[: len(data) // 2]))[1])


@pytest.mark.parametrize("kind", list(WRITERS)[:4])
def test_damaged_data(kind: str) -> None:
    data = bytearray(WRITERS[kind](PLAIN))
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(BadArchive):
        whole(decompressed(io.BytesIO(bytes(data)))[1])


def test_attack_12_a_zstd_frame_cannot_ask_for_gigabytes() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=28, enable_ldm=False)
    frame = zstandard.ZstdCompressor(compression_params=parameters)
    buffer = io.BytesIO()
    with frame.stream_writer(buffer, closefd=False) as writer:
        writer.write(bytes(1 << 20))
    assert zstandard.get_frame_parameters(buffer.getvalue()).window_size > MAX_WINDOW_BYTES
    with pytest.raises(BadArchive):
        whole(decompressed(io.BytesIO(buffer.getvalue()))[1])


def test_attack_12_a_bomb_is_read_in_small_pieces() -> None:
    bomb = gzip.compress(bytes(200 << 20), 9)
    assert len(bomb) < 300_000
    stream = decompressed(io.BytesIO(bomb))[1]
    assert all(len(stream.read(65536)) <= 65536 for _ in range(100))


def test_errors_of_the_stream_below_are_its_own() -> None:
    class Broken:
        def read(self, size: int = -1, /) -> bytes:
            raise ConnectionResetError("gone")

    with pytest.raises(ConnectionResetError), ReadAhead(Broken()) as ahead:
        ahead.read(10)


@pytest.mark.parametrize(
    ("head", "kind"), [(b"", ""), (b"\x1f\x8b", ""), (b"\x50\x2a\x4d\x18xx", "zstd"), (b"PK\3\4", "")]
)
def test_kind_of(head: bytes, kind: str) -> None:
    assert kind_of(head) == kind
