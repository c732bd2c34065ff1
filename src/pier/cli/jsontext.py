"""JSON without the `json` package: the same C scanner and encoder, minus 5 ms of imports (`re` among them).

`loads` takes what RFC 8259 allows and raises ValueError on the rest. `dumps` writes Go's layout (no spaces,
keys as given), `pretty` what `encoding/json` calls Indent with four spaces.
"""

from __future__ import annotations

import _json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SPACE = " \t\r\n"


class _Settings:
    """What the C scanner reads from its context."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float


_scan = _json.make_scanner(_Settings())  # type: ignore[arg-type]  # typeshed wants a decoder


def loads(text: str | bytes) -> Any:
    """The value of a JSON text; ValueError when it is not one."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    start = len(text) - len(text.lstrip(_SPACE))
    try:
        value, end = _scan(text, start)
    except StopIteration as stop:
        raise ValueError(f"not JSON at character {stop.value}") from None
    if text[end:].strip(_SPACE):
        raise ValueError(f"more text after the JSON value at character {end}")
    return value


def dumps(value: Any, *, escape_html: bool = False) -> str:
    """Compact JSON in UTF-8; `escape_html` writes <, > and & as Go's encoder does by default."""
    text = "".join(_compact(value, 0))
    if escape_html:
        text = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return text


def _refuse(value: object) -> str:
    raise TypeError(f"{type(value).__name__} has no JSON form")


_compact = _json.make_encoder(None, _refuse, _json.encode_basestring, None, ":", ",", False, False, True)


def pretty(value: Any, indent: str = "    ") -> str:
    """JSON as Docker prints it for people: one member a line, empty containers closed at once."""
    return "".join(_pretty(value, indent, "\n"))


def _pretty(value: Any, indent: str, newline: str) -> list[str]:
    if not isinstance(value, dict | list) or not value:
        return _compact(value, 0)  # type: ignore[no-any-return]
    inner = newline + indent
    parts: list[str] = []
    if isinstance(value, dict):
        for key, member in value.items():
            parts += ["," + inner if parts else "{" + inner, _json.encode_basestring(key), ": "]
            parts += _pretty(member, indent, inner)
        parts += [newline, "}"]
    else:
        for member in value:
            parts.append("," + inner if parts else "[" + inner)
            parts += _pretty(member, indent, inner)
        parts += [newline, "]"]
    return parts
