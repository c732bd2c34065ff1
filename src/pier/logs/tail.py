"""Where the last lines of one file begin."""

from __future__ import annotations

from typing import NamedTuple


class Tail(NamedTuple):
    offset: int
    """Of the record that holds the first of them."""
    found: int
    """How many there are, at most as many as were asked for."""
    skip: int = 0
    """How many lines of that record come before them."""
