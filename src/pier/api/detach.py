"""Detach keys: the sequence that takes a client off a terminal and leaves the program running (`ctrl-p,ctrl-q`)."""

from __future__ import annotations

import json

from pier.errors import InvalidParameter

DEFAULT = b"\x10\x11"
MAX_KEYS = 32

_CONTROL = {f"ctrl-{key}": code for code, key in enumerate("@abcdefghijklmnopqrstuvwxyz[\\]^_")}


class InvalidDetachKeys(InvalidParameter):
    """Invalid detach keys ({keys}) provided"""

    remedy = "a comma-separated list of characters and ctrl-X, with X one of a-z, @, [, \\, ], ^ or _"


def parse_keys(text: str) -> bytes:
    """`ctrl-p,ctrl-q` -> b"\\x10\\x11"; empty text is that default. Raises InvalidDetachKeys."""
    if not text:
        return DEFAULT
    codes = bytearray()
    for key in text.split(","):
        if key in _CONTROL:
            codes.append(_CONTROL[key])
        elif key == "DEL":
            codes.append(127)
        elif len(key) == 1 and key.isascii():
            codes += key.encode()
        else:
            raise InvalidDetachKeys(keys=json.dumps(text[:64])[1:-1])
    if len(codes) > MAX_KEYS:
        raise InvalidDetachKeys(keys=json.dumps(text[:64])[1:-1])
    return bytes(codes)


class DetachFilter:
    """Finds the sequence in a stream of keystrokes that comes in pieces of any size.

    What may be the sequence's beginning is held back until the next byte decides.
    """

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = 0
        self.detached = False

    def feed(self, data: bytes) -> bytes:
        """The bytes to pass on; once `detached` is set, those before the sequence and none after."""
        passed = bytearray()
        for byte in data:
            self._step(byte, passed)
            if self._held == len(self._keys):
                self.detached = True
                self._held = 0
                break
        return bytes(passed)

    def finish(self) -> bytes:
        """What is still held back when the stream ends."""
        held, self._held = self._keys[: self._held], 0
        return held

    def _step(self, byte: int, passed: bytearray) -> None:
        """Take one byte; on a mismatch pass on the shortest beginning after which the rest may still match."""
        seen = self._keys[: self._held] + bytes([byte])
        for start in range(len(seen) + 1):
            if self._keys.startswith(seen[start:]):
                passed += seen[:start]
                self._held = len(seen) - start
                return
