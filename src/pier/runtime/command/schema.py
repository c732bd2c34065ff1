"""Checks of JSON that someone else wrote: each names the field it refuses by its path, in one line.

A check is called with a value and its path and raises BadField. Structures are built of checks, so that a document's
schema is data (`bundle.SPEC`) that a test can walk. `null` counts as absent, and unknown keys are passed over, as
runtime-spec wants.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

Check = Callable[[Any, str], None]
"""(value, path such as `process.args[0]`)"""
Fields = Mapping[str, Check]

TEXT_MAX = 128 * 1024
"""MAX_ARG_STRLEN: execve(2) takes no longer string, and no path or option is as long."""
ITEMS_MAX = 65536
SHOWN_MAX = 100
"""Characters of a refused value that a message repeats."""

INT64 = range(-(2**63), 2**63)
UINT16 = range(2**16)
UINT32 = range(2**32)
UINT64 = range(2**64)


class BadField(ValueError):
    """`path`: what it should be."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path


def kind_of(value: Any) -> str:
    """A value's kind in JSON's words, for messages."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, (int, float)):
        return "a number"
    return "a string" if isinstance(value, str) else "an array" if isinstance(value, list) else "an object"


def boolean(value: Any, path: str) -> None:
    if not isinstance(value, bool):
        raise BadField(path, f"must be a boolean, is {kind_of(value)}")


def text(value: Any, path: str) -> None:
    """A string that the kernel can take: without NUL, and not absurdly long."""
    if not isinstance(value, str):
        raise BadField(path, f"must be a string, is {kind_of(value)}")
    if len(value) > TEXT_MAX:
        raise BadField(path, f"is longer than {TEXT_MAX} characters")
    if "\0" in value:
        raise BadField(path, "must not contain a NUL character")
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise BadField(path, "is not valid Unicode") from None


def name(value: Any, path: str) -> None:
    """A string with something in it."""
    text(value, path)
    if not value:
        raise BadField(path, "must not be empty")


def absolute(value: Any, path: str) -> None:
    """An absolute path without `..`."""
    name(value, path)
    if not value.startswith("/"):
        raise BadField(path, f"must be an absolute path, is {_short(value)}")
    if ".." in value.split("/"):
        raise BadField(path, f"must not contain `..`: {_short(value)}")


class OneOf:
    """One of a set of words; `what` names the set in the error."""

    def __init__(self, words: Collection[str], what: str) -> None:
        self.words = words
        self.what = what

    def __call__(self, value: Any, path: str) -> None:
        text(value, path)
        if value not in self.words:
            raise BadField(path, f"{_short(value)} is no {self.what}")


class Integer:
    def __init__(self, allowed: range) -> None:
        self.allowed = allowed

    def __call__(self, value: Any, path: str) -> None:
        if isinstance(value, bool) or not isinstance(value, int):
            raise BadField(path, f"must be an integer, is {kind_of(value)}")
        if value not in self.allowed:
            first, last = self.allowed.start, self.allowed.stop - 1
            raise BadField(path, f"must be from {first} to {last}, is {_short_number(value)}")


def _short_number(number: int) -> str:
    return str(number) if abs(number) < 10**30 else "a number of more than 30 digits"


def _short(value: str) -> str:
    """A string for a message, which stays one line of bearable length."""
    return repr(value) if len(value) <= SHOWN_MAX else f"{value[:SHOWN_MAX]!r}…"


class Array:
    def __init__(self, item: Check, *, most: int = ITEMS_MAX) -> None:
        self.item = item
        self.most = most

    def __call__(self, value: Any, path: str) -> None:
        if not isinstance(value, list):
            raise BadField(path, f"must be an array, is {kind_of(value)}")
        if len(value) > self.most:
            raise BadField(path, f"has {len(value)} entries, {self.most} are allowed")
        for index, entry in enumerate(value):
            self.item(entry, f"{path}[{index}]")


class Keyed:
    """An object whose keys are data: annotations, sysctls."""

    def __init__(self, item: Check, *, most: int = ITEMS_MAX) -> None:
        self.item = item
        self.most = most

    def __call__(self, value: Any, path: str) -> None:
        require_object(value, path)
        if len(value) > self.most:
            raise BadField(path, f"has {len(value)} entries, {self.most} are allowed")
        for key, entry in value.items():
            name(key, f"{path}, a key")
            self.item(entry, f"{path}.{_short(key)[1:-1]}")


class Structure:
    """An object whose keys are fields; those not in `fields` are passed over."""

    def __init__(self, fields: Fields, *, required: Collection[str] = ()) -> None:
        self.fields = fields
        self.required = required

    def __call__(self, value: Any, path: str) -> None:
        require_object(value, path)
        for key in self.required:
            if value.get(key) is None:
                raise BadField(f"{path}.{key}" if path else key, "must not be empty")
        for key, entry in value.items():
            if entry is not None and key in self.fields:
                self.fields[key](entry, f"{path}.{key}" if path else key)


def require_object(value: Any, path: str) -> None:
    if not isinstance(value, dict):
        raise BadField(path or "the document", f"must be an object, is {kind_of(value)}")


def without_nulls(value: Any) -> Any:
    """A copy in which absent and `null` are one: no key of an object has the value None."""
    if isinstance(value, dict):
        return {key: without_nulls(entry) for key, entry in value.items() if entry is not None}
    if isinstance(value, list):
        return [without_nulls(entry) for entry in value]
    return value
