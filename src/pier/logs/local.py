"""The `local` format, read: records of whole lines between a header and a trailer (`runtime/log/local.py`)."""

from __future__ import annotations

import os
from typing import BinaryIO

from pier.logs.query import Query, frame, wanted
from pier.logs.tail import Tail
from pier.model.time import rfc3339_nano_fixed
from pier.runtime.log.local import HEADER, OVERHEAD, TRAILER, mend


def split(data: bytes) -> tuple[list[bytes], bytes]:
    """Records with their headers, without their trailers; and the beginning of the next."""
    records: list[bytes] = []
    at = 0
    while at + OVERHEAD <= len(data):
        (length,) = TRAILER.unpack_from(data, at)
        end = at + OVERHEAD + length
        if end > len(data):
            break
        records.append(data[at : end - TRAILER.size])
        at = end
    return records, data[at:]


def render(record: bytes, query: Query, skip: int = 0) -> bytes:
    """What a client gets for one record without its first `skip` lines; may be empty. Raises Past."""
    _, stream, time_ns = HEADER.unpack_from(record)
    if not wanted(query, stream, time_ns):
        return b""
    start = HEADER.size
    for _ in range(skip):
        start = record.index(b"\n", start) + 1
    text = record[start:]
    prefix = (rfc3339_nano_fixed(time_ns).encode() + b" " if query.timestamps else b"") + (b" " * query.details)
    if prefix:
        text = prefix + text[:-1].replace(b"\n", b"\n" + prefix) + text[-1:]
    return text if query.raw else frame(stream, text)


def tail(file: BinaryIO, count: int) -> Tail:
    """The last `count` lines, a part of a long line being one. Reads backwards from the last whole record's end."""
    at = mend(file.fileno(), file.seek(0, os.SEEK_END))
    found = 0
    while at and found < count:
        file.seek(at - TRAILER.size)
        (length,) = TRAILER.unpack(file.read(TRAILER.size))
        at -= OVERHEAD + length
        file.seek(at + HEADER.size)
        found += file.read(length).count(b"\n") or 1
    return Tail(at, min(found, count), max(0, found - count))
