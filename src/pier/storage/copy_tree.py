"""A directory tree copied by descriptor: by reference where the file system can (FICLONE), else by its data.

Owners, modes, times, xattrs, hard links, holes and special files are those of the original; nothing is followed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Callable
from typing import Final

from pier.storage.faults import point
from pier.storage.tree_tar import DEPTH_MAX, DIRECTORY_FLAGS, FILE_FLAGS, OVERLAY_XATTRS, Node, TreeTooDeep

FICLONE: Final = 0x40049409
"""ioctl_ficlone(2)"""
_NO_REFLINK: Final = frozenset({errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS})
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_SMALL: Final = 128 << 10
"""Bytes that are read and written at once."""

Owners = Callable[[int, int], tuple[int, int]]
"""(uid, gid) of the original -> those of the copy."""


def as_they_are(uid: int, gid: int) -> tuple[int, int]:
    return uid, gid


def copy_tree(source_fd: int, target_fd: int, owners: Owners = as_they_are) -> None:
    """Copy what is in one directory, and its attributes, onto another, which is empty.

    What vanishes or turns into something else meanwhile is passed over. Raises TreeTooDeep, OSError.
    """
    copy = _Copy(target_fd, owners)
    copy.directory(source_fd, target_fd, 0)
    copy.attributes(source_fd, target_fd, os.fstat(source_fd))


def copy_attributes(source_fd: int, target_fd: int, owners: Owners = as_they_are) -> None:
    """Owner, mode, xattrs and times of one file or directory onto another. Raises OSError."""
    _Copy(target_fd, owners).attributes(source_fd, target_fd, os.fstat(source_fd))


def can_clone(folder: str) -> bool:
    """Whether files in `folder` share their data with copies (xfs and btrfs, mostly)."""
    fd = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        copy = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, bytes(4096))
            return clone(fd, copy)
        finally:
            os.close(copy)
    finally:
        os.close(fd)


def clone(source_fd: int, target_fd: int) -> bool:
    """Make one file share the data of the other; False where the file system cannot."""
    try:
        fcntl.ioctl(target_fd, FICLONE, source_fd)
    except OSError as error:
        if error.errno not in _NO_REFLINK:
            raise
        return False
    return True


class _Copy:
    """One run: which inodes have been copied, and whether cloning works here."""

    def __init__(self, root_fd: int, owners: Owners) -> None:
        self._root_fd = root_fd
        self._owners = owners
        self._links: dict[tuple[int, int], bytes] = {}
        self._clones = True
        self._made_as = os.geteuid(), os.getegid()

    def directory(self, source_fd: int, target_fd: int, depth: int, at: bytes = b"") -> None:
        if depth == DEPTH_MAX:
            raise TreeTooDeep(path=os.fsdecode(at[:200]), depth=DEPTH_MAX)
        for name in sorted(map(os.fsencode, os.listdir(source_fd))):
            point("copy-entry")
            with contextlib.suppress(FileNotFoundError):
                info = os.stat(name, dir_fd=source_fd, follow_symlinks=False)
                if stat.S_ISDIR(info.st_mode):
                    self._below(source_fd, target_fd, name, depth, at)
                elif info.st_nlink == 1 or not self._link(info, at + name, target_fd, name):
                    self._entry(Node(at + name, source_fd, name, info), target_fd)

    def _below(self, source_fd: int, target_fd: int, name: bytes, depth: int, at: bytes) -> None:
        try:
            below = os.open(name, DIRECTORY_FLAGS, dir_fd=source_fd)
        except OSError as error:
            if error.errno in _TURNED:
                return
            raise
        try:
            os.mkdir(name, 0o700, dir_fd=target_fd)
            copy = os.open(name, DIRECTORY_FLAGS, dir_fd=target_fd)
            try:
                self.directory(below, copy, depth + 1, at + name + b"/")
                self.attributes(below, copy, os.fstat(below))
            finally:
                os.close(copy)
        finally:
            os.close(below)

    def _link(self, info: os.stat_result, path: bytes, target_fd: int, name: bytes) -> bool:
        """Make it a further name of what has been copied already; False: it is the first."""
        inode = info.st_dev, info.st_ino
        with contextlib.suppress(KeyError, FileNotFoundError):  # what vanished before it was copied is no first name
            first = self._links[inode]
            os.link(first, name, src_dir_fd=self._root_fd, dst_dir_fd=target_fd, follow_symlinks=False)
            return True
        self._links[inode] = path
        return False

    def _entry(self, node: Node, target_fd: int) -> None:
        info = node.info
        if stat.S_ISREG(info.st_mode):
            self._file(node, target_fd)
            return
        if stat.S_ISLNK(info.st_mode):
            os.symlink(os.readlink(node.name, dir_fd=node.dir_fd), node.name, dir_fd=target_fd)
        else:
            os.mknod(node.name, stat.S_IFMT(info.st_mode) | 0o600, info.st_rdev, dir_fd=target_fd)
        os.chown(node.name, *self._owners(info.st_uid, info.st_gid), dir_fd=target_fd, follow_symlinks=False)
        if not stat.S_ISLNK(info.st_mode):
            os.chmod(node.name, stat.S_IMODE(info.st_mode), dir_fd=target_fd)
        place = b"/proc/self/fd/%d/%s" % (target_fd, node.name)
        for key, value in node.all_xattrs().items():
            if not key.startswith(OVERLAY_XATTRS):
                os.setxattr(place, key, value, follow_symlinks=False)
        os.utime(node.name, ns=(info.st_atime_ns, info.st_mtime_ns), dir_fd=target_fd, follow_symlinks=False)

    def _file(self, node: Node, target_fd: int) -> None:
        try:
            source = os.open(node.name, FILE_FLAGS, dir_fd=node.dir_fd)
        except OSError as error:
            if error.errno in _TURNED:
                return
            raise
        try:
            info = os.fstat(source)  # of what is read, should the name be another's by now
            if not stat.S_ISREG(info.st_mode):
                return
            copy = os.open(node.name, _NEW, 0o600, dir_fd=target_fd)
            try:
                if not (self._clones and clone(source, copy)):
                    self._clones = False
                    _copy_whole(source, copy, info)
                self.attributes(source, copy, info)
            finally:
                os.close(copy)
        finally:
            os.close(source)

    def attributes(self, source_fd: int, target_fd: int, info: os.stat_result) -> None:
        """Owner before mode (chown clears set-id bits), mode before xattrs (an ACL changes what the mode shows)."""
        owner = self._owners(info.st_uid, info.st_gid)
        if owner != self._made_as or stat.S_ISDIR(info.st_mode):
            os.fchown(target_fd, *owner)
        os.fchmod(target_fd, stat.S_IMODE(info.st_mode))
        with contextlib.suppress(OSError):
            for key in os.listxattr(source_fd):
                if not os.fsencode(key).startswith(OVERLAY_XATTRS):
                    os.setxattr(target_fd, key, os.getxattr(source_fd, key))
        os.utime(target_fd, ns=(info.st_atime_ns, info.st_mtime_ns))


_TURNED: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO})
"""What open(2) says of a name that is another kind of thing by now, or none."""


def _copy_whole(source: int, target: int, info: os.stat_result) -> None:
    if info.st_size > _SMALL or info.st_blocks * 512 < info.st_size:
        copy_data(source, target, info.st_size)
        return
    view = memoryview(os.read(source, info.st_size + 1))
    while view:
        view = view[os.write(target, view) :]


def copy_data(source: int, target: int, size: int) -> None:
    """The first `size` bytes of a file into one that is empty, without the holes, within the kernel. Raises OSError."""
    at = 0
    while at < size:
        try:
            at = os.lseek(source, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:  # a hole up to the end
                raise
            break
        end = os.lseek(source, at, os.SEEK_HOLE)
        while at < end:
            sent = _move(source, target, at, min(end - at, 1 << 30))
            if not sent:
                break
            at += sent
    os.ftruncate(target, size)


def _move(source: int, target: int, at: int, size: int) -> int:
    try:
        return os.copy_file_range(source, target, size, at, at)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
    os.lseek(target, at, os.SEEK_SET)
    return os.sendfile(target, source, at, size)
