"""A file that records are appended to whole, and that gives way to a new one when it is full.

`path` is the newest, `path.1`, `path.2`, … are older ones, or `path.1.gz`, … once they are compressed. A write that
fails half-way is cut back: a reader never meets a torn record, and the next one is not lost to it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from pier.runtime.log.compress import SUFFIX, pending, renaming

Mend = Callable[[int, int], int]
"""(descriptor, size) -> the size up to which the file is whole: a monitor that was killed may have left a torn end."""


class RotatingFile:
    """Keeps `max_files` files of at most `max_size` bytes each (0: one file without end)."""

    def __init__(
        self, path: str, max_size: int, max_files: int, mend: Mend, on_rotated: Callable[[], None] | None = None
    ) -> None:
        """`on_rotated` is called when there is something to compress; it must not block."""
        self._path = path
        self._max_size = max_size
        self._max_files = max(1, max_files)
        self._on_rotated = on_rotated
        self._open()
        whole = mend(self._fd, self._size)
        if whole != self._size:
            self._cut_back(whole)
        if on_rotated is not None and pending(path, max_files):  # whoever was at it has been killed
            on_rotated()

    def _open(self) -> None:
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
        self._size = os.fstat(self._fd).st_size

    def fits(self, size: int) -> bool:
        """Can so many bytes be appended to the present file?"""
        return not self._max_size or self._size + size <= self._max_size

    def append(self, record: bytes) -> None:
        """Write a record whole, in a new file where it does not fit. Raises OSError; then none of it is there."""
        if self._size and not self.fits(len(record)):
            self._size = os.fstat(self._fd).st_size  # the daemon may have emptied it (`pier logs --truncate`)
            if self._size and not self.fits(len(record)):
                self._rotate()
        start = self._size
        try:
            self._size += os.write(self._fd, record)
            while self._size - start < len(record):  # a full disk takes a part, and refuses the next
                self._size += os.write(self._fd, record[self._size - start :])
        except OSError:
            self._cut_back(os.fstat(self._fd).st_size - (self._size - start))
            raise

    def _cut_back(self, size: int) -> None:
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, size)
            self._size = size

    def _rotate(self) -> None:
        """Give every file the next number. While one of them is just being replaced the present one goes on a little:
        to wait could be to wait for a process that is stopped."""
        if self._on_rotated is None:
            self._shift()
            return
        folder = os.open(os.path.dirname(self._path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with renaming(folder, wait=False):
                self._shift()
        except BlockingIOError:
            return
        finally:
            os.close(folder)
        self._on_rotated()

    def _shift(self) -> None:
        os.close(self._fd)
        last = self._max_files - 1
        for name in (f"{self._path}.{last}", f"{self._path}.{last}{SUFFIX}") if last else (self._path,):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
        for number in range(last, 0, -1):
            newer = self._path if number == 1 else f"{self._path}.{number - 1}"
            for suffix in ("", SUFFIX) if number > 1 else ("",):
                with contextlib.suppress(FileNotFoundError):
                    os.rename(f"{newer}{suffix}", f"{self._path}.{number}{suffix}")
        self._open()

    def close(self) -> None:
        os.close(self._fd)
