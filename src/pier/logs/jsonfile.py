"""Read a json-file log: Docker's format, an object a line, `{"log":"text\\n","stream":"stdout","time":"…"}`.

The newest lines are in `path`, older ones in `path.1`, `path.2`, … The tail is found by reading backwards, so its cost
is that of the lines asked for; a follower looks for more at short intervals and notices rotation by the file's number.
Files are read in threads, in large pieces; lines end at `\\n` and nowhere else.
"""

from __future__ import annotations

import asyncio
import os
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

import msgspec

from pier.model.time import BadTime, parse_rfc3339, rfc3339_nano_fixed

CHUNK = 256 * 1024
BACKWARDS_CHUNK = 64 * 1024
BATCH_BYTES = 256 * 1024
"""Lines are handed on in batches of about this size."""
LINE_MAX = 8 * 1024 * 1024
"""A longer line is not one of ours, and is passed over."""
POLL_S = 0.005
POLL_MAX_S = 0.1
"""A follower looks this often while there is output, ever more rarely (at least each 0.1 s) while there is none."""
STREAMS = {"stdout": 1, "stderr": 2}


class Entry(msgspec.Struct):
    """One line of the file."""

    log: str = ""
    stream: str = "stdout"
    time: str = ""
    attrs: dict[str, str] | None = None


_decode = msgspec.json.Decoder(Entry).decode


@dataclass(frozen=True, slots=True)
class Query:
    """What is wanted of a log. Times in nanoseconds since 1970, 0: no bound."""

    stdout: bool = True
    stderr: bool = True
    since_ns: int = 0
    until_ns: int = 0
    timestamps: bool = False
    tail: int | None = None
    """The last so many lines; None: all."""
    details: bool = False
    raw: bool = False
    """For a terminal: without frames."""


class Past(Exception):
    """The log has gone beyond `until`."""


def frame(stream: int, data: bytes) -> bytes:
    """Docker's multiplexing (Engine API, ContainerAttach, "Stream format")."""
    return struct.pack(">BxxxI", stream, len(data)) + data


def render(line: bytes, query: Query) -> bytes:
    """What a client gets for one line of the file; empty where it gets nothing. Raises Past."""
    try:
        entry = _decode(line)
        bounded = query.since_ns or query.until_ns or query.timestamps
        time_ns = parse_rfc3339(entry.time) if bounded else 0
    except (msgspec.MsgspecError, BadTime):  # torn by a crash: the lines around it are still good
        return b""
    if query.until_ns and time_ns > query.until_ns:
        raise Past
    if time_ns < query.since_ns:
        return b""
    stream = STREAMS.get(entry.stream, 1)
    if not (query.stdout if stream == 1 else query.stderr):
        return b""
    text = entry.log.encode("utf-8", "surrogatepass")
    if query.details:
        text = ",".join(f"{key}={value}" for key, value in sorted((entry.attrs or {}).items())).encode() + b" " + text
    if query.timestamps:
        text = rfc3339_nano_fixed(time_ns).encode() + b" " + text
    return text if query.raw else frame(stream, text)


def files_of(path: str) -> list[str]:
    """The log's files that are there, oldest first."""
    older = []
    number = 1
    while os.path.exists(f"{path}.{number}"):
        older.append(f"{path}.{number}")
        number += 1
    return [*reversed(older), *([path] if os.path.exists(path) else [])]


def tail_offset(file: BinaryIO, count: int) -> tuple[int, int]:
    """(where the last `count` whole lines begin, how many there are). Reads backwards from the end."""
    end = file.seek(0, os.SEEK_END)
    if count <= 0:
        return end, 0
    found, position = 0, end
    while position > 0:
        size = min(BACKWARDS_CHUNK, position)
        position -= size
        file.seek(position)
        data = file.read(size)
        # The newline at the very end closes the last line and begins none.
        at = len(data) - 1 if position + size == end and data.endswith(b"\n") else len(data)
        while (at := data.rfind(b"\n", 0, at)) >= 0:
            found += 1
            if found == count:
                return position + at + 1, count
    return 0, found + 1 if end else 0


class Reader:
    """Reads the files of one log from a starting point to the present end, and on from there. Blocking."""

    def __init__(self, path: str, query: Query) -> None:
        self._path = path
        self._query = query
        self._files: list[BinaryIO] = []
        """Still to be read, oldest first; the last is the one that grows."""
        self._rest = b""
        self._past = False
        self._open()

    def _open(self) -> None:
        tail = self._query.tail
        names = files_of(self._path)
        if tail is None:
            self._files = [file for name in names if (file := _open(name)) is not None]
            return
        missing = tail
        for name in reversed(names):
            file = _open(name)
            if file is None:
                continue
            offset, found = tail_offset(file, missing)
            file.seek(offset)
            self._files.insert(0, file)
            missing -= found
            if missing <= 0:
                break

    def read(self) -> bytes:
        """The next batch, rendered; empty at the present end."""
        batch: list[bytes] = []
        size = 0
        while size < BATCH_BYTES and not self._past:
            lines = self._lines()
            if lines is None:
                break
            try:
                for line in lines:
                    piece = render(line, self._query)
                    batch.append(piece)
                    size += len(piece)
            except Past:
                self._past = True
        return b"".join(batch)

    @property
    def past(self) -> bool:
        """Everything up to `until` has been read."""
        return self._past

    def _lines(self) -> list[bytes] | None:
        """The whole lines of the next piece; None at the present end."""
        while self._files:
            data = self._files[0].read(CHUNK)
            if data:
                lines = (self._rest + data).split(b"\n")
                self._rest = lines.pop()
                if len(self._rest) > LINE_MAX:
                    self._rest = b""
                return lines
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


def read_all(path: str, query: Query) -> Iterator[bytes]:
    """The log up to its present end, in batches. Blocking."""
    reader = Reader(path, query)
    try:
        while data := reader.read():
            yield data
    finally:
        reader.close()


async def read(path: str, query: Query, *, follow: bool, running: Callable[[], bool]) -> AsyncIterator[bytes]:
    """The log in batches; with `follow` until `running()` says that nobody writes any more and all has been read.

    Also ends at `until`. Files are read in threads; a caller that stops iterating closes them by `aclose()`.
    """
    reader = await asyncio.to_thread(Reader, path, query)
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
