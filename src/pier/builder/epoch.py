"""SOURCE_DATE_EPOCH: the one time of all that a reproducible build makes (reproducible-builds.org)."""

from __future__ import annotations

from typing import Final

from pier.errors import InvalidParameter

__all__ = ["SOURCE_DATE_EPOCH", "BadEpoch", "parse_epoch"]

SOURCE_DATE_EPOCH: Final = "SOURCE_DATE_EPOCH"
DIGITS_MAX: Final = 11
"""Of the last second of the year 5138; a configuration's times end with the year 9999."""


class BadEpoch(InvalidParameter):
    """invalid {name}: {value}: seconds since 1970 are wanted"""


def parse_epoch(text: str, name: str = SOURCE_DATE_EPOCH) -> int | None:
    """Unix seconds; None where there is no text. `name`: of what has the text. Raises BadEpoch."""
    if not text:
        return None
    if not (text.isascii() and text.isdecimal()) or len(text) > DIGITS_MAX:
        raise BadEpoch(name=name, value=text)
    return int(text)
