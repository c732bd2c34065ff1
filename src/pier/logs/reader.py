"""Read a log from its files: all of it or its tail, and on while it grows.

The newest records are in `path`, older ones in `path.1`, `path.2.gz`, … (`files`). The tail is found by reading
backwards, so its cost is that of the lines asked for; a follower looks for more when the kernel says that something has
changed in the log's folder, and notices rotation by the file's number. Files are read in threads, in large pieces.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO

from pier.logs import jsonfile, local
from pier.logs.files import CHUNK, Inflating, inode_of, open_all, open_file, seekable
from pier.logs.query import Past, Query
from pier.logs.tail import Tail
from pier.logs.watch import Change, Watcher

AT_HAND = 64 * 1024
"""So much that has just been written is read on the event loop, if it is in memory."""
BATCH_BYTES = 256 * 1024
"""Records are handed on in batches of about this size."""
RECORD_MAX = 8 * 1024 * 1024
"""A longer one is not one of ours, and is passed over."""
LOOK_S = 0.2
"""A follower looks at least this often, whatever it is told."""


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


@dataclass(frozen=True, slots=True)
class Follower:
    """What someone who follows a log must know of its container."""

    watcher: Watcher
    running: Callable[[], bool]
    ended: Callable[[], asyncio.Future[Any] | None]
    """Done at the end of the present run; None: there is none to wait for."""


class Reader:
    """Reads the files of one log from a starting point to the present end, and on from there. Blocking."""

    def __init__(self, path: str, query: Query, driver: str, *, grows: bool = False) -> None:
        """Unless it `grows`, the present end is that of now: who writes faster than this reads cannot keep it busy."""
        self._end: int | None = None
        """Where the newest file ended when it was opened; None: it may grow."""
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
        if not grows:
            newest = self._files[-1] if self._files else None
            seen = newest is not None and not isinstance(newest, Inflating)
            self._end = os.fstat(newest.fileno()).st_size if newest is not None and seen else 0

    def _open(self) -> None:
        missing = self._query.tail
        files = open_all(self._path)
        if missing is None:
            self._files = files
            return
        while files:
            file = seekable(files.pop(), self._path)
            self._files.insert(0, file)
            tail = self._format.tail(file, missing)
            file.seek(tail.offset)
            self._skip = tail.skip
            missing -= tail.found
            if missing <= 0:
                break
        for file in files:
            file.close()

    def read(self) -> bytes:
        """The next batch, rendered; empty at the present end."""
        batch: list[bytes] = []
        size = 0
        while size < BATCH_BYTES and not self._past:
            records = self._records()
            if records is None:
                break
            batch.append(self._render(records))
            size += len(batch[-1])
        return b"".join(batch)

    def _render(self, records: list[bytes]) -> bytes:
        batch: list[bytes] = []
        with contextlib.suppress(Past):
            for record in records:
                batch.append(self._format.render(record, self._query, self._skip))
                self._skip = 0
            return b"".join(batch)
        self._past = True
        return b"".join(batch)

    def read_at_hand(self) -> bytes | None:
        """What has just been added to the newest file, rendered; it does not block. None where that is not all: it is
        not in memory, it is much, it is in another file."""
        if len(self._files) != 1 or isinstance(self._files[0], Inflating):
            return None
        file = self._files[0]
        buffer = bytearray(AT_HAND)
        try:
            size = os.preadv(file.fileno(), [buffer], file.tell(), os.RWF_NOWAIT)
        except OSError:
            return None
        if not 0 < size < AT_HAND:
            return None
        file.seek(size, os.SEEK_CUR)
        records, self._rest = self._format.split(self._rest + bytes(buffer[:size]))
        return self._render(records)

    @property
    def past(self) -> bool:
        """Everything up to `until` has been read."""
        return self._past

    def _records(self) -> list[bytes] | None:
        """The whole records of the next piece; None at the present end."""
        while self._files:
            data = self._files[0].read(self._left())
            if data:
                records, self._rest = self._format.split(self._rest + data)
                if len(self._rest) > RECORD_MAX:
                    self._rest = b""
                return records
            if not self._next_file():
                return None
        return [] if self._next_file() else None

    def _left(self) -> int:
        """How much to read of the present file."""
        if self._end is None or len(self._files) > 1 or isinstance(self._files[0], Inflating):
            return CHUNK
        return max(0, min(CHUNK, self._end - self._files[0].tell()))

    def _next_file(self) -> bool:
        """Go on to the file after the present one; False: there is none yet."""
        if self._end is not None and len(self._files) <= 1:
            return False
        if len(self._files) > 1:
            self._files.pop(0).close()
            self._rest = b""
            return True
        if not self._files:
            file = open_file(self._path)
            if file is not None:
                self._files.append(file)
            return file is not None
        newer = self._rotated_since(self._files[0])
        if not newer:
            return self._was_truncated(self._files[0])
        # What was written between the last read and the rotation is still to be read here.
        if self._files[0].read(1):
            self._files[0].seek(-1, os.SEEK_CUR)
            self._files.extend(newer)
            return True
        self._files.pop(0).close()
        self._rest = b""
        self._files = newer
        return True

    def _was_truncated(self, present: BinaryIO) -> bool:
        """Whether the present file was emptied (`pier logs --truncate`): then it is read from its beginning."""
        if isinstance(present, Inflating) or os.fstat(present.fileno()).st_size >= present.tell():
            return False
        present.seek(0)
        self._rest = b""
        return True

    def _rotated_since(self, present: BinaryIO) -> list[BinaryIO]:
        """The files that came after the present one, opened, oldest first; none while it is still the newest."""
        number = inode_of(present)
        newer: list[BinaryIO] = []
        for file in reversed(files := open_all(self._path)):
            if inode_of(file) == number:
                break
            newer.insert(0, file)
        for file in files[: len(files) - len(newer)]:
            file.close()
        return newer

    def close(self) -> None:
        for file in self._files:
            file.close()
        self._files = []


def read_all(path: str, query: Query, driver: str = "json-file") -> Iterator[bytes]:
    """The log up to its present end, in batches. Blocking."""
    reader = Reader(path, query, driver)
    try:
        while data := reader.read():
            yield data
    finally:
        reader.close()


async def read(
    path: str, query: Query, *, driver: str = "json-file", follower: Follower | None = None
) -> AsyncIterator[bytes]:
    """The log in batches; with a follower until that says that nobody writes any more and all has been read.

    Also ends at `until`. Files are read in threads; a caller that stops iterating closes them by `aclose()`.
    """
    with contextlib.ExitStack() as stack:
        changed = stack.enter_context(follower.watcher.watch(os.path.dirname(path))) if follower else Change()
        reader = await asyncio.to_thread(partial(Reader, path, query, driver, grows=follower is not None))
        stack.callback(reader.close)
        caught_up = False
        while not reader.past:
            # Asked before reading: what was written before the end is then read after it.
            alive = follower is not None and follower.running()
            changed.clear()
            data = reader.read_at_hand() if caught_up and alive else None
            caught_up = data is not None
            if data is None:
                data = await asyncio.to_thread(reader.read)
            if data:
                yield data
                if not caught_up:
                    continue
            left_s = _left_s(query)
            if follower is None or not alive or left_s <= 0:
                return
            caught_up = True
            await changed.wait(min(left_s, LOOK_S), follower.ended())


def _left_s(query: Query) -> float:
    """Seconds until `until` has passed by the clock."""
    return (query.until_ns - time.time_ns()) / 1e9 if query.until_ns else math.inf
