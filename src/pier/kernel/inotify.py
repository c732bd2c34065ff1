"""Changes of files, told by the kernel (inotify(7))."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator

from pier.kernel.syscalls import libc, raise_errno

IN_MODIFY = 0x002
IN_MOVED_TO = 0x080
IN_CREATE = 0x100
IN_Q_OVERFLOW = 0x4000
IN_IGNORED = 0x8000
IN_ONLYDIR = 0x1000000
IN_CLOEXEC = os.O_CLOEXEC
IN_NONBLOCK = os.O_NONBLOCK

_EVENT = struct.Struct("iIII")
_BUFFER_BYTES = 65536

libc.inotify_init1.argtypes = (ctypes.c_int,)
libc.inotify_add_watch.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)
libc.inotify_rm_watch.argtypes = (ctypes.c_int, ctypes.c_int)


def inotify_init() -> int:
    """A close-on-exec, non-blocking descriptor; readable when something has happened. Raises OSError (EMFILE)."""
    fd = int(libc.inotify_init1(IN_CLOEXEC | IN_NONBLOCK))
    if fd < 0:
        raise_errno("inotify_init1")
    return fd


def add_watch(fd: int, path: str, mask: int) -> int:
    """Watch a file or a directory; the same one gets the same number. Raises OSError (ENOSPC: too many watches)."""
    number = int(libc.inotify_add_watch(fd, os.fsencode(path), mask))
    if number < 0:
        raise_errno("inotify_add_watch", path)
    return number


def rm_watch(fd: int, number: int) -> None:
    """Raises OSError EINVAL where the watch has gone with its file."""
    if libc.inotify_rm_watch(fd, number) < 0:
        raise_errno("inotify_rm_watch", number)


def read_events(fd: int) -> Iterator[tuple[int, int]]:
    """(watch, mask) of what has happened by now; names are left out."""
    try:
        data = os.read(fd, _BUFFER_BYTES)
    except BlockingIOError:
        return
    at = 0
    while at < len(data):
        number, mask, _, length = _EVENT.unpack_from(data, at)
        at += _EVENT.size + length
        yield number, mask
