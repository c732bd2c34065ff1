"""Content digests: `algorithm:hex` (image-spec, descriptor.md, "Digests").

A `Digest` is a string that was checked when it was made, so a value of this type is safe as a file name below `blobs/`:
it holds a registered algorithm, one colon and lower-case hexadecimal digits of the right number, nothing else.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Final, Self

from pier.errors import InvalidParameter

if TYPE_CHECKING:
    from hashlib import _Hash

HEX_DIGITS: Final = {"sha256": 64, "sha384": 96, "sha512": 128}
"""The algorithms that are accepted, with the number of hexadecimal digits each gives."""

_SHAPE: Final = re.compile(r"([a-z0-9]+):([0-9a-f]+)")


class InvalidDigest(InvalidParameter):
    """invalid digest {text!r}: {reason}"""


class Digest(str):
    """`sha256:<64 hex>`, `sha384:…` or `sha512:…`; compares, hashes and prints as the string it is.

    Raises InvalidDigest for anything else, among them `sha256:../../x` and upper-case digits.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        if type(text) is cls:
            return text
        shape = _SHAPE.fullmatch(text) if len(text) <= 7 + 128 else None
        if shape is None:
            raise InvalidDigest(text=text[:160], reason="not of the form algorithm:hex")
        algorithm, digits = shape.groups()
        if algorithm not in HEX_DIGITS:
            raise InvalidDigest(text=text, reason=f"unsupported digest algorithm {algorithm}")
        if len(digits) != HEX_DIGITS[algorithm]:
            raise InvalidDigest(text=text, reason=f"{algorithm} has {HEX_DIGITS[algorithm]} digits, not {len(digits)}")
        return super().__new__(cls, text)

    @classmethod
    def parse(cls, text: str) -> Self:
        """The same check as the constructor, for readers who look for the word."""
        return cls(text)

    @classmethod
    def of(cls, data: bytes | bytearray | memoryview, algorithm: str = "sha256") -> Self:
        """The digest of bytes in memory."""
        return cls.finish(hasher(algorithm), data)

    @classmethod
    def finish(cls, state: _Hash, data: bytes | bytearray | memoryview = b"") -> Self:
        """The digest of everything `state` (from `hasher`) was fed, and of `data` after it."""
        state.update(data)
        return cls(f"{state.name}:{state.hexdigest()}")

    @property
    def algorithm(self) -> str:
        return self.partition(":")[0]

    @property
    def hex(self) -> str:
        return self.partition(":")[2]

    @property
    def short(self) -> str:
        """The first 12 digits, as Docker shows an id."""
        return self.hex[:12]

    def hasher(self) -> _Hash:
        """A fresh hash state of this digest's algorithm."""
        return hasher(self.algorithm)


def hasher(algorithm: str = "sha256") -> _Hash:
    """A fresh hash state; InvalidDigest for an algorithm that is not accepted."""
    if algorithm not in HEX_DIGITS:
        raise InvalidDigest(text=algorithm, reason="unsupported digest algorithm")
    return hashlib.new(algorithm, usedforsecurity=True)
