"""Reading ahead: the same bytes, the right digest, threads that end."""

from __future__ import annotations

import hashlib
import io
import threading

import pytest

from pier.storage.stream import CHUNK, Prefixed, ReadAhead, read_up_to

DATA = bytes(range(256)) * (CHUNK // 64)


def test_reads_and_hashes_everything() -> None:
    with ReadAhead(io.BytesIO(DATA), algorithm="sha256") as ahead:
        first = ahead.read(1000)
        digest = ahead.finish()
        assert first == DATA[:1000]
        assert ahead.bytes_read == len(DATA)
    assert digest == f"sha256:{hashlib.sha256(DATA).hexdigest()}"


def test_a_consumer_that_leaves_early_leaves_no_thread() -> None:
    before = threading.active_count()
    with ReadAhead(io.BytesIO(DATA * 100), algorithm="sha256", ahead=2) as ahead:
        ahead.read(10)
        assert threading.active_count() == before + 2
    assert threading.active_count() == before


def test_an_error_of_the_source_reaches_the_consumer_after_the_data() -> None:
    class Half:
        def __init__(self) -> None:
            self.left = 3

        def read(self, size: int = -1, /) -> bytes:
            self.left -= 1
            if self.left < 0:
                raise ValueError("half")
            return b"x" * size

    with ReadAhead(Half(), algorithm="sha256") as ahead:
        assert len(read_up_to(ahead, 3 * CHUNK)) == 3 * CHUNK
        with pytest.raises(ValueError, match="half"):
            ahead.read(1)


def test_prefixed() -> None:
    assert Prefixed(b"ab", io.BytesIO(b"cd")).read() == b"abcd"
    stream = Prefixed(b"ab", io.BytesIO(b"cd"))
    assert [stream.read(1), stream.read(5), stream.read(5), stream.read(5)] == [b"a", b"b", b"cd", b""]
