"""Copy a directory's content into a fresh tmpfs (the mount option `tmpcopyup`), by descriptor only."""

from __future__ import annotations

import os
import stat

from pier.kernel.paths import closing

DEPTH_MAX = 200
CHUNK = 1 << 20


def copy_tree(source_fd: int, target_fd: int, depth: int = 0) -> None:
    """Copy what is below `source_fd` to below `target_fd`: owners, modes, times, links and nodes. Raises OSError.

    Neither descriptor need be readable; no symbolic link is followed, no other file system entered by one.
    """
    if depth > DEPTH_MAX:
        raise OSError(f"tmpcopyup: directories are nested deeper than {DEPTH_MAX} levels")
    with closing(os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=source_fd)) as readable:
        for name in os.listdir(readable):
            _copy_entry(readable, target_fd, name, depth)
        info = os.fstat(readable)
    with closing(os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=target_fd)) as own:
        os.fchown(own, info.st_uid, info.st_gid)
        os.fchmod(own, stat.S_IMODE(info.st_mode))
        os.utime(own, ns=(info.st_atime_ns, info.st_mtime_ns))


def _copy_entry(source_fd: int, target_fd: int, name: str, depth: int) -> None:
    info = os.stat(name, dir_fd=source_fd, follow_symlinks=False)
    if stat.S_ISDIR(info.st_mode):
        os.mkdir(name, 0o700, dir_fd=target_fd)
        flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        with (
            closing(os.open(name, flags, dir_fd=source_fd)) as below,
            closing(os.open(name, flags, dir_fd=target_fd)) as copy,
        ):
            copy_tree(below, copy, depth + 1)
        return
    if stat.S_ISREG(info.st_mode):
        _copy_file(source_fd, target_fd, name)
    elif stat.S_ISLNK(info.st_mode):
        os.symlink(os.readlink(name, dir_fd=source_fd), name, dir_fd=target_fd)
    else:
        os.mknod(name, info.st_mode, info.st_rdev, dir_fd=target_fd)
    os.chown(name, info.st_uid, info.st_gid, dir_fd=target_fd, follow_symlinks=False)
    if not stat.S_ISLNK(info.st_mode):
        os.chmod(name, stat.S_IMODE(info.st_mode), dir_fd=target_fd)
    os.utime(name, ns=(info.st_atime_ns, info.st_mtime_ns), dir_fd=target_fd, follow_symlinks=False)


def _copy_file(source_fd: int, target_fd: int, name: str) -> None:
    reading = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    writing = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with (
        closing(os.open(name, reading, dir_fd=source_fd)) as source,
        closing(os.open(name, writing, 0o600, dir_fd=target_fd)) as target,
    ):
        while os.sendfile(target, source, None, CHUNK):
            pass
