"""What a log takes on the disk, and emptying it while it is written (trap T22). Blocking."""

from __future__ import annotations

import contextlib
import os

from pier.logs.files import files_of


def usage(path: str) -> tuple[int, int]:
    """(number of files, bytes on disk) of the log whose newest file is `path`."""
    sizes = []
    for name in files_of(path):
        with contextlib.suppress(FileNotFoundError):
            sizes.append(os.lstat(name).st_blocks * 512)
    return len(sizes), sum(sizes)


def truncate(path: str) -> int:
    """Empty a log and delete what was rotated away; returns the bytes that this frees. Raises OSError.

    The newest file stays the one that the monitor appends to (O_APPEND: it goes on at the new end).
    """
    freed = 0
    while older := [name for name in files_of(path) if name != path]:  # again: one may have been compressed meanwhile
        for name in older:
            with contextlib.suppress(FileNotFoundError):
                freed += os.lstat(name).st_blocks * 512
                os.unlink(name)
    with contextlib.suppress(FileNotFoundError):
        fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            freed += os.fstat(fd).st_blocks * 512
            os.ftruncate(fd, 0)
        finally:
            os.close(fd)
    return freed
