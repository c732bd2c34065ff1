"""A process of a monitor's that is the program now."""

from __future__ import annotations

import os

from pier.runtime.monitor.starting import Starting
from pier.runtime.monitor.streams import Streams


class Child:
    """A process that is the program now."""

    def __init__(self, started: Starting, streams: Streams) -> None:
        self.pid = started.pid
        self.pidfd = os.pidfd_open(started.pid)
        self.streams = streams
        self.exit_code: int | None = None
        self.finished_at_ns = 0
