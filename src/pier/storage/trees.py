"""Whole directory trees that containers wrote: removed and measured by descriptor, whatever is in them.

Neither depth (a container can nest directories far beyond PATH_MAX), nor names, links or attributes that keep a file
(chattr +i) stand in the way, and no symbolic link is followed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

FS_IOC_GETFLAGS: Final = 0x80086601
FS_IOC_SETFLAGS: Final = 0x40086602
FS_IMMUTABLE_FL: Final = 0x10
FS_APPEND_FL: Final = 0x20
FS_TOPDIR_FL: Final = 0x20000

DEPTH_MAX: Final = 64
"""Directories held open at once; deeper ones are moved up first."""
MEASURED_DEPTH: Final = 256
INLINE_MAX: Final = 4096
"""Bytes that a file system may keep without a block: a link's target, a small file in its inode."""
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(dir_fd: int, name: bytes) -> None:
    """Remove `name` in the directory `dir_fd` with everything below; one that is not there is no error.

    Raises OSError where the file system refuses even so (read-only, input/output error).
    """
    pending = [name]
    while pending:
        for parent_fd, deep in _remove_to_depth(dir_fd, pending.pop()):
            lifted = b".removing-" + secrets.token_hex(8).encode()
            _insist(partial(os.rename, deep, lifted, src_dir_fd=parent_fd, dst_dir_fd=dir_fd), parent_fd, deep)
            pending.append(lifted)


@dataclass(slots=True)
class _Frame:
    """A directory being removed: where it stands, itself, and the directories in it that are still to be removed."""

    parent_fd: int
    name: bytes
    fd: int
    below: list[bytes]


def _remove_to_depth(top_fd: int, name: bytes) -> Iterator[tuple[int, bytes]]:
    """Remove a tree; yield each directory at DEPTH_MAX (its parent and name), which the caller moves away."""
    if not _unlink(top_fd, name):
        return
    stack = [_enter(top_fd, name)]
    try:
        while stack:
            frame = stack[-1]
            if not frame.below:
                _insist(partial(os.rmdir, frame.name, dir_fd=frame.parent_fd), frame.parent_fd, frame.name)
                os.close(stack.pop().fd)
            elif len(stack) < DEPTH_MAX:
                stack.append(_enter(frame.fd, frame.below.pop()))
            else:
                yield frame.fd, frame.below.pop()
    finally:
        for frame in stack:
            os.close(frame.fd)


def _enter(parent_fd: int, name: bytes) -> _Frame:
    fd = os.open(name, _DIRECTORY, dir_fd=parent_fd)
    try:
        return _Frame(parent_fd, name, fd, _empty(fd))
    except BaseException:
        os.close(fd)
        raise


def _empty(fd: int) -> list[bytes]:
    """Unlink everything in a directory but its directories; returns the names of those."""
    with os.scandir(fd) as entries:
        listed = [(os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in entries]
    below = []
    for name, is_dir in listed:
        if is_dir:
            below.append(name)
        else:
            _unlink(fd, name)
    return below


def _unlink(dir_fd: int, name: bytes) -> bool:
    """Unlink a file; True where it is a directory and remains."""
    is_dir = False

    def attempt() -> None:
        nonlocal is_dir
        try:
            os.unlink(name, dir_fd=dir_fd)
        except FileNotFoundError:
            return
        except IsADirectoryError:
            is_dir = True

    _insist(attempt, dir_fd, name)
    return is_dir


def _insist(attempt: Callable[[], None], dir_fd: int, name: bytes) -> None:
    """Run `attempt`; where it is not permitted, clear the flags that keep files (chattr +i, +a) and run it again."""
    try:
        attempt()
    except PermissionError:
        _clear_flags(dir_fd)
        with contextlib.suppress(OSError):
            info = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
            if stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode):
                fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=dir_fd)
                try:
                    _clear_flags(fd)
                finally:
                    os.close(fd)
        attempt()


def _clear_flags(fd: int) -> None:
    _change_flags(fd, clear=FS_IMMUTABLE_FL | FS_APPEND_FL)


def _change_flags(fd: int, *, clear: int = 0, set: int = 0) -> None:
    """Change a file's flags (ioctl_iflags(2)), where the file system has such."""
    with contextlib.suppress(OSError):
        flags = bytearray(8)
        fcntl.ioctl(fd, FS_IOC_GETFLAGS, flags)
        value = int.from_bytes(flags[:4], "little") & ~clear | set
        fcntl.ioctl(fd, FS_IOC_SETFLAGS, value.to_bytes(4, "little") + bytes(4))


def spread(path: str) -> None:
    """Have each tree that is made in a directory stand in a place of its own on the disk (chattr(1), `T`), where that
    saves time: on ext4 without a journal, as machines for one job have it.

    There the inodes of files that were deleted in the last minutes are not used again, and are passed over one by one
    for each file that is made near them. With a journal the flag would only make directories dearer. Raises OSError.
    """
    fd = os.open(path, _DIRECTORY)
    try:
        if _is_without_journal(os.fstat(fd).st_dev):
            _change_flags(fd, set=FS_TOPDIR_FL)
    finally:
        os.close(fd)


def _is_without_journal(device: int) -> bool:
    """Whether a device has an ext4 that has none (the kernel's ABI/testing/sysfs-fs-ext4, `journal_task`)."""
    name = os.path.basename(os.path.realpath(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}"))
    try:
        with open(f"/sys/fs/ext4/{name}/journal_task", encoding="ascii") as task:
            return not task.read().strip().isdecimal()
    except OSError:
        return False


def tree_size(path: str) -> int:
    """Bytes of all files and links' targets below `path`, hard links once: as Docker counts a container's size, but
    for holes, which take nothing (T13).

    A tree that is being changed is measured as it is met; what vanishes counts nothing, nor does what lies deeper than
    MEASURED_DEPTH directories.
    """
    seen: set[tuple[int, int]] = set()
    try:
        stack = [(os.open(path, _DIRECTORY), list[str]())]
    except FileNotFoundError:
        return 0
    total = 0
    try:
        total += _measure(stack[0][0], stack[0][1], seen)
        while stack:
            fd, below = stack[-1]
            if not below or len(stack) > MEASURED_DEPTH:
                os.close(stack.pop()[0])
                continue
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                stack.append((os.open(below.pop(), _DIRECTORY, dir_fd=fd), []))
                total += _measure(*stack[-1], seen)
    finally:
        for fd, _ in stack:
            os.close(fd)
    return total


def _measure(fd: int, below: list[str], seen: set[tuple[int, int]]) -> int:
    """Bytes of what is directly in a directory; the directories in it are added to `below`."""
    total = 0
    with os.scandir(fd) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                info = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(info.st_mode):
                    below.append(entry.name)
                elif info.st_nlink == 1 or (info.st_dev, info.st_ino) not in seen:
                    if info.st_nlink > 1:
                        seen.add((info.st_dev, info.st_ino))
                    total += size_on_disk(info)
    return total


def size_on_disk(info: os.stat_result) -> int:
    """A file's length, or where it has holes what its blocks take (T13). Tiny files may live in their inode."""
    taken = info.st_blocks * 512
    return min(info.st_size, taken) if taken or info.st_size > INLINE_MAX else info.st_size
