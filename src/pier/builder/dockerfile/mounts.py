"""RUN --mount and --device: `key=value,…` (Dockerfile reference, "RUN --mount", "RUN --device")."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any, Final

import msgspec

from pier.builder.dockerfile.gotext import quote
from pier.builder.dockerfile.source import Fault, meant
from pier.model.booleans import parse_bool

Expand = Callable[[str], str]


class MountKind(Enum):
    BIND = "bind"
    CACHE = "cache"
    TMPFS = "tmpfs"
    SECRET = "secret"  # noqa: S105
    SSH = "ssh"


class Mount(msgspec.Struct, frozen=True):
    """One `--mount`, as BuildKit fills in what is left out."""

    kind: MountKind = MountKind.BIND
    from_: str = ""
    source: str = ""
    target: str = ""
    readonly: bool = False
    id: str = ""
    sharing: str = ""
    """`shared`, `private`, `locked`; empty: shared."""
    required: bool = False
    size_bytes: int = 0
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    env: str | None = None
    """Of a secret: the variable that has it, too or instead of a file."""


class DeviceRequest(msgspec.Struct, frozen=True):
    name: str
    required: bool = False


_WITH_OWNER: Final = (MountKind.SECRET, MountKind.SSH, MountKind.CACHE)
_WITH_REQUIRED: Final = (MountKind.SECRET, MountKind.SSH)
_SHARINGS: Final = ("shared", "private", "locked")
_MAX_ID: Final = (1 << 32) - 1
_KEYS: Final = {
    "type": "kind",
    "from": "from_",
    "source": "source",
    "src": "source",
    "target": "target",
    "dst": "target",
    "destination": "target",
    "readonly": "readonly",
    "ro": "readonly",
    "readwrite": "readwrite",
    "rw": "readwrite",
    "id": "id",
    "sharing": "sharing",
    "required": "required",
    "size": "size_bytes",
    "mode": "mode",
    "uid": "uid",
    "gid": "gid",
    "env": "env",
}
_UNITS: Final = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
_SIZE: Final = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?) ?(?:([kmgtp])i?)?b?", re.IGNORECASE)


def fields(text: str) -> list[str]:
    """The fields of one line of CSV (RFC 4180). Raises Fault."""
    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error as error:
        raise Fault(f"failed to parse csv mounts: {error}") from None
    if len(rows) != 1:
        raise Fault("failed to parse csv mounts: EOF")
    return rows[0]


def check_mount(text: str) -> None:
    """Refuse what can be refused before variables have values. Raises Fault."""
    for field in fields(text):
        key, equals, value = field.partition("=")
        key = key.lower()
        _check_key(key, bool(equals), field)
        if key == "from" and re.search(r"\$.", value):
            raise Fault(f"'{key}' doesn't support variable expansion, define alias stage instead")
    if "$" not in text:
        parse_mount(text, lambda value: value)


def parse_mount(text: str, expand: Expand) -> Mount:
    """Raises Fault, and whatever `expand`, which gives a value's variables their values, raises."""
    values: dict[str, Any] = {}
    for field in fields(text):
        key, equals, value = field.partition("=")
        key = key.lower()
        _check_key(key, bool(equals), field)
        name = _KEYS[key]
        if name in ("readonly", "readwrite"):
            said = _boolean(key, expand(value)) if equals else True
            values["readonly"] = said if name == "readonly" else not said
        elif name == "required":
            values["required"] = _boolean(key, expand(value)) if equals else True
        else:
            values[name] = _value(key, name, expand(value))
    mount = Mount(**{"readonly": values.get("kind") not in (MountKind.CACHE, MountKind.TMPFS), **values})
    for reason in _contradictions(mount):
        raise Fault(reason)
    return mount


def _check_key(key: str, has_value: bool, field: str) -> None:
    if has_value or key in ("readonly", "ro", "readwrite", "rw", "required"):
        if key not in _KEYS:
            raise Fault(meant(f"unexpected key '{key}' in '{field}'", key, _KEYS, ignore_case=True))
    elif key == "env":
        return
    else:
        raise Fault(f"invalid field '{field}' must be a key=value pair")


def _value(key: str, name: str, value: str) -> Any:
    match name:
        case "kind":
            known = [kind.value for kind in MountKind]
            if value.lower() not in known:
                raise Fault(meant(f"unsupported mount type {quote(value)}", value, known, ignore_case=True))
            return MountKind(value.lower())
        case "sharing":
            if value.lower() not in _SHARINGS:
                raise Fault(meant(f"unsupported sharing value {quote(value)}", value, _SHARINGS, ignore_case=True))
            return value.lower()
        case "size_bytes":
            return _size(key, value)
        case "mode":
            if not re.fullmatch(r"[0-7]{1,11}", value):
                raise Fault(f"invalid value {value} for mode")
            return int(value, 8)
        case "uid" | "gid":
            if not re.fullmatch(r"[0-9]{1,10}", value) or int(value) > _MAX_ID:
                raise Fault(f"invalid value {value} for {key}")
            return int(value)
    return value


def _size(key: str, value: str) -> int:
    match = _SIZE.fullmatch(value)
    if not match:
        raise Fault(f"invalid value for {key}: {value}")
    return int(float(match[1]) * _UNITS[(match[2] or "").lower()])


def _boolean(key: str, value: str) -> bool:
    try:
        return parse_bool(value)
    except ValueError:
        raise Fault(f"invalid value for {key}: {value}") from None


def _contradictions(mount: Mount) -> Iterator[str]:
    """Why the options do not go together."""
    kind = mount.kind.value
    if mount.required and mount.kind not in _WITH_REQUIRED:
        yield f"unexpected key 'required' for mount type '{kind}'"
    if mount.kind not in _WITH_OWNER:
        yield from (
            f'{name} not allowed for "{kind}" type mounts'
            for name in ("mode", "uid", "gid")
            if getattr(mount, name) is not None
        )
    if mount.sharing and mount.kind is not MountKind.CACHE:
        yield f"invalid cache sharing set for {kind} mount"
    if mount.size_bytes and mount.kind is not MountKind.TMPFS:
        yield f'size not allowed for "{kind}" type mounts'
    if mount.env is not None and mount.kind is not MountKind.SECRET:
        yield f"unexpected key 'env' for mount type '{kind}'"
    if mount.kind is MountKind.SECRET:
        yield from _secret_contradictions(mount)


def _secret_contradictions(mount: Mount) -> Iterator[str]:
    if mount.from_:
        yield "secret mount should not have a from"
    if not (mount.source or mount.target or mount.id or mount.env):
        yield "invalid secret mount. one of source, target required"
    if mount.source and mount.id:
        yield "both source and id can't be set"


def check_device(text: str) -> None:
    parse_device(text)


def parse_device(text: str) -> DeviceRequest:
    """`vendor.com/class=name`, alone or as `name=…,required`. Raises Fault."""
    values: dict[str, Any] = {}
    found = fields(text)
    for field in found:
        key, equals, value = field.partition("=")
        if key.lower() == "name" and equals:
            values["name"] = value
        elif key.lower() == "required":
            values["required"] = _boolean("required", value) if equals else True
        elif field is found[0]:
            values["name"] = field
        elif not equals:
            raise Fault(f"invalid field '{field}' must be a key=value pair")
        else:
            raise Fault(meant(f"unexpected key '{key}' in '{field}'", key, ["name", "required"]))
    if not values.get("name"):
        raise Fault("device name is required")
    return DeviceRequest(**values)
