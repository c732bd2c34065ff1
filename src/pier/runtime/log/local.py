"""The `local` format: what was printed as it is, in records that can be read from either end.

```
u32 length · u8 stream · u8[3] zero · i64 time_ns · length bytes · u32 length        big-endian
```

A record holds whole lines, or a part of a long one, that were read at one time from one stream (1 stdout, 2 stderr).
Nothing is escaped or decoded, so the bytes come back as they were written, whatever they are.
"""

from __future__ import annotations

import os
import struct

RUN_MAX = 64 * 1024
HEADER = struct.Struct(">IBxxxq")
TRAILER = struct.Struct(">I")
OVERHEAD = HEADER.size + TRAILER.size
STREAMS = {"stdout": 1, "stderr": 2}


def encode(stream: str, piece: bytes, time_ns: int) -> bytes:
    """A piece (`lines.cut`) as one record."""
    size = len(piece)
    return b"".join((HEADER.pack(size, STREAMS[stream], time_ns), piece, TRAILER.pack(size)))


def mend(fd: int, size: int) -> int:
    """Where the file's last whole record ends (`rotation.Mend`). Looks at the end alone where that is whole."""
    return size if _ends_whole(fd, size) else _whole_from_start(fd, size)


def _ends_whole(fd: int, size: int) -> bool:
    if size < OVERHEAD:
        return size == 0
    start = size - OVERHEAD - _length(fd, size - TRAILER.size)
    return start >= 0 and _length(fd, start) == size - OVERHEAD - start


def _whole_from_start(fd: int, size: int) -> int:
    at = 0
    while at + OVERHEAD <= size:
        length = _length(fd, at)
        end = at + OVERHEAD + length
        if end > size or _length(fd, end - TRAILER.size) != length:
            break
        at = end
    return at


def _length(fd: int, at: int) -> int:
    length: int = TRAILER.unpack(os.pread(fd, TRAILER.size, at))[0]
    return length
