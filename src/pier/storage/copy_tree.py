"""A directory tree copied by descriptor: by reference where the file system can (FICLONE), else by its data.

Owners, modes, times, xattrs, hard links, holes and special files are those of the original; nothing is followed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from typing import Final

from pier.storage.tree_tar import DEPTH_MAX, DIRECTORY_FLAGS, Node, TreeTooDeep

FICLONE: Final = 0x40049409
"""ioctl_ficlone(2)"""
_NO_REFLINK: Final = frozenset({errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS})
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def copy_tree(source_fd: int, target_fd: int) -> None:
    """Copy what is in one directory, and its attributes, onto another, which is empty. Raises TreeTooDeep, OSError."""
    _Copy(target_fd).directory(source_fd, target_fd, 0)
    _attributes(source_fd, target_fd)


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

    def __init__(self, root_fd: int) -> None:
        self._root_fd = root_fd
        self._links: dict[tuple[int, int], bytes] = {}
        self._clones = True

    def directory(self, source_fd: int, target_fd: int, depth: int, at: bytes = b"") -> None:
        if depth == DEPTH_MAX:
            raise TreeTooDeep(path=os.fsdecode(at[:200]), depth=DEPTH_MAX)
        for name in sorted(map(os.fsencode, os.listdir(source_fd))):
            info = os.stat(name, dir_fd=source_fd, follow_symlinks=False)
            node = Node(at + name, source_fd, name, info)
            if not node.is_dir:
                self._entry(node, target_fd)
                continue
            os.mkdir(name, 0o700, dir_fd=target_fd)
            below = node.open()
            try:
                copy = os.open(name, DIRECTORY_FLAGS, dir_fd=target_fd)
                try:
                    self.directory(below, copy, depth + 1, node.path + b"/")
                    _attributes(below, copy)
                finally:
                    os.close(copy)
            finally:
                os.close(below)

    def _entry(self, node: Node, target_fd: int) -> None:
        info = node.info
        if info.st_nlink > 1:
            first = self._links.get((info.st_dev, info.st_ino))
            if first is not None:
                os.link(first, node.name, src_dir_fd=self._root_fd, dst_dir_fd=target_fd, follow_symlinks=False)
                return
            self._links[info.st_dev, info.st_ino] = node.path
        if stat.S_ISREG(info.st_mode):
            self._file(node, target_fd)
            return
        if stat.S_ISLNK(info.st_mode):
            os.symlink(os.readlink(node.name, dir_fd=node.dir_fd), node.name, dir_fd=target_fd)
        else:
            os.mknod(node.name, stat.S_IFMT(info.st_mode) | 0o600, info.st_rdev, dir_fd=target_fd)
        os.chown(node.name, info.st_uid, info.st_gid, dir_fd=target_fd, follow_symlinks=False)
        if not stat.S_ISLNK(info.st_mode):
            os.chmod(node.name, stat.S_IMODE(info.st_mode), dir_fd=target_fd)
        place = b"/proc/self/fd/%d/%s" % (target_fd, node.name)
        for key, value in node.all_xattrs().items():
            os.setxattr(place, key, value, follow_symlinks=False)
        os.utime(node.name, ns=(info.st_atime_ns, info.st_mtime_ns), dir_fd=target_fd, follow_symlinks=False)

    def _file(self, node: Node, target_fd: int) -> None:
        source = node.open()
        try:
            copy = os.open(node.name, _NEW, 0o600, dir_fd=target_fd)
            try:
                if not (self._clones and clone(source, copy)):
                    self._clones = False
                    _copy_data(source, copy, node.info.st_size)
                _attributes(source, copy)
            finally:
                os.close(copy)
        finally:
            os.close(source)


def _copy_data(source: int, copy: int, size: int) -> None:
    """The data without the holes."""
    at = 0
    while at < size:
        try:
            at = os.lseek(source, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:  # a hole up to the end
                raise
            break
        end = os.lseek(source, at, os.SEEK_HOLE)
        os.lseek(copy, at, os.SEEK_SET)
        while at < end:
            sent = os.sendfile(copy, source, at, min(end - at, 1 << 30))
            if not sent:
                break
            at += sent
    os.ftruncate(copy, size)


def _attributes(source_fd: int, target_fd: int) -> None:
    """Owner before mode (chown clears set-id bits), mode before xattrs (an ACL changes what the mode shows)."""
    info = os.fstat(source_fd)
    os.fchown(target_fd, info.st_uid, info.st_gid)
    os.fchmod(target_fd, stat.S_IMODE(info.st_mode))
    with contextlib.suppress(OSError):
        for key in os.listxattr(source_fd):
            os.setxattr(target_fd, key, os.getxattr(source_fd, key))
    os.utime(target_fd, ns=(info.st_atime_ns, info.st_mtime_ns))
