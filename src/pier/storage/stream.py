"""Byte streams that are read once: exact reads, a look at the first bytes, hashing and reading ahead in threads.

A reader here is anything with `read(n)`: at most `n` bytes, empty only at the end.
"""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Final, Protocol

from pier.oci.digest import Digest, hasher
from pier.storage.errors import TruncatedArchive

if TYPE_CHECKING:
    from hashlib import _Hash

CHUNK: Final = 1 << 18
"""Bytes moved at once: enough for hashing and inflating to run without the interpreter lock, small for the cache."""
AHEAD: Final = 16
"""Chunks a thread may be ahead of its consumer."""


class Reader(Protocol):
    """The least a stream must do."""

    def read(self, size: int = -1, /) -> bytes: ...


def read_exactly(stream: Reader, size: int, *, where: str) -> bytes:
    """`size` bytes; raises TruncatedArchive where the stream ends before."""
    data = stream.read(size)
    if len(data) == size:
        return data
    parts = [data]
    left = size - len(data)
    while left:
        if not (data := stream.read(left)):
            raise TruncatedArchive(where=where)
        parts.append(data)
        left -= len(data)
    return b"".join(parts)


def read_up_to(stream: Reader, size: int) -> bytes:
    """`size` bytes, fewer only where the stream ends."""
    parts: list[bytes] = []
    while size > 0 and (data := stream.read(size)):
        parts.append(data)
        size -= len(data)
    return b"".join(parts)


class Prefixed:
    """A stream with bytes put back in front of it."""

    def __init__(self, prefix: bytes, rest: Reader) -> None:
        self._prefix = prefix
        self._rest = rest

    def read(self, size: int = -1, /) -> bytes:
        if not self._prefix:
            return self._rest.read(size)
        if size < 0:
            data, self._prefix = self._prefix, b""
            return data + self._rest.read()
        data, self._prefix = self._prefix[:size], self._prefix[size:]
        return data


class _Cancelled(Exception):
    """The consumer has gone; the thread that reads ahead ends."""


class ReadAhead:
    """Reads `source` in a thread, and hashes what passes in another, while the consumer works on what came before.

    Inflating, hashing and writing files release the interpreter lock, so they go on at the same time on several
    processors. Memory: at most AHEAD chunks of CHUNK bytes, twice. Errors of the source are raised by `read`.
    Use as a context manager: the threads end with the block.
    """

    def __init__(self, source: Reader, *, algorithm: str | None = None, ahead: int = AHEAD) -> None:
        self._source = source
        self._chunks: queue.Queue[bytes | BaseException] = queue.Queue(ahead)
        self._hash: _Hash | None = hasher(algorithm) if algorithm else None
        self._to_hash: queue.Queue[bytes] = queue.Queue(ahead)
        self._cancelled = threading.Event()
        self._buffer = memoryview(b"")
        self._ended = False
        self.bytes_read = 0
        self._threads = [threading.Thread(target=self._read_all, name="read-ahead", daemon=True)]
        if self._hash is not None:
            self._threads.append(threading.Thread(target=self._hash_all, name="read-hash", daemon=True))

    def __enter__(self) -> ReadAhead:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._cancelled.set()
        for thread in self._threads:
            thread.join()

    def read(self, size: int = -1, /) -> bytes:
        if size < 0:
            return b"".join(iter(lambda: self.read(CHUNK), b""))
        if not self._buffer:
            self._fill()
        data = bytes(self._buffer[:size])
        self._buffer = self._buffer[size:]
        return data

    def _fill(self) -> None:
        if self._ended:
            return
        chunk = self._chunks.get()
        if isinstance(chunk, BaseException):
            self._ended = True
            raise chunk
        if not chunk:
            self._ended = True
        self.bytes_read += len(chunk)
        self._buffer = memoryview(chunk)

    def finish(self) -> Digest | None:
        """Read what is left and return the digest of everything, None where no algorithm was given."""
        while self.read(CHUNK):
            pass
        if self._hash is None:
            return None
        self._threads[1].join()
        return Digest.finish(self._hash)

    def _read_all(self) -> None:
        try:
            while True:
                chunk = self._source.read(CHUNK)
                if self._hash is not None:
                    self._put(self._to_hash, chunk)
                self._put(self._chunks, chunk)
                if not chunk:
                    return
        except _Cancelled:
            return
        except BaseException as error:  # whatever the source raises belongs to the consumer
            if not self._cancelled.is_set():
                self._chunks.put(error)

    def _put(self, to: queue.Queue[bytes] | queue.Queue[bytes | BaseException], chunk: bytes) -> None:
        while True:
            try:
                return to.put(chunk, timeout=0.2)
            except queue.Full:
                if self._cancelled.is_set():
                    raise _Cancelled from None

    def _hash_all(self) -> None:
        assert self._hash is not None
        while not self._cancelled.is_set():
            try:
                chunk = self._to_hash.get(timeout=0.2)
            except queue.Empty:
                continue
            if not chunk:
                return
            self._hash.update(chunk)
