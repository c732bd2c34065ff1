"""JSON documents of the OCI specifications: bounded decoding into structs, with Go's leniency, and encoding.

Images are made by many tools, most of them in Go, whose decoder leaves a field at its zero value for `null`
and ignores what it does not know; so does this one. Whatever else is wrong is a MalformedDocument naming the object.
"""

from __future__ import annotations

from typing import Any, Final, TypeVar

import msgspec

from pier.errors import InvalidParameter
from pier.oci.digest import Digest, InvalidDigest

MAX_VALUES: Final = 200_000
"""Most values (counted by their separators, before anything is built) in one document."""

T = TypeVar("T")


class MalformedDocument(InvalidParameter):
    """{what}: {reason}"""


def decode(data: bytes, shape: type[T], *, what: str, limit_bytes: int) -> T:
    """Decode `data` into the struct `shape`.

    `what` names the object for the message, e.g. `manifest of busybox:latest`. Bounded: `limit_bytes` of text,
    MAX_VALUES values, and the nesting the interpreter's stack allows. Raises MalformedDocument.
    """
    if len(data) > limit_bytes:
        raise MalformedDocument(what=what, reason=f"{len(data)} bytes, more than the {limit_bytes} allowed")
    if sum(data.count(mark) for mark in (b",", b"[", b"{")) > MAX_VALUES:
        raise MalformedDocument(what=what, reason=f"more than {MAX_VALUES} values")
    try:
        tree = without_nulls(msgspec.json.decode(data), msgspec.inspect.type_info(shape))
        return msgspec.convert(tree, shape, dec_hook=_digest_from)
    except RecursionError:
        raise MalformedDocument(what=what, reason="nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedDocument(what=what, reason=str(error)) from None


def encode(document: msgspec.Struct) -> bytes:
    """The document's JSON, fields in declaration order, no white space: the bytes whose digest names it."""
    return msgspec.json.encode(document, enc_hook=_plain)


_ZERO: Final[dict[type[msgspec.inspect.Type], Any]] = {
    msgspec.inspect.StrType: "",
    msgspec.inspect.IntType: 0,
    msgspec.inspect.FloatType: 0.0,
    msgspec.inspect.BoolType: False,
}


def without_nulls(value: Any, shape: msgspec.inspect.Type) -> Any:
    """Replace `null` by what Go's decoder would have left: a field's default, an element's zero value."""
    match value, shape:
        case dict(), msgspec.inspect.StructType(fields=fields):
            known = {field.encode_name: field for field in fields}
            return {
                name: _element(item, known[name].type)
                for name, item in value.items()
                if name in known and (item is not None or known[name].required)
            }
        case dict(), msgspec.inspect.DictType(value_type=inner):
            return {name: _element(item, inner) for name, item in value.items()}
        case list(), msgspec.inspect.ListType(item_type=inner) | msgspec.inspect.VarTupleType(item_type=inner):
            return [_element(item, inner) for item in value]
        case _, msgspec.inspect.UnionType(types=types):
            [inner] = [kind for kind in types if not isinstance(kind, msgspec.inspect.NoneType)]
            return without_nulls(value, inner)
        case _:
            return value


def _element(value: Any, shape: msgspec.inspect.Type) -> Any:
    if value is not None:
        return without_nulls(value, shape)
    if isinstance(shape, msgspec.inspect.DictType):
        return {}
    if isinstance(shape, msgspec.inspect.ListType | msgspec.inspect.VarTupleType):
        return []
    # A struct stays null: with Go it would be an empty one, which a required digest or size forbids anyway.
    return _ZERO.get(type(shape))


def _digest_from(kind: type[Any], value: Any) -> Any:
    if kind is not Digest or not isinstance(value, str):
        raise TypeError("a digest is a string")
    try:
        return Digest(value)
    except InvalidDigest as error:
        raise ValueError(error.message) from None


def _plain(value: Any) -> Any:
    if isinstance(value, Digest):
        return str(value)
    raise NotImplementedError(type(value).__name__)
