"""Read a log from its files: all of it or its tail, and on while it grows.

The newest records are in `path`, older ones in `path.1`, `path.2`, … The tail is found by reading backwards, so its
cost is that of the lines asked for; a follower looks for more at short intervals and notices rotation by the file's
number. Files are read in threads, in large pieces.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from pier.logs import jsonfile, local
from pier.logs.query import Past, Query
from pier.logs.tail import Tail

CHUNK = 256 * 1024
BATCH_BYTES = 256 * 1024
"""Records are handed on in batches of about this size."""
RECORD_MAX = 8 * 1024 * 1024
"""A longer one is not one of ours, and is passed over."""
POLL_S = 0.005
POLL_MAX_S = 0.1
"""A follower looks this often while there is output, and ever more rarely up to the second while there is none."""


@dataclass(frozen=True, slots=True)
class Format:
    """How a driver's files are read."""

    split: Callable[[bytes], tuple[list[bytes], bytes]]
    """Whole records, and the beginning of the next."""
    render: Callable[[bytes, Query, int], bytes]
    """What a client gets for a record without its first so many lines; may be empty. Raises Past."""
    tail: Callable[[BinaryIO, int], Tail]


FORMATS = {
    "json-file": Format(jsonfile.split, jsonfile.render, jsonfile.tail),
    "local": Format(local.split, local.render, local.tail),
}


def files_of(path: str) -> list[str]:
    """The log's files that are there, oldest first."""
    older = []
    number = 1
    while os.path.exists(f"{path}.{number}"):
        older.append(f"{path}.{number}")
        number += 1
    return [*reversed(older), *([path] if os.path.exists(path) else [])]


class Reader:
    """Reads the files of one log from a starting point to the present end, and on from there. Blocking."""

    def __init__(self, path: str, query: Query, driver: str) -> None:
        self._path = path
        self._query = query
        self._format = FORMATS[driver]
        self._skip = 0
        """How many lines of the first record read come before the tail."""
        self._files: list[BinaryIO] = []
        """Still to be read, oldest first; the last is the one that grows."""
        self._rest = b""
        self._past = False
        self._open()

    def _open(self) -> None:
        missing = self._query.tail
        names = files_of(self._path)
        if missing is None:
            self._files = [file for name in names if (file := _open(name)) is not None]
            return
        for name in reversed(names):
            file = _open(name)
            if file is None:
                continue
            tail = self._format.tail(file, missing)
            file.seek(tail.offset)
            self._skip = tail.skip
            self._files.insert(0, file)
            missing -= tail.found
            if missing <= 0:
                break

    def read(self) -> bytes:
        """The next batch, rendered; empty at the present end."""
        batch: list[bytes] = []
        size = 0
        while size < BATCH_BYTES and not self._past:
            records = self._records()
            if records is None:
                break
            try:
                for record in records:
                    piece = self._format.render(record, self._query, self._skip)
                    self._skip = 0
                    batch.append(piece)
                    size += len(piece)
            except Past:
                self._past = True
        return b"".join(batch)

    @property
    def past(self) -> bool:
        """Everything up to `until` has been read."""
        return self._past

    def _records(self) -> list[bytes] | None:
        """The whole records of the next piece; None at the present end."""
        while self._files:
            data = self._files[0].read(CHUNK)
            if data:
                records, self._rest = self._format.split(self._rest + data)
                if len(self._rest) > RECORD_MAX:
                    self._rest = b""
                return records
            if not self._next_file():
                return None
        return [] if self._next_file() else None

    def _next_file(self) -> bool:
        """Go on to the file after the present one; False: there is none yet."""
        if len(self._files) > 1:
            self._files.pop(0).close()
            self._rest = b""
            return True
        if not self._files:
            file = _open(self._path)
            if file is not None:
                self._files.append(file)
            return file is not None
        newer = self._rotated_since(self._files[0])
        if not newer:
            return False
        # What was written between the last read and the rotation is still to be read here.
        if self._files[0].read(1):
            self._files[0].seek(-1, os.SEEK_CUR)
            self._files.extend(newer)
            return True
        self._files.pop(0).close()
        self._rest = b""
        self._files = newer
        return True

    def _rotated_since(self, present: BinaryIO) -> list[BinaryIO]:
        """The files that came after the present one, opened, oldest first; none while it is still the newest."""
        number = os.fstat(present.fileno()).st_ino
        newer: list[BinaryIO] = []
        for name in reversed(files_of(self._path)):
            file = _open(name)
            if file is None:
                continue
            if os.fstat(file.fileno()).st_ino == number:
                file.close()
                return newer
            newer.insert(0, file)
        return newer

    def close(self) -> None:
        for file in self._files:
            file.close()
        self._files = []


def _open(name: str) -> BinaryIO | None:
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    return os.fdopen(fd, "rb", buffering=0)


def read_all(path: str, query: Query, driver: str = "json-file") -> Iterator[bytes]:
    """The log up to its present end, in batches. Blocking."""
    reader = Reader(path, query, driver)
    try:
        while data := reader.read():
            yield data
    finally:
        reader.close()


async def read(
    path: str, query: Query, *, driver: str = "json-file", follow: bool, running: Callable[[], bool]
) -> AsyncIterator[bytes]:
    """The log in batches; with `follow` until `running()` says that nobody writes any more and all has been read.

    Also ends at `until`. Files are read in threads; a caller that stops iterating closes them by `aclose()`.
    """
    reader = await asyncio.to_thread(Reader, path, query, driver)
    delay_s = POLL_S
    try:
        while not reader.past:
            # Asked before reading: what was written before the end is then read after it.
            alive = follow and running()
            data = await asyncio.to_thread(reader.read)
            if data:
                delay_s = POLL_S
                yield data
            elif not alive or _is_over(query):
                return
            else:
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 1.5, POLL_MAX_S)
    finally:
        reader.close()


def _is_over(query: Query) -> bool:
    """Has `until` passed by the clock?"""
    return bool(query.until_ns) and time.time_ns() > query.until_ns
