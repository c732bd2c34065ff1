"""Paths to operations: one flat table, searched by method and first segment.

Templates are those of the API contract: `{id}` is one segment, `{name...}` is one or more (names of images and networks
hold slashes). The path is matched as the client sent it, still percent-encoded, and only the parameters found are
decoded; each must then be a name of its kind. So a parameter can hold neither `..` nor a slash where none belongs.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from pier.errors import InvalidParameter, NotFound
from pier.model.networks import is_network_name

if TYPE_CHECKING:
    from aiohttp import web

    from .call import Call

_PARAMETER = re.compile(r"\{(\w+)(\.\.\.)?\}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}", re.ASCII)
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:@/-]{0,511}", re.ASCII)


class NoSuchObject(NotFound):
    """No such {kind}: {name}"""


class NoSuchNetwork(NotFound):
    """network {name} not found"""


class NoSuchVolume(NotFound):
    """get {name}: no such volume"""


class InvalidReference(InvalidParameter):
    """invalid reference format"""


@dataclass(frozen=True, slots=True)
class Route:
    """One operation of the API."""

    method: str
    path: str
    operation: str
    """The operationId of the contract, e.g. `ContainerList`."""
    handler: Callable[[Call], Awaitable[web.StreamResponse]]
    streams: bool = False
    """Ends when its client goes away. Other requests that change things run to their end once begun."""


@dataclass(frozen=True, slots=True)
class _Entry:
    pattern: re.Pattern[str]
    route: Route


class Router:
    """The table, indexed."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = tuple(routes)
        self._fixed: dict[tuple[str, str], Route] = {}
        self._entries: dict[tuple[str, str], list[_Entry]] = {}
        for route in self.routes:
            if "{" not in route.path:
                self._fixed[route.method, route.path] = route
            else:
                key = (route.method, _first_segment(route.path))
                self._entries.setdefault(key, []).append(_Entry(_compile(route.path), route))

    def match(self, method: str, path: str) -> tuple[Route, dict[str, str]] | None:
        """The route of a raw path without its version, and its checked parameters; None: there is no such page.

        Raises NoSuchObject, NoSuchNetwork or InvalidReference for a parameter that names nothing that could exist.
        """
        fixed = self._fixed.get((method, path))
        if fixed is not None:
            return fixed, {}
        for entry in self._entries.get((method, _first_segment(path)), ()):
            found = entry.pattern.fullmatch(path)
            if found:
                return entry.route, {key: _parameter(entry.route, raw) for key, raw in found.groupdict().items()}
        return None


def _first_segment(path: str) -> str:
    return path.split("/", 2)[1] if path.startswith("/") else ""


def _compile(template: str) -> re.Pattern[str]:
    parts, end = [], 0
    for parameter in _PARAMETER.finditer(template):
        name, many = parameter.groups()
        parts += [re.escape(template[end : parameter.start()]), f"(?P<{name}>{'.+' if many else '[^/]+'})"]
        end = parameter.end()
    return re.compile("".join(parts) + re.escape(template[end:]))


def _parameter(route: Route, raw: str) -> str:
    """A parameter decoded, if it is a name that could exist."""
    text = unquote_to_bytes(raw).decode("utf-8", "replace")
    if route.path.startswith(("/images/", "/distribution/", "/plugins/")):
        if not _IMAGE.fullmatch(text) or ".." in text or "//" in text:
            raise InvalidReference
    elif route.path.startswith("/networks/"):
        if not is_network_name(text):
            raise NoSuchNetwork(name=printable(text))
    elif route.path.startswith("/volumes/"):
        if not _NAME.fullmatch(text):
            raise NoSuchVolume(name=printable(text))
    elif not _NAME.fullmatch(text):
        raise NoSuchObject(kind=_kind(route.path), name=printable(text))
    return text


def _kind(path: str) -> str:
    kind = _first_segment(path)
    return {"exec": "exec instance"}.get(kind, kind.removesuffix("s"))


def printable(text: str, limit: int = 128) -> str:
    """Text of a client's, safe to put in a message or a log: no control characters, not long."""
    return "".join(char if char.isprintable() else "�" for char in text[:limit])
