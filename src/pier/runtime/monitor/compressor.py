"""Has rotated logs compressed in a process beside the monitor's, one at a time."""

from __future__ import annotations

import contextlib
import os
from typing import NoReturn

from pier.kernel import process
from pier.runtime.log.compress import compress_rotated
from pier.runtime.monitor.poll import READ, Poller

NAME = "pier-compress"


class Compressor:
    """Called when a file has been rotated away. A process that still works when the monitor ends goes on."""

    def __init__(self, poller: Poller, path: str, max_files: int) -> None:
        self._poller = poller
        self._path, self._max_files = path, max_files
        self._pid = 0
        self._again = False

    def __call__(self) -> None:
        """Fork a process that compresses what is there, or remember that there is more. Does not block."""
        if self._pid:
            self._again = True
            return
        with contextlib.suppress(OSError):  # no process to be had: the file stays as it is until the next one
            pid = os.fork()
            if pid == 0:
                _compress(self._path, self._max_files)
            self._pid = pid
            pidfd = os.pidfd_open(pid)
            self._poller.watch(pidfd, READ, lambda events: self._ended(pidfd))

    def _ended(self, pidfd: int) -> None:
        self._poller.forget(pidfd)
        os.close(pidfd)
        os.waitpid(self._pid, 0)
        self._pid = 0
        if self._again:
            self._again = False
            self()


def _compress(path: str, max_files: int) -> NoReturn:
    try:
        process.close_all_but([])
        process.set_name(NAME)
        compress_rotated(path, max_files)
    except BaseException:  # a full disk, a file system that has no nameless files: what is plain stays plain
        os._exit(1)
    os._exit(0)
