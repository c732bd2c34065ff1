"""The JSON stream of pull, load and import for people: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os

from pier.cli.errors import Failure
from pier.cli.jsontext import loads
from pier.cli.out import encode, write
from pier.cli.units import human_size, rfc3339_nano

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

_BAR = 50


def show(lines: Iterable[bytes], fd: int, on_aux: Callable[[Any], None] = lambda aux: None) -> None:
    """Write every message of the stream to `fd`. Failure for an error message; `on_aux` gets the machine's part."""
    screen = _Screen(fd) if os.isatty(fd) else None
    for text in lines:
        message = loads(text)
        if error := message.get("errorDetail") or message.get("error"):
            raise Failure(error.get("message", "") if isinstance(error, dict) else str(error))
        if "aux" in message:
            on_aux(message["aux"])
            continue
        if screen:
            screen.message(message)
        elif plain := plain_text(message):
            write(fd, encode(plain))


def plain_text(message: dict[str, Any]) -> str:
    """One message without a terminal; "" for progress, which is only worth showing where it can be overwritten."""
    detail = message.get("progressDetail") or {}
    if detail.get("current") or detail.get("total") or message.get("progress"):
        return ""
    prefix = _prefix(message)
    if "stream" in message:
        return prefix + str(message["stream"])
    return f"{prefix}{message.get('status', '')}\n"


def _prefix(message: dict[str, Any]) -> str:
    parts = []
    if nanoseconds := message.get("timeNano"):
        parts.append(rfc3339_nano(nanoseconds) + " ")
    elif seconds := message.get("time"):
        parts.append(rfc3339_nano(seconds * 1_000_000_000) + " ")
    if message.get("id"):
        parts.append(f"{message['id']}: ")
    if message.get("from"):
        parts.append(f"(from {message['from']}) ")
    return "".join(parts)


def bar(detail: dict[str, Any], columns: int) -> str:
    """`[=====>    ]  1.5MB/3MB` for {current, total} in bytes, as wide as `columns` allow."""
    current: int = detail.get("current", 0)
    total: int = detail.get("total", 0)
    if current <= 0 and total <= 0:
        return ""
    if total <= 0:
        return human_size(current)
    current = min(current, total)
    figures = f"{human_size(current):>8}/{human_size(total)}"
    if columns <= 110:
        return figures
    done = current * _BAR // total
    return "[" + "=" * done + ">" * (done < _BAR) + " " * (_BAR - done - 1) + "]  " + figures


class _Screen:
    """One line a layer, overwritten in place."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.rows: dict[str, int] = {}
        try:
            self.columns = os.get_terminal_size(fd).columns
        except OSError:
            self.columns = 80

    def message(self, message: dict[str, Any]) -> None:
        identifier = message.get("id")
        detail = message.get("progressDetail")
        if not identifier or (detail is None and not message.get("progress")):
            self.rows.clear()
            write(self.fd, encode(plain_text(message)))
            return
        if identifier not in self.rows:
            self.rows[identifier] = len(self.rows)
            write(self.fd, b"\n")
        up = len(self.rows) - self.rows[identifier]
        text = f"{identifier}: {message.get('status', '')} {bar(detail or {}, self.columns)}".rstrip()
        write(self.fd, encode(f"\x1b[{up}A\x1b[2K\r{text}\x1b[{up}B\r"))
