"""The json-file format, read: Docker's, an object a line, `{"log":"text\\n","stream":"stdout","time":"…"}`.

Lines end at `\\n` and nowhere else.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import BinaryIO

import msgspec

from pier.logs.query import STREAMS, Query, frame, wanted
from pier.logs.tail import Tail
from pier.model.time import BadTime, parse_rfc3339, rfc3339_nano_fixed

BACKWARDS_CHUNK = 64 * 1024


class Entry(msgspec.Struct):
    """One line of the file."""

    log: str = ""
    stream: str = "stdout"
    time: str = ""
    attrs: dict[str, str] | None = None


_decode = msgspec.json.Decoder(Entry).decode


@lru_cache(maxsize=16)
def _moment(text: str) -> tuple[int, bytes]:
    """A time in nanoseconds, and as it stands before a line; many lines in a row have the same. Raises BadTime."""
    time_ns = parse_rfc3339(text)
    return time_ns, rfc3339_nano_fixed(time_ns).encode() + b" "


def split(data: bytes) -> tuple[list[bytes], bytes]:
    *whole, rest = data.split(b"\n")
    return whole, rest


def render(line: bytes, query: Query, skip: int = 0) -> bytes:
    """What a client gets for one line of the file; empty where it gets nothing. Raises Past."""
    try:
        entry = _decode(line)
        bounded = query.since_ns or query.until_ns or query.timestamps
        time_ns, stamp = _moment(entry.time) if bounded else (0, b"")
    except (msgspec.MsgspecError, BadTime):  # torn by a crash: the lines around it are still good
        return b""
    stream = STREAMS.get(entry.stream, 1)
    if skip or not wanted(query, stream, time_ns):
        return b""
    text = entry.log.encode("utf-8", "surrogatepass")
    if query.details:
        text = ",".join(f"{key}={value}" for key, value in sorted((entry.attrs or {}).items())).encode() + b" " + text
    if query.timestamps:
        text = stamp + text
    return text if query.raw else frame(stream, text)


def tail(file: BinaryIO, count: int) -> Tail:
    """The last `count` objects. Reads backwards from the end."""
    end = file.seek(0, os.SEEK_END)
    if count <= 0:
        return Tail(end, 0)
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
                return Tail(position + at + 1, count)
    return Tail(0, found + 1 if end else 0)
