"""What `pier-runtime` writes: its log as runc's, JSON on many lines, tables."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Any


def dump(value: Any) -> str:
    """JSON on one line."""
    return json.dumps(value, separators=(",", ":"))


def pretty(value: Any, indent: str = "  ", level: int = 0) -> str:
    """JSON with one entry a line, as Go's MarshalIndent writes it."""
    if not isinstance(value, (dict, list)) or not value:
        return dump(value)
    inner = indent * (level + 1)
    if isinstance(value, dict):
        entries = [f"{dump(key)}: {pretty(entry, indent, level + 1)}" for key, entry in value.items()]
        opening, closing = "{}"
    else:
        entries = [pretty(entry, indent, level + 1) for entry in value]
        opening, closing = "[]"
    lines = ",\n".join(inner + entry for entry in entries)
    return f"{opening}\n{lines}\n{indent * level}{closing}"


def table(rows: Sequence[Sequence[str]], *, least: int = 12, gap: int = 1) -> str:
    """Columns as wide as their widest cell, at least `least`; the last one is not padded."""
    widths = [max(least, *(len(row[at]) + gap for row in rows)) for at in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)]
        lines.append("".join([*cells, row[-1]]).rstrip() + "\n")
    return "".join(lines)


class Log:
    """Messages for people on standard error, or for the program above us in a file (`--log`, `--log-format`)."""

    def __init__(self, path: str = "", form: str = "text", *, debug: bool = False) -> None:
        self._path = path
        self._json = form == "json"
        self._debug = debug

    def debug(self, text: str) -> None:
        if self._debug:
            self._write("debug", text)

    def warning(self, text: str) -> None:
        self._write("warning", text)

    def fatal(self, text: str) -> None:
        """The one sentence why the command failed: in the log, and on standard error too."""
        self._write("error", text)
        if self._path:
            sys.stderr.write(f"{text}\n")

    def _write(self, level: str, text: str) -> None:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        line = (
            f'{{"level":"{level}","msg":{dump(text)},"time":"{now}"}}\n'
            if self._json
            else f'time="{now}" level={level} msg={_word(text)}\n'
        )
        if not self._path:
            sys.stderr.write(line)
            return
        fd = self._open()
        try:
            os.write(fd, line.encode("utf-8", "surrogateescape"))
        finally:
            os.close(fd)

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def check(self) -> None:
        """Raises OSError where the log's file cannot be written."""
        if self._path:
            os.close(self._open())


def _word(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
