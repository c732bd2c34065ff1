"""`--platform` as the API takes it: the JSON of an OCI platform (image-spec, image-index.md)."""

from __future__ import annotations

from pier.cli.errors import Failure
from pier.cli.jsontext import dumps

_COMPONENT = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
_SYSTEMS = frozenset("linux windows darwin freebsd netbsd openbsd solaris wasip1".split())

_RULES = (
    ("OS component", r'OSAndVersion specifier component must match "^([A-Za-z0-9_-]+)(?:\\(([A-Za-z0-9_.-]*)\\))?$"'),
    ("component", 'platform specifier component must match "^[A-Za-z0-9_.-]+$"'),
)
"""What Docker calls the first part, and the others."""


def platform(text: str) -> str:
    """`linux/arm64/v8`, or an os or architecture alone, as JSON; empty for none. Failure in Docker's words."""
    if not text:
        return ""
    parts = text.split("/")
    for number, part in enumerate(parts):
        if not part or any(character not in _COMPONENT for character in part):
            kind, rule = _RULES[number > 0]
            reason = f'"{part}" is an invalid {kind} of "{text}": {rule}: invalid argument'
            raise Failure(f"invalid platform: {reason}")
    if len(parts) > 3:
        raise Failure(f'invalid platform: "{text}": cannot parse platform specifier: invalid argument')
    if len(parts) == 1 and text.lower() not in _SYSTEMS:
        parts = ["linux", text]
    return dumps(dict(zip(("os", "architecture", "variant"), parts, strict=False)))
