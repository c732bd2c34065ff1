"""D-Bus messages as bytes (D-Bus Specification, "Type System" and "Message Protocol").

They are written little-endian and read as they were sent. Values are Python's: int, float, bool, str, bytes for `ay`,
list for other arrays and structs, dict for arrays of entries, `Variant` for `v`. Descriptors (`h`) are not passed.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

METHOD_CALL, METHOD_RETURN, ERROR, SIGNAL = 1, 2, 3, 4

MESSAGE_MAX = 128 << 20
ARRAY_MAX = 64 << 20
DEPTH_MAX = 64
"""32 arrays and 32 structs, and variants count too."""

_FIXED = {"y": "B", "b": "I", "n": "h", "q": "H", "i": "i", "u": "I", "x": "q", "t": "Q", "d": "d"}
_ALIGNMENT = {"g": 1, "v": 1, "s": 4, "o": 4, "a": 4, "(": 8, "{": 8} | {
    code: struct.calcsize(letter) for code, letter in _FIXED.items()
}
_ENDS = {"(": ")", "{": "}"}
_FIELDS = (("path", "o"), ("interface", "s"), ("member", "s"), ("error_name", "s"), ("reply_serial", "u"),
           ("destination", "s"), ("sender", "s"), ("signature", "g"))  # fmt: skip
"""Header fields by their number, from 1 on."""


class BadMessage(ValueError):
    """What was read, or is to be written, is no D-Bus message."""


class Variant(NamedTuple):
    """A value with its type: one complete type."""

    signature: str
    value: Any


class Message(NamedTuple):
    """A message; the texts of absent header fields are empty."""

    kind: int
    """METHOD_CALL, METHOD_RETURN, ERROR or SIGNAL."""
    serial: int
    path: str = ""
    interface: str = ""
    member: str = ""
    error_name: str = ""
    reply_serial: int = 0
    destination: str = ""
    sender: str = ""
    signature: str = ""
    """Of the body: any number of complete types."""
    body: Sequence[Any] = ()
    flags: int = 0


def complete_types(signature: str) -> list[str]:
    """`sa(sv)u` -> `s`, `a(sv)`, `u`. Raises BadMessage."""
    types = []
    at = 0
    while at < len(signature):
        end = _type_end(signature, at, 0)
        types.append(signature[at:end])
        at = end
    return types


def _type_end(signature: str, at: int, depth: int) -> int:
    """Where the complete type that begins at `at` ends."""
    code = signature[at : at + 1]
    if depth > DEPTH_MAX or code not in _ALIGNMENT or not code:
        raise BadMessage(f"bad D-Bus signature {signature!r}")
    if code == "a":
        return _type_end(signature, at + 1, depth + 1)
    if code not in _ENDS:
        return at + 1
    begin, members = at, 0
    at += 1
    while signature[at : at + 1] != _ENDS[code]:
        at = _type_end(signature, at, depth + 1)
        members += 1
    entry_in_array = signature[begin - 1 : begin] == "a" and members == 2
    if not members or (code == "{" and not entry_in_array):
        raise BadMessage(f"bad D-Bus signature {signature!r}")
    return at + 1


# --- writing ---------------------------------------------------------------------------------------------------------


def encode(message: Message) -> bytes:
    """One message. Raises BadMessage for a value that is not of its type, or too large."""
    body = _Writer()
    types = complete_types(message.signature)
    if len(types) != len(message.body):
        raise BadMessage(f"{len(message.body)} values for the signature {message.signature!r}")
    for kind, value in zip(types, message.body, strict=True):
        body.put(kind, value)
    fields = [
        [number, Variant(kind, getattr(message, name))]
        for number, (name, kind) in enumerate(_FIELDS, start=1)
        if getattr(message, name)
    ]
    head = _Writer()
    for kind, value in zip(
        ("y", "y", "y", "y", "u", "u", "a(yv)"),
        (ord("l"), message.kind, message.flags, 1, len(body.data), message.serial, fields),
        strict=True,
    ):
        head.put(kind, value)
    head.pad(8)
    if len(head.data) + len(body.data) > MESSAGE_MAX:
        raise BadMessage("a message of more than 128 MiB")
    return bytes(head.data + body.data)


class _Writer:
    def __init__(self) -> None:
        self.data = bytearray()

    def pad(self, alignment: int) -> None:
        self.data += bytes(-len(self.data) % alignment)

    def put(self, kind: str, value: Any) -> None:
        code = kind[0]
        if code in _FIXED:
            self._fixed(code, value)
        elif code in "so":
            self._text("u", value)
        elif code == "g":
            self._text("y", value)
        elif code == "v":
            (only,) = complete_types(value.signature)
            self._text("y", only)
            self.put(only, value.value)
        elif code == "a":
            self._array(kind[1:], value)
        else:
            self.pad(8)
            for inner, member in zip(complete_types(kind[1:-1]), value, strict=True):
                self.put(inner, member)

    def _fixed(self, code: str, value: Any) -> None:
        self.pad(_ALIGNMENT[code])
        try:
            self.data += struct.pack("<" + _FIXED[code], int(value) if code == "b" else value)
        except struct.error as error:
            raise BadMessage(f"{value!r} is no D-Bus {code!r}: {error}") from None

    def _text(self, length: str, text: str) -> None:
        data = text.encode()
        if b"\0" in data:
            raise BadMessage(f"{text!r} has a zero byte in it")
        self._fixed(length, len(data))
        self.data += data + b"\0"

    def _array(self, element: str, values: Any) -> None:
        self._fixed("u", 0)
        length_at = len(self.data) - 4
        self.pad(_ALIGNMENT[element[0]])
        begin = len(self.data)
        if element == "y":
            self.data += bytes(values)
        else:
            for value in values.items() if element[0] == "{" else values:
                self.put(element, value)
        length = len(self.data) - begin
        if length > ARRAY_MAX:
            raise BadMessage("an array of more than 64 MiB")
        struct.pack_into("<I", self.data, length_at, length)


# --- reading ---------------------------------------------------------------------------------------------------------

FIXED_HEADER = 16
"""Bytes that say how long a message is."""


def length(head: bytes) -> int:
    """How many bytes the message has whose first FIXED_HEADER bytes these are. Raises BadMessage."""
    order = _order(head)
    body, _, fields = struct.unpack_from(order + "III", head, 4)
    total = FIXED_HEADER + fields + -fields % 8 + body
    if head[3] != 1 or fields > ARRAY_MAX or total > MESSAGE_MAX:
        raise BadMessage("no D-Bus message of version 1, or too long a one")
    return int(total)


def decode(data: bytes) -> Message:
    """Read one whole message. Raises BadMessage for what is none."""
    reader = _Reader(data, _order(data))
    _, kind, flags, _, _, serial, found = [reader.get(code, 0) for code in ("y", "y", "y", "y", "u", "u", "a(yv)")]
    fields: dict[str, Any] = {}
    for number, variant in found:
        if 1 <= number <= len(_FIELDS):
            name, wanted = _FIELDS[number - 1]
            if variant.signature != wanted:
                raise BadMessage(f"header field {name} of type {variant.signature!r}")
            fields[name] = variant.value
    reader.pad(8)
    body = [reader.get(code, 0) for code in complete_types(fields.get("signature", ""))]
    if reader.at != len(data):
        raise BadMessage("bytes after the body")
    return Message(kind=kind, serial=serial, flags=flags, body=body, **fields)


def _order(data: bytes) -> str:
    if data[:1] not in (b"l", b"B"):
        raise BadMessage("no D-Bus message")
    return "<" if data[:1] == b"l" else ">"


class _Reader:
    def __init__(self, data: bytes, order: str) -> None:
        self._data = data
        self._order = order
        self.at = 0

    def pad(self, alignment: int) -> None:
        if any(self._take(-self.at % alignment)):
            raise BadMessage("padding that is not zero")

    def _take(self, count: int) -> bytes:
        piece = self._data[self.at : self.at + count]
        if len(piece) != count:
            raise BadMessage("a message that ends too early")
        self.at += count
        return piece

    def get(self, kind: str, depth: int) -> Any:
        if depth > DEPTH_MAX:
            raise BadMessage("too deeply nested")
        code = kind[0]
        if code in _FIXED:
            return self._fixed(code)
        if code in "so":
            return self._text("u")
        if code == "g":
            return self._signature()
        if code == "v":
            types = complete_types(self._signature())
            if len(types) != 1:
                raise BadMessage("a variant of not one type")
            return Variant(types[0], self.get(types[0], depth + 1))
        if code == "a":
            return self._array(kind[1:], depth + 1)
        self.pad(8)
        return [self.get(inner, depth + 1) for inner in complete_types(kind[1:-1])]

    def _fixed(self, code: str) -> Any:
        self.pad(_ALIGNMENT[code])
        (value,) = struct.unpack(self._order + _FIXED[code], self._take(_ALIGNMENT[code]))
        if code != "b":
            return value
        if value > 1:
            raise BadMessage(f"a boolean of {value}")
        return bool(value)

    def _text(self, length_code: str) -> str:
        size = self._fixed(length_code)
        data = self._take(size + 1)
        if data.find(b"\0") != size:
            raise BadMessage("a string that does not end where it says")
        try:
            return data[:-1].decode()
        except UnicodeDecodeError:
            raise BadMessage("a string that is not UTF-8") from None

    def _signature(self) -> str:
        text = self._text("y")
        complete_types(text)
        return text

    def _array(self, element: str, depth: int) -> Any:
        size = self._fixed("u")
        if size > ARRAY_MAX:
            raise BadMessage("an array of more than 64 MiB")
        self.pad(_ALIGNMENT[element[0]])
        end = self.at + size
        if element == "y":
            return self._take(size)
        values = []
        while self.at < end:
            values.append(self.get(element, depth))
        if self.at != end:
            raise BadMessage("an array that does not end where it says")
        return {_key(key): value for key, value in values} if element[0] == "{" else values


def _key(value: Any) -> Any:
    if isinstance(value, (list, dict)):
        raise BadMessage("an entry whose key is no basic type")
    return value
