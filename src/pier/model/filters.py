"""The `filters` parameter: `{"label": ["a=b"]}` or, as old clients write it, `{"label": {"a=b": true}}`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import msgspec

from pier.errors import InvalidParameter
from pier.model.time import parse_moment

_MAX_BYTES = 64 * 1024
_MAX_PATTERN = 256
_MAX_REPETITIONS = 3
_REPETITION = re.compile(r"(?<![(\\])[*+?{]")
_EXPLOSIVE = (
    re.compile(r"\((?:[^()\\]|\\.)*[*+{|?](?:[^()\\]|\\.)*\)[*+{]"),
    re.compile(r"\)\)+[*+{]"),
    re.compile(r"\\[1-9]|\(\?P=|\(\?[^:iPms-]"),
)
_TRUE, _FALSE = {"1", "true"}, {"0", "false"}


class InvalidFilter(InvalidParameter):
    """invalid filter"""


class UnknownFilter(InvalidParameter):
    """invalid filter '{name}'"""


class InvalidFilterValue(InvalidParameter):
    """invalid filter '{name}=[{value}]'"""


class SeveralUntil(InvalidParameter):
    """more than one until filter specified"""


@dataclass(frozen=True, slots=True)
class Filters:
    """Each name's values, any of which may match; names must all match. A name that is absent matches everything."""

    terms: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str, accepted: Iterable[str] | None = None) -> Filters:
        """From the API's JSON; empty text is no filter. Raises InvalidFilter, UnknownFilter."""
        if not text:
            return cls()
        if len(text) > _MAX_BYTES:
            raise InvalidFilter
        filters = cls(_parse_terms(text))
        if accepted is not None:
            filters.validate(accepted)
        return filters

    def validate(self, accepted: Iterable[str]) -> None:
        """Raise UnknownFilter for the first name, in order of the alphabet, that is not accepted."""
        known = frozenset(accepted)
        for name in sorted(self.terms):
            if name not in known:
                raise UnknownFilter(name=name)

    def __bool__(self) -> bool:
        return bool(self.terms)

    def __contains__(self, name: str) -> bool:
        return name in self.terms

    def get(self, name: str) -> tuple[str, ...]:
        """The values of a filter, empty when it is absent."""
        return self.terms.get(name, ())

    def one_of(self, name: str, allowed: Iterable[str]) -> tuple[str, ...]:
        """The values of a filter, all of which must be among `allowed`; raises InvalidFilterValue."""
        known = frozenset(allowed)
        for value in self.get(name):
            if value not in known:
                raise InvalidFilterValue(name=name, value=value)
        return self.get(name)

    def boolean(self, name: str, default: bool = False) -> bool:
        """A filter that takes 1, true, 0 or false; raises InvalidFilterValue for anything else or for both at once."""
        values = {value.lower() for value in self.get(name)}
        if not values:
            return default
        if values <= _TRUE:
            return True
        if values <= _FALSE:
            return False
        raise InvalidFilterValue(name=name, value=" ".join(self.get(name)))

    def exact(self, name: str, candidate: str) -> bool:
        """Whether `candidate` is one of the values."""
        return name not in self.terms or candidate in self.terms[name]

    def prefix(self, name: str, candidate: str) -> bool:
        """Whether `candidate` starts with one of the values."""
        return name not in self.terms or candidate.startswith(self.terms[name])

    def pattern(self, name: str, candidate: str) -> bool:
        """Whether a value equals `candidate` or is a regular expression found in it; raises InvalidFilterValue."""
        if name not in self.terms or candidate in self.terms[name]:
            return True
        return any(_compile(name, value)(candidate) for value in self.terms[name])

    def key_values(self, name: str, candidate: Mapping[str, str]) -> bool:
        """Whether all the values, `key` or `key=value`, are in the map: how `label` is matched."""
        for term in self.get(name):
            key, equals, value = term.partition("=")
            if key not in candidate or (equals and candidate[key] != value):
                return False
        return True

    def lacks_key_values(self, name: str, candidate: Mapping[str, str]) -> bool:
        """Whether none of the values is in the map: how `label!` is matched."""
        return not any(Filters({name: (term,)}).key_values(name, candidate) for term in self.get(name))


def pruned_before_ns(filters: Filters, now_ns: int) -> int | None:
    """`until` of a prune: what was made later stays, in nanoseconds since 1970; None: whatever its age.

    Raises SeveralUntil, BadTime.
    """
    values = filters.get("until")
    if len(values) > 1:
        raise SeveralUntil
    return parse_moment(values[0], now_ns=now_ns) if values else None


def _parse_terms(text: str) -> dict[str, tuple[str, ...]]:
    try:
        raw = msgspec.json.decode(text, type=dict[str, dict[str, bool | None] | list[str] | None])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InvalidFilter from error
    return {name: tuple(values) for name, values in raw.items() if values}


@lru_cache(maxsize=64)
def _compile(name: str, pattern: str) -> Callable[[str], object]:
    """The search function of a pattern; refuses what backtracking could make run for ever."""
    if len(pattern) > _MAX_PATTERN or _is_explosive(pattern):
        raise InvalidFilterValue(name=name, value=pattern[:_MAX_PATTERN])
    try:
        return re.compile(pattern).search
    except (re.error, RecursionError, OverflowError) as error:
        raise InvalidFilterValue(name=name, value=pattern) from error


def _is_explosive(pattern: str) -> bool:
    """Whether matching could take more than the cube of the text's length: Go's regexp is linear, Python's is not.

    Refused are a repetition of a group that repeats, references, lookaround, and more than three repetitions.
    """
    repetitions = len(_REPETITION.findall(pattern))
    return repetitions > _MAX_REPETITIONS or any(shape.search(pattern) for shape in _EXPLOSIVE)
