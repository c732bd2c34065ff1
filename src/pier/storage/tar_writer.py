"""Writing tar archives: POSIX.1-2017 pax, the same bytes for the same entries.

A field that the ustar header holds exactly is written there and nowhere else; what it cannot hold (long or non-ASCII
names, parts of a second, times before 1970, large ids and sizes, xattrs) goes into PAX records, sorted. User and group
names, access and change times are never written. `encode_header` is the pure half.
"""

from __future__ import annotations

import base64
import struct
from typing import Final, Protocol
from urllib.parse import quote_from_bytes

from pier.storage.tar_header import (
    BLOCK,
    BLOCK_DEVICE,
    CHAR_DEVICE,
    LIBARCHIVE_PREFIX,
    NS,
    PAX_LOCAL,
    XATTR_PREFIX,
    Entry,
)

RECORD: Final = 20 * BLOCK
"""An archive is a whole number of these, as tar(1) and Docker leave it."""
BUFFER: Final = 1 << 18
_NAME_MAX: Final = 100
_USTAR: Final = struct.Struct("100s48s8s1s100s72s16s167x")
"""Name, numbers, check sum, type, link name, magic and the empty owner names, device; NUL where a field is shorter."""
_MAGIC: Final = b"ustar\x0000"
_NO_DEVICE: Final = b"0000000\x000000000\0"
_CHECK_BASE: Final = sum(b" " * 8) + sum(_MAGIC)
"""What every block's check sum has: the field itself counts as spaces, and NULs count nothing."""
_OCTAL7_MAX: Final = 8**7 - 1
_OCTAL11_MAX: Final = 8**11 - 1


class Sink(Protocol):
    """Where bytes go."""

    def write(self, data: bytes | bytearray | memoryview, /) -> int: ...


def encode_header(entry: Entry) -> bytes:
    """The header block of an entry, with the PAX header in front of it where one is needed."""
    pax = pax_records(entry)
    head = b""
    if pax:
        body = b"".join([_record(key, pax[key]) for key in sorted(pax)])
        name = b"PaxHeaders.0/" + _plain(entry.name.strip(b"/").rpartition(b"/")[2])[: _NAME_MAX - 13]
        head = _block(name, PAX_LOCAL, size=len(body), mode=0o644) + _padded(body)
    is_device = entry.type in (CHAR_DEVICE, BLOCK_DEVICE)
    return head + _block(
        _plain(entry.name)[:_NAME_MAX],
        entry.type,
        size=_fits(entry.size, _OCTAL11_MAX),
        mode=entry.mode,
        uid=_fits(entry.uid, _OCTAL7_MAX),
        gid=_fits(entry.gid, _OCTAL7_MAX),
        mtime=_fits(entry.mtime_ns // NS, _OCTAL11_MAX),
        linkname=_plain(entry.linkname)[:_NAME_MAX],
        device=(entry.devmajor, entry.devminor) if is_device else (0, 0),
    )


def pax_records(entry: Entry) -> dict[bytes, bytes]:
    """What the ustar header cannot say of an entry."""
    seconds, fraction = divmod(entry.mtime_ns, NS)
    records = dict(_xattr(key, value) for key, value in entry.xattrs.items()) if entry.xattrs else {}
    if len(entry.name) > _NAME_MAX or not entry.name.isascii():
        records[b"path"] = entry.name
    if len(entry.linkname) > _NAME_MAX or not entry.linkname.isascii():
        records[b"linkpath"] = entry.linkname
    if fraction or not 0 <= seconds <= _OCTAL11_MAX:
        records[b"mtime"] = _time(entry.mtime_ns)
    if entry.uid > _OCTAL7_MAX:
        records[b"uid"] = b"%d" % entry.uid
    if entry.gid > _OCTAL7_MAX:
        records[b"gid"] = b"%d" % entry.gid
    if entry.size > _OCTAL11_MAX:
        records[b"size"] = b"%d" % entry.size
    return records


class TarWriter:
    """Entries and their contents in, an archive out; nothing is kept but a buffer."""

    def __init__(self, out: Sink) -> None:
        self._out = out
        self._pieces: list[bytes] = []
        self._waiting = 0
        self._padding = 0
        self.offset = 0
        """Bytes of the archive so far."""
        self.entries = 0

    def add(self, entry: Entry) -> None:
        """Begin an entry; `entry.size` bytes of `content` follow."""
        self.entries += 1
        self._padding = -entry.size % BLOCK
        self._put(encode_header(entry))
        if not entry.size:
            self._padding = 0

    def content(self, data: bytes) -> None:
        """The next bytes of the entry's content."""
        self._put(data)

    def end_content(self) -> None:
        """The content is whole."""
        if self._padding:
            self._put(bytes(self._padding))
            self._padding = 0

    def finish(self) -> None:
        """Write the end of the archive."""
        self._put(bytes(2 * BLOCK))
        self._put(bytes(-self.offset % RECORD))
        self._flush()

    def _put(self, data: bytes) -> None:
        size = len(data)
        self.offset += size
        self._pieces.append(data)
        self._waiting += size
        if self._waiting >= BUFFER:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._out.write(self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces))
            self._pieces.clear()
            self._waiting = 0


def _block(
    name: bytes,
    kind: bytes,
    *,
    size: int,
    mode: int,
    uid: int = 0,
    gid: int = 0,
    mtime: int = 0,
    linkname: bytes = b"",
    device: tuple[int, int] = (0, 0),
) -> bytes:
    """One ustar header block (POSIX.1-2017, pax, "ustar Interchange Format")."""
    numbers = b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (mode, uid, gid, size, mtime)
    devices = b"%07o\0%07o\0" % device if device != (0, 0) else _NO_DEVICE
    check = _CHECK_BASE + sum(name) + sum(numbers) + sum(kind) + sum(linkname) + sum(devices)
    return _USTAR.pack(name, numbers, b"%06o\0 " % check, kind, linkname, _MAGIC, devices)


def _record(key: bytes, value: bytes) -> bytes:
    """`LENGTH KEY=VALUE\\n`, where LENGTH counts its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(b"%d" % rest)
    length = rest + len(b"%d" % length)
    return b"%d %b=%b\n" % (length, key, value)


def _xattr(key: bytes, value: bytes) -> tuple[bytes, bytes]:
    """The record of an extended attribute: star's form, or bsdtar's for a name that star's cannot hold."""
    if b"=" not in key:
        return XATTR_PREFIX + key, value
    return LIBARCHIVE_PREFIX + quote_from_bytes(key).encode(), base64.b64encode(value).rstrip(b"=")


def _time(ns: int) -> bytes:
    """Nanoseconds as PAX writes them: decimal seconds, no more digits than needed."""
    sign, ns = (b"-", -ns) if ns < 0 else (b"", ns)
    seconds, fraction = divmod(ns, NS)
    digits = b".%09d" % fraction if fraction else b""
    return sign + b"%d" % seconds + digits.rstrip(b"0")


def _fits(value: int, most: int) -> int:
    """A number as the header's field shows it; what does not fit is in a PAX record."""
    return value if 0 <= value <= most else 0


def _plain(text: bytes) -> bytes:
    """The part of a name that an old reader can take; the whole is in a PAX record."""
    return text if text.isascii() else bytes(byte for byte in text if byte < 0x80)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)
