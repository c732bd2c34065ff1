"""What a step's process prints, told in whole lines where it can be.

Programs write a line in pieces (busybox's shell: `/bin/sh: `, then the rest). Told as they come, the pieces would each
be a message, and buildx 0.13, which keeps the last messages of a step for its summary of a failure, keeps one piece.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

PATIENCE_S: Final = 0.1
"""How long the beginning of a line may wait for its end: a prompt or a progress bar has none."""
HELD_MAX_BYTES: Final = 64 << 10


class Printing:
    """The output of one process; `tell(stream, data)` gets it in the order it came in."""

    def __init__(self, tell: Callable[[int, bytes], None]) -> None:
        self._tell = tell
        self._stream = 0
        self._held = b""
        self._timer: asyncio.TimerHandle | None = None

    def take(self, stream: int, data: bytes) -> None:
        """More of a stream."""
        if stream != self._stream:
            self.flush()
            self._stream = stream
        self._held += data
        whole = self._held.rfind(b"\n") + 1
        if len(self._held) - whole > HELD_MAX_BYTES:
            whole = len(self._held)
        if whole:
            self._tell(stream, self._held[:whole])
            self._held = self._held[whole:]
        if self._held and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PATIENCE_S, self.flush)

    def flush(self) -> None:
        """Tell what is held; also the end."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._held:
            self._tell(self._stream, self._held)
            self._held = b""
