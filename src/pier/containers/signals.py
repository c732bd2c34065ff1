"""Signals by name and number, and how long a container may take to stop (signal(7))."""

from __future__ import annotations

import re
import signal

from pier.errors import InvalidParameter
from pier.model.container import ContainerConfig

NUMBERS = {name.removeprefix("SIG"): int(number) for name, number in signal.Signals.__members__.items()} | {
    **{f"RTMIN+{n}": 34 + n for n in range(16)},
    **{f"RTMAX-{n}": 64 - n for n in range(15)},
    "RTMIN": 34,
    "RTMAX": 64,
}
"""Name without SIG -> number; the real-time signals as the C library of most images counts them."""

DEFAULT_STOP_TIMEOUT_S = 10
HIGHEST = 64

_NUMBER = re.compile(r"[+-]?\d{1,9}", re.ASCII)


class InvalidSignal(InvalidParameter):
    """invalid signal: {text}"""


class UnsupportedSignal(InvalidParameter):
    """the linux daemon does not support signal {text}"""


def to_send(text: str) -> int:
    """As `parse`; a number that is none gets Docker's words for it. Raises InvalidSignal, UnsupportedSignal."""
    if _NUMBER.fullmatch(text) and int(text) != 0 and not 1 <= int(text) <= HIGHEST:
        raise UnsupportedSignal(text=str(int(text)))
    return parse(text)


def parse(text: str) -> int:
    """`KILL`, `SIGKILL`, `sigkill` or `9` as 9. Raises InvalidSignal."""
    if text.isascii() and text.isdigit() and len(text) <= 3:
        number = int(text)
        if not 1 <= number <= HIGHEST:
            raise InvalidSignal(text=text)
        return number
    number_or_none = NUMBERS.get(text.upper().removeprefix("SIG"))
    if number_or_none is None:
        raise InvalidSignal(text=text)
    return number_or_none


def stop_signal(config: ContainerConfig, asked: str = "") -> int:
    """The signal that asks this container to end: the caller's, the container's, or SIGTERM. Raises InvalidSignal."""
    text = asked or config.stop_signal
    return parse(text) if text else signal.SIGTERM


def wakes(config: ContainerConfig, number: int) -> bool:
    """Is a signal meant to end the container? Then it unpauses a paused one, and no policy starts it again.

    With a stop signal of its own only that one is, as with Docker.
    """
    return not config.stop_signal or number == parse(config.stop_signal)


def stop_timeout_s(config: ContainerConfig, asked: int | None = None) -> float | None:
    """Seconds to wait for the end before SIGKILL; None: for ever."""
    if asked is None:
        asked = DEFAULT_STOP_TIMEOUT_S if config.stop_timeout is None else config.stop_timeout
    return None if asked < 0 else float(asked)
