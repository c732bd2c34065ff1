"""A container's log as the monitor writes it: its output cut into lines, encoded for the driver, rotated by size."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import NamedTuple

from pier.runtime.log import json_file, lines, local
from pier.runtime.log.forward import Forward
from pier.runtime.log.rotation import Mend, RotatingFile
from pier.runtime.request import LogFile


class Format(NamedTuple):
    """How a driver writes."""

    encode: Callable[[str, bytes, int], bytes]
    """(stream, piece, time_ns) -> the bytes to append."""
    run_max: int
    """How many bytes of whole lines are encoded at once."""
    mend: Mend


FORMATS = {
    "json-file": Format(json_file.encode, json_file.RUN_MAX, json_file.mend),
    "local": Format(local.encode, local.RUN_MAX, local.mend),
}


class Log:
    """One open log. Its cost is per chunk of output, not per line: all lines of a chunk bear one time."""

    def __init__(self, kept: LogFile, on_rotated: Callable[[], None] | None = None) -> None:
        """`on_rotated` as `RotatingFile` has it; of use where the log is to be compressed."""
        encode, self._run_max, mend = FORMATS[kept.driver]
        self._encode = json_file.with_attributes(kept.attrs) if kept.attrs else encode
        self._file = (
            RotatingFile(kept.path, kept.max_size_bytes, kept.max_files, mend, on_rotated) if kept.path else None
        )
        self._forward = Forward(kept.forward) if kept.forward else None
        self._unfinished: dict[str, bytes] = {}

    def write(self, stream: str, data: bytes) -> None:
        """Log what a process wrote to `stream` (`stdout`, `stderr`). Raises OSError (ENOSPC: nothing torn is left)."""
        pieces, rest = lines.cut(self._unfinished.pop(stream, b"") + data, self._run_max)
        if rest:
            self._unfinished[stream] = rest
        time_ns = time.time_ns()
        for piece in pieces:
            self._append(stream, piece, time_ns)

    def _append(self, stream: str, piece: bytes, time_ns: int) -> None:
        if self._forward is not None:
            self._forward.send(stream, piece, time_ns)
        if self._file is None:
            return
        record = self._encode(stream, piece, time_ns)
        if self._file.fits(len(record)):
            self._file.append(record)
            return
        for line in lines.single(piece):  # the first of them may still fit, and the rest may be more than a file takes
            self._file.append(self._encode(stream, line, time_ns))

    def flush(self) -> None:
        """Write the unfinished last lines, when their streams have ended."""
        unfinished, self._unfinished = self._unfinished, {}
        for stream, rest in unfinished.items():
            self._append(stream, rest, time.time_ns())

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.flush()
        if self._file is not None:
            self._file.close()
        if self._forward is not None:
            self._forward.close()
