"""POSIX access control lists: the text that star, GNU tar and bsdtar put into archives, as the xattr that Linux takes.

Text: acl(5), "LONG TEXT FORM" and "SHORT TEXT FORM", with star's fourth field, the number behind a name. The xattr's
form is linux/posix_acl_xattr.h. Names without a number mean nothing on another machine: those entries are left out.
"""

from __future__ import annotations

import re
import struct
from typing import Final

from pier.storage.errors import BadArchive

ACCESS: Final = b"system.posix_acl_access"
DEFAULT: Final = b"system.posix_acl_default"
_VERSION: Final = struct.pack("<I", 2)
_ENTRY: Final = struct.Struct("<HHI")
_NO_ID: Final = 0xFFFFFFFF
_TAGS: Final = {
    (b"user", False): 0x01,
    (b"user", True): 0x02,
    (b"group", False): 0x04,
    (b"group", True): 0x08,
    (b"mask", False): 0x10,
    (b"other", False): 0x20,
}
_SHORT: Final = {b"u": b"user", b"g": b"group", b"m": b"mask", b"o": b"other"}
_PERMISSIONS: Final = re.compile(rb"[r-][w-][x-]")


def encode(text: bytes) -> bytes:
    """The xattr's value; empty for an empty list. Raises BadArchive."""
    entries = []
    for line in re.split(rb"[,\n]", text):
        stripped = line.partition(b"#")[0].strip()
        if stripped and (entry := _entry(stripped)) is not None:
            entries.append(entry)
    return (
        _VERSION + b"".join(_ENTRY.pack(*entry) for entry in sorted(entries, key=lambda entry: (entry[0], entry[2])))
        if entries
        else b""
    )


def _entry(line: bytes) -> tuple[int, int, int] | None:
    """(tag, permissions, id) of one line; None where it names somebody without a number."""
    kind, *fields = (field.strip() for field in line.split(b":"))
    kind = _SHORT.get(kind, kind)
    if kind in (b"mask", b"other") and len(fields) == 1:
        fields = [b"", *fields]
    if len(fields) < 2 or not _PERMISSIONS.fullmatch(fields[1]):
        raise BadArchive(reason=f"an access control list with {line[:100]!r} in it")
    who = fields[2] if len(fields) > 2 and fields[2] else fields[0]
    tag = _TAGS.get((kind, bool(fields[0])))
    if tag is None:
        raise BadArchive(reason=f"an access control list with {line[:100]!r} in it")
    bits = sum(bit for bit, letter in zip((4, 2, 1), fields[1], strict=True) if letter != ord("-"))
    if not fields[0]:
        return tag, bits, _NO_ID
    if not who.isdigit() or int(who) >= _NO_ID:
        return None
    return tag, bits, int(who)
