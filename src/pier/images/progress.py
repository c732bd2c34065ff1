"""Progress as Docker's clients expect it: JSON messages with numbers, and a bar made ready for old clients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from pier.storage.stream import Reader

Message = dict[str, Any]
"""One JSON message of a stream: `status`, `progressDetail`, `progress`, `id`, or `stream`."""

BAR_WIDTH: Final = 50
STEP_BYTES: Final = 512 << 10
"""A message is sent each time this much more has passed, as Docker does."""


def retrying(delay_s: float) -> str:
    """What a layer's stage is called while its next attempt is waited for."""
    seconds = max(1, round(delay_s))
    return f"Retrying in {seconds} second{'' if seconds == 1 else 's'}"


def status(text: str, id: str = "") -> Message:
    """A line that stands on its own, or belongs to `id`."""
    return {"status": text, "id": id} if id else {"status": text}


def stream(text: str) -> Message:
    """A line of plain output."""
    return {"stream": f"{text}\n"}


def layer(text: str, id: str) -> Message:
    """What is going on with a layer, without numbers."""
    return {"status": text, "progressDetail": {}, "id": id}


def advance(text: str, id: str, current: int, total: int) -> Message:
    """How far a layer has come; sizes in bytes."""
    detail = {"current": current, "total": total}
    return {"status": text, "progressDetail": detail, "progress": bar(current, total), "id": id}


def bar(current: int, total: int) -> str:
    """`[=====>      ]  1.2MB/9.4MB`; only the number where no total is known."""
    if total <= 0:
        return f"{size(current):>8}"
    filled = min(BAR_WIDTH, BAR_WIDTH * current // total)
    return f"[{'=' * filled}>{' ' * (BAR_WIDTH - filled)}] {size(current):>8}/{size(total)}"


_UNITS: Final = ("B", "kB", "MB", "GB", "TB", "PB")


def size(count: int) -> str:
    """Four significant digits with a decimal unit: `2.294MB`."""
    value, unit = float(count), 0
    while value >= 1000.0 and unit < len(_UNITS) - 1:
        value /= 1000.0
        unit += 1
    return f"{value:.4g}{_UNITS[unit]}"


class Counted:
    """A reader that reports how far it has come, in bytes of `total`."""

    def __init__(self, source: Reader, total: int, report: Callable[[int, int], None]) -> None:
        self._source = source
        self._total = total
        self._report = report
        self._current = 0
        self._reported = 0

    def read(self, size: int = -1, /) -> bytes:
        data = self._source.read(size)
        self._current += len(data)
        ended = self._current == self._total and self._reported != self._total
        if ended or self._current - self._reported >= STEP_BYTES:
            self._reported = self._current
            self._report(self._current, self._total)
        return data
