"""Files that are whole or not there, whenever the power goes: write, fsync, rename, fsync of the directory."""

from __future__ import annotations

import ctypes
import os

from pier.kernel.syscalls import libc, raise_errno
from pier.storage.faults import point

libc.syncfs.argtypes = (ctypes.c_int,)


def fsync_dir(path: str) -> None:
    """Make the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def syncfs(fd: int) -> None:
    """Write everything dirty on the file system of `fd` (syncfs(2)): one call for a tree of many files."""
    if libc.syncfs(fd) < 0:
        raise_errno("syncfs")


def write_file(path: str, data: bytes, *, mode: int = 0o600, durable: bool = True) -> None:
    """Replace a file by `data` at once; readers see the old or the new, whole."""
    fresh = f"{path}.new"
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        point("index-written")
        if durable:
            os.fsync(fd)
            point("index-flushed")
    except BaseException:
        os.unlink(fresh)
        raise
    finally:
        os.close(fd)
    os.rename(fresh, path)
    point("index-named")
    if durable:
        fsync_dir(os.path.dirname(path))
