"""The json-file log as the monitor writes it: Docker's format, a JSON object a line, rotated by size.

`{"log":"text\\n","stream":"stdout","time":"2026-01-02T03:04:05.000000006Z"}`. A line of output longer than 16 KiB is
several objects, of which only the last ends in a newline.
"""

from __future__ import annotations

import contextlib
import os
import time
from json.encoder import encode_basestring

PARTIAL_MAX = 16 * 1024
"""Docker's copier splits longer lines here; readers join them again."""


def rfc3339(time_ns: int) -> str:
    """UTC with all nine digits, as Docker's log reader accepts it."""
    seconds, nanoseconds = divmod(time_ns, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{nanoseconds:09d}Z"


class JsonFileLog:
    """Appends to `path`; keeps `max_files` files of about `max_size` bytes (0: one file without end)."""

    def __init__(self, path: str, max_size: int = 0, max_files: int = 1) -> None:
        self._path = path
        self._max_size = max_size
        self._max_files = max(1, max_files)
        self._partial: dict[str, bytes] = {}
        self._open()

    def _open(self) -> None:
        self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
        self._size = os.fstat(self._fd).st_size

    def write(self, stream: str, data: bytes) -> None:
        """Log what a process wrote to `stream` (`stdout`, `stderr`). Raises OSError (ENOSPC: nothing torn is left)."""
        held = self._partial.pop(stream, b"")
        lines = (held + data).split(b"\n")
        rest = lines.pop()
        records = [line + b"\n" for line in lines]
        pieces = [record[at : at + PARTIAL_MAX] for record in records for at in range(0, len(record), PARTIAL_MAX)]
        while len(rest) >= PARTIAL_MAX:
            pieces.append(rest[:PARTIAL_MAX])
            rest = rest[PARTIAL_MAX:]
        if rest:
            self._partial[stream] = rest
        if pieces:
            self._append(stream, pieces)

    def flush(self) -> None:
        """Write the unfinished last lines, when their streams have ended."""
        for stream, rest in list(self._partial.items()):
            self._append(stream, [rest])
        self._partial.clear()

    def _append(self, stream: str, pieces: list[bytes]) -> None:
        tail = f',"stream":"{stream}","time":"{rfc3339(time.time_ns())}"}}\n'
        text = "".join(
            ['{"log":' + encode_basestring(piece.decode("utf-8", "replace")) + tail for piece in pieces]
        ).encode()
        if self._max_size and self._size and self._size + len(text) > self._max_size:
            self._rotate()
        self._write_whole(text)

    def _write_whole(self, text: bytes) -> None:
        start = self._size
        view = memoryview(text)
        try:
            while view:
                written = os.write(self._fd, view)
                self._size += written
                view = view[written:]
        except OSError:
            with contextlib.suppress(OSError):  # a torn line would cost the reader the lines around it
                os.ftruncate(self._fd, start)
                self._size = start
            raise

    def _rotate(self) -> None:
        os.close(self._fd)
        if self._max_files == 1:
            os.unlink(self._path)
        for number in range(self._max_files - 1, 0, -1):
            older = f"{self._path}.{number}"
            newer = self._path if number == 1 else f"{self._path}.{number - 1}"
            with contextlib.suppress(FileNotFoundError):
                os.rename(newer, older)
        self._open()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.flush()
        os.close(self._fd)
