"""Measurements taken in turn, and the few numbers that are said of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass
class Samples:
    """What was measured of one thing on one engine, in `Row.unit`."""

    values: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def least(self) -> float:
        return min(self.values)


@dataclass(frozen=True)
class Target:
    """What the project set itself: at most `limit`, in the row's unit or as a share of the column `of`."""

    text: str
    limit: float
    of: str | None = None


@dataclass
class Row:
    """One line of the results."""

    name: str
    unit: str
    columns: dict[str, Samples]
    target: Target | None = None
    subject: str = "pier"
    """The column that the target is about."""

    def share(self, of: str) -> float:
        """Pier's median as a share of another column's."""
        return self.columns[self.subject].median / self.columns[of].median

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without a target or without what it compares with."""
        if self.target is None:
            return None
        if self.target.of is None:
            return self.columns[self.subject].median <= self.target.limit
        return self.share(self.target.of) <= self.target.limit if self.target.of in self.columns else None


def in_turn(deeds: Mapping[str, Callable[[], float | None]], rounds: int, warm_up: int = 2) -> dict[str, Samples]:
    """Do each deed in turn (A B A B …), so that what else the machine does falls on all alike.

    A deed returns its own measurement, or None for the milliseconds that its call took.
    """
    samples = {name: Samples() for name in deeds}
    for number in range(rounds + warm_up):
        for name, deed in deeds.items():
            began = time.perf_counter()
            value = deed()
            took = (time.perf_counter() - began) * 1000
            if number >= warm_up:
                samples[name].values.append(took if value is None else value)
    return samples
