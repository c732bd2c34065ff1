"""The json-file format: Docker's, a JSON object a line, made of a whole run of lines at once.

`{"log":"text\\n","stream":"stdout","time":"2026-01-02T03:04:05.000000006Z"}`

What JSON wants escaped is looked for byte by byte in the UTF-8 text: no byte of a longer character looks like ASCII.
The backslash comes first, since every other escape brings new ones; the newline last, since it ends the object too.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

RUN_MAX = 16 * 1024
"""A run of empty lines becomes 78 times as long: 1.3 MB."""
HEAD = b'{"log":"'
NEWLINE = 0x0A
SHORT_ESCAPES = {0x08: b"\\b", 0x09: b"\\t", 0x0C: b"\\f", 0x0D: b"\\r"}
ESCAPES = [(bytes((n,)), SHORT_ESCAPES.get(n, b"\\u%04x" % n)) for n in range(0x20) if n != NEWLINE]
CONTROL = 0
FLAG_CONTROLS = bytes(CONTROL if n < 0x20 and n != NEWLINE else n for n in range(256))
"""For `bytes.translate`: one pass tells whether there is any control character, most output having none but tabs."""


def rfc3339(time_ns: int) -> str:
    """UTC with all nine digits, as Docker's log reader accepts it."""
    seconds, nanoseconds = divmod(time_ns, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{nanoseconds:09d}Z"


def escape(text: bytes) -> bytes:
    """UTF-8 text as the inside of a JSON string, newlines left as they are; what is no UTF-8 becomes U+FFFD."""
    if not text.isascii():
        text = text.decode("utf-8", "replace").encode()
    text = text.replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\t", b"\\t").replace(b"\r", b"\\r")
    if CONTROL in text.translate(FLAG_CONTROLS):
        for control, escaped in ESCAPES:
            text = text.replace(control, escaped)
    return text


def encode(stream: str, piece: bytes, time_ns: int) -> bytes:
    """A piece (`lines.cut`) as objects, one a line."""
    tail = b'","stream":"%s","time":"%s"}\n' % (stream.encode(), rfc3339(time_ns).encode())
    if not piece.endswith(b"\n"):
        return HEAD + escape(piece) + tail
    tail = b"\\n" + tail
    return HEAD + escape(piece[:-1]).replace(b"\n", tail + HEAD) + tail


def with_attributes(attrs: str) -> Callable[[str, bytes, int], bytes]:
    """An `encode` whose objects have these attributes (JSON), where Docker writes them: before the time."""

    def encode_with(stream: str, piece: bytes, time_ns: int) -> bytes:
        mark = b'","stream":"%s",' % stream.encode()
        return encode(stream, piece, time_ns).replace(mark, mark + b'"attrs":' + attrs.encode() + b",")

    return encode_with


def mend(fd: int, size: int) -> int:
    """Where the file's last whole line ends (`rotation.Mend`)."""
    end = size
    while end:
        start = max(0, end - RUN_MAX)
        found = os.pread(fd, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
