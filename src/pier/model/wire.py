"""JSON as Go's `encoding/json` reads and writes it, for msgspec structs: the habits every Docker client relies on.

Reading: `null` stands for the zero value, keys match whatever their case, integers fit 64 bits, unknown keys are
ignored, a `StrSlice` may be a lone string. Writing: fields marked `OMIT` disappear when empty
(`omitempty`), all others stay.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import inspect

T = TypeVar("T")

OMIT = msgspec.Meta(extra={"omitempty": True})
"""Marks a field that Go would tag `omitempty`: dropped when None, or when empty and None is not among its values."""

StrSlice = Annotated[list[str], msgspec.Meta(extra={"lone_string": True})]
"""Go's `strslice.StrSlice`: a list of strings that may also be written as one string."""

MAX_INT = 2**63 - 1
MIN_INT = -(2**63)


class Struct(msgspec.Struct, rename="pascal"):
    """Base of every struct of the Engine API: JSON keys are the attribute's name in PascalCase unless given."""


@dataclass(slots=True)
class Shape:
    """What this module needs to know about a type."""

    zero: Any = None
    """Builtin form of the zero value, put in place of a `null` in a list or a map."""
    nullable: bool = False
    integer: bool = False
    lone_string: bool = False
    omit: bool = False
    fields: dict[str, Shape] | None = None
    folded: dict[str, str] = field(default_factory=dict)
    """Of a struct: lower-case key -> key."""
    item: Shape | None = None
    """Of a list."""
    value: Shape | None = None
    """Of a map."""
    plain_write: bool = True
    """Nothing below is ever omitted."""
    looked_at: tuple[tuple[str, Shape], ...] = ()
    """Of a struct: the fields that may be omitted, or something below them."""


_SHAPES: dict[Any, Shape] = {}


def shape_of(type_: Any) -> Shape:
    """The shape of a type, worked out once."""
    shape = _SHAPES.get(type_)
    if shape is None:
        shape = _SHAPES[type_] = _shape(inspect.type_info(type_))
    return shape


def _shape(info: inspect.Type) -> Shape:  # noqa: PLR0911 - one branch a kind of type
    match info:
        case inspect.Metadata():
            shape, extra = _shape(info.type), info.extra or {}
            shape.omit = shape.omit or extra.get("omitempty", False)
            shape.lone_string = shape.lone_string or extra.get("lone_string", False)
            return shape
        case inspect.UnionType():
            others = [_shape(item) for item in info.types if not isinstance(item, inspect.NoneType)]
            shape = others[0] if len(others) == 1 else Shape()
            shape.nullable = any(isinstance(item, inspect.NoneType) for item in info.types)
            return shape
        case inspect.StructType():
            fields = {item.encode_name: _shape(item.type) for item in info.fields}
            looked_at = tuple((key, below) for key, below in fields.items() if below.omit or not below.plain_write)
            folded = {key.lower(): key for key in fields}
            return Shape(zero={}, fields=fields, folded=folded, plain_write=not looked_at, looked_at=looked_at)
        case inspect.ListType() | inspect.VarTupleType():
            item = _shape(info.item_type)
            return Shape(zero=[], item=item, plain_write=item.plain_write)
        case inspect.DictType():
            value = _shape(info.value_type)
            return Shape(zero={}, value=value, plain_write=value.plain_write)
        case inspect.IntType():
            return Shape(zero=0, integer=True)
        case inspect.FloatType():
            return Shape(zero=0.0)
        case inspect.BoolType():
            return Shape(zero=False)
        case inspect.StrType():
            return Shape(zero="")
        case _:
            return Shape(nullable=True)


def decode(data: bytes | bytearray | memoryview | str, type_: type[T]) -> T:
    """One JSON document as `type_`.

    Raises msgspec.DecodeError (not JSON) or its subclass msgspec.ValidationError (JSON of another shape; the text ends
    with the path of the field).
    """
    try:
        raw = msgspec.json.decode(data)
    except RecursionError as error:
        raise msgspec.DecodeError("JSON is nested too deeply") from error
    return convert(raw, type_)


def convert(raw: Any, type_: type[T]) -> T:
    """Builtin objects (of a JSON document) as `type_`; raises msgspec.ValidationError."""
    return msgspec.convert(_accept(raw, shape_of(type_), "$"), type_)


def _accept(raw: Any, shape: Shape, path: str) -> Any:
    if raw is None:
        return None if shape.nullable else shape.zero
    if shape.integer and isinstance(raw, int) and not MIN_INT <= raw <= MAX_INT:
        raise msgspec.ValidationError(f"Expected a 64-bit `int` - at `{path}`")
    if shape.lone_string and isinstance(raw, str):
        return [raw]
    if shape.item is not None and isinstance(raw, list):
        return [_accept(item, shape.item, f"{path}[...]") for item in raw]
    if shape.value is not None and isinstance(raw, dict):
        return {key: _accept(value, shape.value, f"{path}[...]") for key, value in raw.items()}
    if shape.fields is not None and isinstance(raw, dict):
        return _accept_fields(raw, shape.fields, shape.folded, path)
    return raw


def _accept_fields(raw: dict[str, Any], fields: dict[str, Shape], folded: dict[str, str], path: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in raw.items():
        name = key if key in fields else folded.get(key.lower())
        if name is None or value is None:  # unknown, or null: the field's default
            continue
        found[name] = _accept(value, fields[name], f"{path}.{name}")
    return found


def to_builtins(value: Any) -> Any:
    """A struct (or a list or map of them) as the dicts and lists that are written to the wire."""
    raw = msgspec.to_builtins(value)
    if isinstance(value, msgspec.Struct):
        return _omit(raw, shape_of(type(value)))
    if isinstance(value, list | tuple):
        return [
            _omit(item, shape_of(type(one))) if isinstance(one, msgspec.Struct) else item
            for one, item in zip(value, raw, strict=True)
        ]
    return raw


def omit_empty(raw: Any, type_: type[Struct]) -> Any:
    """A struct's builtin form, or what its JSON says, without the fields that are left out; edited in place."""
    return _omit(raw, shape_of(type_))


def encode(value: Any) -> bytes:
    """JSON bytes, without Go's trailing newline."""
    return msgspec.json.encode(to_builtins(value))


def _omit(raw: Any, shape: Shape) -> Any:
    """`raw` without its empty `omitempty` fields; changes dicts in place."""
    if shape.plain_write or raw is None:
        return raw
    if shape.item is not None:
        for item in raw:
            _omit(item, shape.item)
    elif shape.value is not None:
        for item in raw.values():
            _omit(item, shape.value)
    elif shape.fields is not None:
        for key, below in shape.looked_at:
            value = raw[key]
            if below.omit and _is_empty(value, below):
                del raw[key]
            elif value and not below.plain_write:
                _omit(value, below)
    return raw


def _is_empty(value: Any, shape: Shape) -> bool:
    if value is None:
        return True
    if shape.item is not None or shape.value is not None:  # nil and empty are one to `omitempty`
        return not value
    return not shape.nullable and shape.fields is None and not value
