"""Whose certificate is it? Subject and issuer from DER (RFC 5280, section 4.1), for messages only.

Nothing is trusted by what is read here; the standard library verifies certificates but does not show a refused one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pier.distribution.errors import tame

SEQUENCE: Final = 0x30
SET: Final = 0x31
VERSION: Final = 0xA0
ATTRIBUTES: Final = {
    b"\x55\x04\x03": "CN",
    b"\x55\x04\x06": "C",
    b"\x55\x04\x07": "L",
    b"\x55\x04\x08": "ST",
    b"\x55\x04\x0a": "O",
    b"\x55\x04\x0b": "OU",
}
BMP_STRING: Final = 0x1E


def subject_and_issuer(certificate: bytes) -> tuple[str, str]:
    """`("CN=registry.example,O=Example", "CN=Example CA")`. Raises ValueError for what is no certificate."""
    [(_, outer)] = list(elements(certificate))[:1]
    [(_, body)] = list(elements(outer))[:1]
    fields = [value for tag, value in elements(body) if tag != VERSION]
    # serialNumber, signature, issuer, validity, subject, …
    if len(fields) < 5:
        raise ValueError("too few fields")
    return name(fields[4]), name(fields[2])


def name(relative_names: bytes) -> str:
    """A distinguished name in one line, known attributes only."""
    parts = []
    for _, relative_name in elements(relative_names):
        for _, attribute in elements(relative_name):
            [(_, kind), (encoding, value)] = list(elements(attribute))[:2]
            if kind in ATTRIBUTES:
                text = value.decode("utf-16-be" if encoding == BMP_STRING else "utf-8", "replace")
                parts.append(f"{ATTRIBUTES[kind]}={text}")
    return tame(",".join(parts)) or "(no name)"


def elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The elements of a constructed value as (tag, content). Raises ValueError where lengths do not fit."""
    at = 0
    while at < len(data):
        if at + 2 > len(data):
            raise ValueError("truncated")
        tag, length = data[at], data[at + 1]
        at += 2
        if length & 0x80:
            count = length & 0x7F
            if not 1 <= count <= 4 or at + count > len(data):
                raise ValueError("bad length")
            length = int.from_bytes(data[at : at + count], "big")
            at += count
        if at + length > len(data):
            raise ValueError("truncated")
        yield tag, data[at : at + length]
        at += length
