"""The word somebody probably meant."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

MAX_DISTANCE: Final = 2
MAX_LENGTH: Final = 200


def nearest(word: str, known: Iterable[str], *, ignore_case: bool = False) -> str:
    """The known word at the smallest edit distance, at most MAX_DISTANCE.

    Empty where none is near, or where `word` itself is known.
    """
    best, best_distance = "", MAX_DISTANCE + 1
    wanted = word.lower() if ignore_case else word
    if len(wanted) > MAX_LENGTH:
        return ""
    for candidate in known:
        distance = _distance(wanted, candidate.lower() if ignore_case else candidate, best_distance)
        if distance == 0:
            return ""
        if distance < best_distance:
            best, best_distance = candidate, distance
    return best


def _distance(one: str, other: str, limit: int) -> int:
    """The edit distance of Levenshtein, or `limit` where it is no smaller than that."""
    if abs(len(one) - len(other)) >= limit:
        return limit
    row = list(range(len(other) + 1))
    for above, char in enumerate(one, 1):
        diagonal, row[0] = row[0], above
        for column, against in enumerate(other, 1):
            diagonal, row[column] = row[column], min(row[column] + 1, row[column - 1] + 1, diagonal + (char != against))
        if min(row) >= limit:
            return limit
    return min(row[-1], limit)
