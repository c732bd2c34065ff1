"""Log files that have been rotated away, compressed: `path.N` becomes `path.N.gz`.

The work of a process of its own (`monitor.compressor`), which needs neither a monitor nor a daemon and may be killed at
any moment: what it writes has no name until it is whole and on the disk, so nothing half is ever seen and nothing is
left. The file is gzip (RFC 1952) with an extra field that says which inode it was, so that a follower who was reading
that one knows where to go on. Files that it finds plain, it compresses, the newest first: on a log that grows faster
than that, older ones are rotated away soon.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import zlib
from collections.abc import Iterator

SUFFIX = ".gz"
HEADER = struct.Struct("<4sIHH2sHQ")
"""Magic, method and flags; time; extra flags and system; length of the extra field; its name, its length, the inode."""
MAGIC = b"\x1f\x8b\x08\x04"
UNIX = 3 << 8
FIELD = b"Pr"
_CHUNK = 128 * 1024
_OWN_NICE = 19


def pending(path: str, max_files: int) -> bool:
    """Is there a file that should be compressed and is not?"""
    return any(os.path.exists(f"{path}.{number}") for number in range(1, max_files))


def compress_rotated(path: str, max_files: int) -> None:
    """Compress `path.1` to `path.(max_files - 1)`, those that are there and are not compressed. Raises OSError."""
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    name = os.path.basename(path)
    os.setpriority(os.PRIO_PROCESS, 0, _OWN_NICE)
    try:
        while (plain := _newest_plain(folder, name, max_files)) is not None:
            try:
                _compress(folder, name, max_files, plain)
            finally:
                os.close(plain)
    finally:
        os.close(folder)


def _newest_plain(folder: int, name: str, max_files: int) -> int | None:
    for number in range(1, max_files):
        with contextlib.suppress(FileNotFoundError):
            return os.open(f"{name}.{number}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    return None


def _compress(folder: int, name: str, max_files: int, plain: int) -> None:
    target = os.open(".", os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o640, dir_fd=folder)
    try:
        _deflate(plain, target)
        os.fsync(target)
        _put_in_place(folder, name, max_files, plain, target)
    finally:
        os.close(target)


def _deflate(plain: int, target: int) -> None:
    info = os.fstat(plain)
    run = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    check = size = 0
    _write(target, HEADER.pack(MAGIC, int(info.st_mtime), UNIX, 12, FIELD, 8, info.st_ino))
    while data := os.read(plain, _CHUNK):
        check, size = zlib.crc32(data, check), size + len(data)
        _write(target, run.compress(data))
    _write(target, run.flush() + struct.pack("<II", check, size & 0xFFFFFFFF))


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _put_in_place(folder: int, name: str, max_files: int, plain: int, target: int) -> None:
    """Give the compressed file the name of the plain one, wherever that is by now; it may be nowhere."""
    number_of_plain = os.fstat(plain).st_ino
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, 0)  # the monitor does not rotate while this is going on
    with renaming(folder, wait=True):
        for number in range(1, max_files):
            with contextlib.suppress(FileNotFoundError):
                found = os.stat(f"{name}.{number}", dir_fd=folder, follow_symlinks=False)
                if found.st_ino == number_of_plain:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(f"{name}.{number}{SUFFIX}", dir_fd=folder)
                    os.link(f"/proc/self/fd/{target}", f"{name}.{number}{SUFFIX}", dst_dir_fd=folder)
                    os.unlink(f"{name}.{number}", dir_fd=folder)
                    break
    os.setpriority(os.PRIO_PROCESS, 0, _OWN_NICE)


@contextlib.contextmanager
def renaming(folder: int, *, wait: bool) -> Iterator[None]:
    """Nobody else gives the log's files other names meanwhile. Raises BlockingIOError where one must not wait."""
    fcntl.flock(folder, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        yield
    finally:
        fcntl.flock(folder, fcntl.LOCK_UN)


def inode_before(head: bytes) -> int | None:
    """Of the first bytes of a compressed file: the inode of the plain one; None where they do not say."""
    if len(head) < HEADER.size:
        return None
    magic, _, _, _, field, _, inode = HEADER.unpack_from(head)
    return inode if (magic, field) == (MAGIC, FIELD) else None
