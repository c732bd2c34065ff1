"""The caller's terminal: raw mode and back, its size, the keys that detach."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any

DETACH_KEYS = "ctrl-p,ctrl-q"
_CONTROL = {"@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31}


def size() -> tuple[int, int] | None:
    """(rows, columns) of the terminal on stdout or stdin; None when there is none."""
    for fd in (1, 0, 2):
        try:
            columns, rows = os.get_terminal_size(fd)
        except OSError:
            continue
        return rows, columns
    return None


class Raw:
    """Raw mode for the terminal on `fd` while the block runs; the old mode comes back however it ends."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._saved: list[Any] | None = None

    def __enter__(self) -> Raw:
        import termios  # noqa: PLC0415 - only terminals need it

        self._saved = termios.tcgetattr(self.fd)
        mode = termios.tcgetattr(self.fd)
        # cfmakeraw(3), but VMIN=1 so that a read waits for a byte.
        mode[0] &= ~(
            termios.IGNBRK
            | termios.BRKINT
            | termios.PARMRK
            | termios.ISTRIP
            | termios.INLCR
            | termios.IGNCR
            | termios.ICRNL
            | termios.IXON
        )
        mode[1] &= ~termios.OPOST
        mode[2] = mode[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
        mode[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
        mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
        termios.tcsetattr(self.fd, termios.TCSADRAIN, mode)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import termios  # noqa: PLC0415

        if self._saved is not None:
            termios.tcsetattr(self.fd, termios.TCSADRAIN, self._saved)


def parse_detach_keys(text: str) -> bytes:
    """`ctrl-p,ctrl-q` or `a,ctrl-x` -> the bytes those keys send. ValueError for a key that does not exist."""
    codes: list[int] = []
    for key in text.split(","):
        letter = key.lower().removeprefix("ctrl-")
        if len(key) == 1 and ord(key) < 128:
            codes.append(ord(key))
        elif letter != key.lower() and len(letter) == 1 and "a" <= letter <= "z":
            codes.append(ord(letter) - ord("a") + 1)
        elif letter != key.lower() and letter in _CONTROL:
            codes.append(_CONTROL[letter])
        else:
            raise ValueError(f"invalid escape keys ({text}) provided: Unknown character: '{key}'")
    return bytes(codes)


class DetachKeys:
    """Watches what is typed for the detach sequence, across reads."""

    def __init__(self, sequence: bytes) -> None:
        self.sequence = sequence
        self._matched = 0

    def seen(self, data: bytes) -> int:
        """How many bytes of `data` go up to and including the completed sequence; 0 when it is not complete."""
        for index, byte in enumerate(data):
            if byte == self.sequence[self._matched]:
                self._matched += 1
                if self._matched == len(self.sequence):
                    self._matched = 0
                    return index + 1
            else:
                self._matched = int(byte == self.sequence[0])
        return 0
