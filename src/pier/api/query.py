"""Query parameters, read as Docker reads them (httputils.BoolValue, strconv.Atoi, …)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from multidict import MultiMapping

from pier.errors import InvalidParameter
from pier.model.filters import Filters
from pier.model.time import parse_moment
from pier.model.wire import MAX_INT

_INTEGER = re.compile(r"[+-]?\d{1,19}", re.ASCII)
_FALSE = frozenset({"", "0", "no", "false", "none"})


class BadInteger(InvalidParameter):
    """invalid value for "{name}": strconv.Atoi: parsing {text}: invalid syntax"""


class BadResize(InvalidParameter):
    """invalid resize {what} {text}: invalid syntax"""


class Query:
    """The parameters of one request."""

    def __init__(self, values: MultiMapping[str]) -> None:
        self._values = values

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def text(self, name: str, default: str = "") -> str:
        """The first value."""
        return self._values.get(name, default)

    def texts(self, name: str) -> list[str]:
        """All the values, in order."""
        return self._values.getall(name, [])

    def flag(self, name: str, default: bool = False) -> bool:
        """Anything but nothing, 0, no, false and none is true: Docker's rule."""
        value = self._values.get(name)
        return default if value is None else value.strip().lower() not in _FALSE

    def integer(self, name: str, default: int = 0) -> int:
        """Empty is the default; raises BadInteger."""
        text = self._values.get(name, "")
        return default if not text else parse_integer(name, text)

    def optional_integer(self, name: str) -> int | None:
        """None where it is missing or empty; raises BadInteger."""
        return self.integer(name) if self._values.get(name) else None

    def moment_ns(self, name: str) -> int:
        """A `since` or `until` in nanoseconds since 1970, 0 where it is missing; raises BadTime."""
        text = self._values.get(name, "")
        return parse_moment(text) if text else 0

    def filters(self) -> Filters:
        """Raises InvalidFilter. The service says which names it knows."""
        return Filters.parse(self._values.get("filters", ""))

    def size(self) -> tuple[int, int]:
        """`h` and `w` of a terminal; raises BadResize."""
        return _terminal_side("height", self.text("h")), _terminal_side("width", self.text("w"))

    def as_dict(self) -> Mapping[str, str]:
        return dict(self._values.items())


def parse_integer(name: str, text: str) -> int:
    """Go's strconv.Atoi; raises BadInteger."""
    if not _INTEGER.fullmatch(text) or abs(int(text)) > MAX_INT:
        raise BadInteger(name=name, text=json.dumps(text[:64]))
    return int(text)


def _terminal_side(what: str, text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise BadResize(what=what, text=json.dumps(text[:64]))
    return min(int(text), 65535)
