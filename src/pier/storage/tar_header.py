"""One tar header block and its extension records as data: pure parsing, no stream.

Formats: POSIX.1-2017 (pax, "ustar Interchange Format" and "pax Header Block"), GNU tar's `tar.h` (base-256 numbers,
`L`/`K` long names, old sparse files), GNU tar's PAX sparse formats 0.0, 0.1 and 1.0 (its manual, "Storing Sparse
Files"), the `SCHILY.xattr.` records that star, GNU tar and all container tools write, and bsdtar's `LIBARCHIVE.xattr.`.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import unquote_to_bytes

from pier.storage import acl
from pier.storage.errors import BadArchive

BLOCK: Final = 512
NUL_BLOCK: Final = bytes(BLOCK)

REGULAR: Final = b"0"
HARD_LINK: Final = b"1"
SYMLINK: Final = b"2"
CHAR_DEVICE: Final = b"3"
BLOCK_DEVICE: Final = b"4"
DIRECTORY: Final = b"5"
FIFO: Final = b"6"
PAX_GLOBAL: Final = b"g"
PAX_LOCAL: Final = b"x"
GNU_LONG_NAME: Final = b"L"
GNU_LONG_LINK: Final = b"K"
VOLUME_HEADER: Final = b"V"
GNU_SPARSE: Final = b"S"

HEADER_ONLY: Final = frozenset({HARD_LINK, SYMLINK, CHAR_DEVICE, BLOCK_DEVICE, DIRECTORY, FIFO})
"""Whatever size these state, no content follows."""
KNOWN: Final = HEADER_ONLY | {REGULAR}
_ALIASES: Final = {b"\0": REGULAR, b"7": REGULAR, b"X": PAX_LOCAL}
"""Old regular files, contiguous files, and Solaris' early name for PAX headers."""

XATTR_PREFIX: Final = b"SCHILY.xattr."
LIBARCHIVE_PREFIX: Final = b"LIBARCHIVE.xattr."
ACLS: Final = {b"SCHILY.acl.access": acl.ACCESS, b"SCHILY.acl.default": acl.DEFAULT}
SPARSE_PREFIX: Final = b"GNU.sparse."
SPARSE_MAP: Final = SPARSE_PREFIX + b"map"
FRAGMENTS_MAX: Final = 100_000
"""Pieces of one sparse file."""

MAX_SIZE: Final = 2**63 - 1
MAX_ID: Final = 2**32 - 2
"""(uid_t)-1 means "leave as it is" to chown(2)."""
MAX_TIME_S: Final = 2**62
NS: Final = 1_000_000_000

_OCTAL: Final = re.compile(rb"[0-7]*")
_DECIMAL: Final = re.compile(rb"[0-9]{1,20}")
_TIME: Final = re.compile(rb"(-?)([0-9]{1,20})(?:\.([0-9]*))?")


@dataclass(frozen=True, slots=True)
class Sparse:
    """A file with holes: its size, and where the pieces that the archive holds belong, in order, not overlapping."""

    size: int
    fragments: tuple[tuple[int, int], ...] = ()
    """(offset, length) each; together as long as the entry's content."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One member of an archive."""

    name: bytes
    type: bytes
    """One of KNOWN, or an extension header's."""
    mode: int
    """Permission bits with set-id and sticky, at most 0o7777."""
    uid: int
    gid: int
    size: int
    """Bytes of content."""
    mtime_ns: int
    linkname: bytes = b""
    devmajor: int = 0
    devminor: int = 0
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    sparse: Sparse | None = None

    @property
    def shown(self) -> str:
        """The name for messages: quoted, control characters escaped, cut."""
        return repr(self.name[:200].decode("utf-8", "backslashreplace"))


def parse_header(block: bytes) -> Entry:
    """The fields of a header block of BLOCK bytes. Raises BadArchive: check sum, numbers."""
    if not _sums_up(block):
        raise BadArchive(reason="a header's check sum is wrong: this is not a tar archive, or it is damaged")
    kind = block[156:157]
    name = _text(block[0:100])
    if block[257:263] == b"ustar\0" and (prefix := _text(block[345:500])):
        name = prefix + b"/" + name
    kind = _ALIASES.get(kind, kind)
    is_device = kind in (CHAR_DEVICE, BLOCK_DEVICE)
    return Entry(
        name=name,
        type=kind,
        mode=_number(block[100:108], "mode") & 0o7777,
        uid=_bounded(_number(block[108:116], "uid"), MAX_ID, "uid"),
        gid=_bounded(_number(block[116:124], "gid"), MAX_ID, "gid"),
        size=_bounded(_number(block[124:136], "size"), MAX_SIZE, "size"),
        mtime_ns=_within(_number(block[136:148], "mtime")) * NS,
        linkname=_text(block[157:257]),
        devmajor=_bounded(_number(block[329:337], "devmajor"), 2**32 - 1, "devmajor") if is_device else 0,
        devminor=_bounded(_number(block[337:345], "devminor"), 2**32 - 1, "devminor") if is_device else 0,
    )


def parse_pax(data: bytes) -> dict[bytes, bytes]:
    """The records `LENGTH KEY=VALUE\\n` of a PAX header, the last of equal keys winning. Raises BadArchive."""
    records: dict[bytes, bytes] = {}
    at = 0
    pieces: list[bytes] = []
    while at < len(data):
        space = data.find(b" ", at, at + 20)
        digits = data[at:space]
        if space < 0 or not _DECIMAL.fullmatch(digits):
            if not data[at:].strip(b"\0"):  # padding that some writers count in
                break
            raise BadArchive(reason="a PAX record without a length")
        end = at + int(digits)
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if end > len(data) or end <= space + 1 or data[end - 1 : end] != b"\n" or not equals or not key:
            raise BadArchive(reason="a malformed PAX record")
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):  # format 0.0: the same keys again and again
            pieces.append(value)
        else:
            records[key] = value
        at = end
    if pieces:
        records[SPARSE_MAP] = b",".join(pieces)
    return records


def with_pax(entry: Entry, pax: dict[bytes, bytes]) -> Entry:
    """The entry with PAX records applied; an empty value stands for "as in the header". Raises BadArchive."""

    def decimal(key: bytes, most: int, otherwise: int) -> int:
        value = pax.get(key, b"")
        if not value:
            return otherwise
        if not _DECIMAL.fullmatch(value):
            raise BadArchive(reason=f"PAX record {key.decode()} is not a number")
        return _bounded(int(value), most, key.decode())

    return replace(
        entry,
        name=pax.get(b"path") or entry.name,
        linkname=pax.get(b"linkpath") or entry.linkname,
        uid=decimal(b"uid", MAX_ID, entry.uid),
        gid=decimal(b"gid", MAX_ID, entry.gid),
        size=decimal(b"size", MAX_SIZE, entry.size),
        mtime_ns=_pax_time(pax[b"mtime"]) if pax.get(b"mtime") else entry.mtime_ns,
        devmajor=decimal(b"SCHILY.devmajor", 2**32 - 1, entry.devmajor),
        devminor=decimal(b"SCHILY.devminor", 2**32 - 1, entry.devminor),
        xattrs=_xattrs(pax),
    )


def _xattrs(pax: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """The extended attributes in PAX records, whoever wrote them; star's form wins."""
    found: dict[bytes, bytes] = {}
    for key, value in pax.items():
        if key.startswith(LIBARCHIVE_PREFIX):
            try:
                decoded = base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)
            except binascii.Error:
                raise BadArchive(reason="a PAX record with a damaged xattr") from None
            found[unquote_to_bytes(key[len(LIBARCHIVE_PREFIX) :])] = decoded
        elif key in ACLS and (encoded := acl.encode(value)):
            found[ACLS[key]] = encoded
    return found | {key[len(XATTR_PREFIX) :]: value for key, value in pax.items() if key.startswith(XATTR_PREFIX)}


def sparse_version(pax: dict[bytes, bytes]) -> tuple[bytes, bytes]:
    """(major, minor) of the PAX sparse format that the records speak of; (b"", b"") for none."""
    major, minor = pax.get(b"GNU.sparse.major", b""), pax.get(b"GNU.sparse.minor", b"")
    if not major and SPARSE_MAP in pax:
        return b"0", b"1"
    return (major, minor) if major else (b"", b"")


def with_pax_sparse(entry: Entry, pax: dict[bytes, bytes]) -> Entry:
    """The entry as the PAX sparse records make it, for 1.0 without the fragments, which precede the content.

    Raises BadArchive.
    """
    version = sparse_version(pax)
    if version == (b"", b""):
        return entry
    size = pax.get(b"GNU.sparse.realsize") or pax.get(b"GNU.sparse.size") or b""
    if version not in ((b"0", b"0"), (b"0", b"1"), (b"1", b"0")) or not _DECIMAL.fullmatch(size):
        raise BadArchive(reason=f"{entry.shown} is a sparse file of an unknown form")
    entry = replace(entry, name=pax.get(b"GNU.sparse.name") or entry.name)
    real_size = _bounded(int(size), MAX_SIZE, "GNU.sparse.size")
    if version == (b"1", b"0"):
        return replace(entry, sparse=Sparse(real_size))
    return with_fragments(entry, real_size, pax.get(SPARSE_MAP, b"").split(b","))


def with_fragments(entry: Entry, size: int, numbers: list[bytes]) -> Entry:
    """The entry with its map: offsets and lengths by turns, decimal. Raises BadArchive: overlaps, sums, too many."""
    if numbers == [b""]:
        numbers = []
    if len(numbers) % 2 or len(numbers) > 2 * FRAGMENTS_MAX or not all(map(_DECIMAL.fullmatch, numbers)):
        raise BadArchive(reason=f"{entry.shown} has a malformed sparse map")
    values = list(map(int, numbers))
    fragments = tuple(zip(values[::2], values[1::2], strict=True))
    end = 0
    for offset, length in fragments:
        if offset < end or offset + length > size:
            raise BadArchive(reason=f"{entry.shown} has a sparse map with pieces that overlap or reach beyond its end")
        end = offset + length
    if sum(values[1::2]) != entry.size:
        raise BadArchive(reason=f"{entry.shown} has a sparse map that does not fit its content")
    return replace(entry, sparse=Sparse(size, fragments))


def parse_old_sparse(block: bytes, *, extension: bool) -> tuple[list[bytes], bool]:
    """The map in an old GNU header block or an extension of it, as decimal texts; and whether an extension follows."""
    start, count, flag = (0, 21, 504) if extension else (386, 4, 482)
    numbers: list[bytes] = []
    for at in range(start, start + count * 24, 24):
        if not block[at + 12] and not block[at]:
            break
        numbers += [b"%d" % _number(block[at : at + 12], "map"), b"%d" % _number(block[at + 12 : at + 24], "map")]
    return numbers, bool(block[flag])


def old_sparse_size(block: bytes) -> int:
    """The size of an old GNU sparse file with its holes."""
    return _bounded(_number(block[483:495], "size"), MAX_SIZE, "size")


def refuse_unsupported(entry: Entry) -> None:
    """Raise BadArchive for what this reader would get wrong: volumes, kinds nobody knows."""
    if entry.type not in KNOWN:
        raise BadArchive(reason=f"{entry.shown} is of the unknown type {entry.type!r}")
    if b"\0" in entry.name or b"\0" in entry.linkname:
        raise BadArchive(reason=f"{entry.shown} has a NUL byte in its name")


def _text(raw: bytes) -> bytes:
    return raw.split(b"\0", 1)[0]


def _sums_up(block: bytes) -> bool:
    """Whether the check sum holds: the sum of all bytes with its own field as spaces, unsigned or, by mistake of some
    old writers, signed."""
    raw = block[148:156].strip(b"\0 ")
    if not raw or not _OCTAL.fullmatch(raw):
        return False
    stated = int(raw, 8)
    rest = block[:148] + block[156:]
    unsigned = sum(rest) + 8 * 0x20
    return stated == unsigned or stated == unsigned - 256 * sum(byte >= 0x80 for byte in rest)


def _number(raw: bytes, what: str) -> int:
    """A numeric field: octal digits, or with the top bit of the first byte set, a two's complement base-256 number."""
    if raw[0] & 0x80:
        value = int.from_bytes(bytes([raw[0] & 0x7F]) + raw[1:], "big")
        return value - (1 << (8 * len(raw) - 1)) if raw[0] & 0x40 else value
    digits = raw.split(b"\0", 1)[0].strip(b" ")
    if not _OCTAL.fullmatch(digits):
        raise BadArchive(reason=f"a header's {what} is not a number")
    return int(digits or b"0", 8)


def _bounded(value: int, most: int, what: str) -> int:
    if not 0 <= value <= most:
        raise BadArchive(reason=f"a header's {what} is {value}, not 0 to {most}")
    return value


def _within(seconds: int) -> int:
    if abs(seconds) > MAX_TIME_S:
        raise BadArchive(reason="a header's mtime is out of range")
    return seconds


def _pax_time(text: bytes) -> int:
    """`-12.5` and the like, in nanoseconds; more digits than nine are dropped."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise BadArchive(reason="PAX record mtime is not a time")
    sign, seconds, fraction = match.groups()
    ns = _within(int(seconds)) * NS + int((fraction or b"0")[:9].ljust(9, b"0"))
    return -ns if sign else ns
