"""A directory tree as tar entries: walked by descriptor, sorted, so that equal trees give equal archives.

Used for the layers that Pier makes and for exports. Nothing is followed, no path is longer than one name.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from pier.errors import PierError
from pier.storage.faults import point
from pier.storage.stream import CHUNK
from pier.storage.tar_header import BLOCK_DEVICE, CHAR_DEVICE, DIRECTORY, FIFO, HARD_LINK, REGULAR, SYMLINK, Entry
from pier.storage.tar_writer import TarWriter

DIRECTORY_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
DEPTH_MAX: Final = 256
"""Directories held open at once, one for each level; programs reach no deeper than PATH_MAX allows, mostly less."""

OVERLAY_XATTRS: Final = (b"trusted.overlay.", b"user.overlay.")
HOST_XATTRS: Final = frozenset(
    {b"security.selinux", b"security.apparmor", b"security.ima", b"security.evm", b"system.nfs4_acl"}
)
"""Of the host's policy, not of the files: no part of an image."""

_TYPES: Final = {
    stat.S_IFREG: REGULAR,
    stat.S_IFDIR: DIRECTORY,
    stat.S_IFLNK: SYMLINK,
    stat.S_IFCHR: CHAR_DEVICE,
    stat.S_IFBLK: BLOCK_DEVICE,
    stat.S_IFIFO: FIFO,
}


class TreeTooDeep(PierError):
    """{path}: directories are nested more than {depth} deep"""

    remedy = "move them up in the container, or delete them, and try again"


@dataclass(slots=True)
class Node:
    """One name in a tree, met on a walk; `dir_fd` is open as long as the walk stands there."""

    path: bytes
    """From the tree's root, without a slash in front."""
    dir_fd: int
    name: bytes
    info: os.stat_result
    _held: int = field(default=-1, init=False, repr=False, compare=False)
    _xattrs: dict[bytes, bytes] | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def is_dir(self) -> bool:
        return stat.S_ISDIR(self.info.st_mode)

    def open(self) -> int:
        """A descriptor to read a file's content or a directory's names; the caller closes it."""
        return os.open(self.name, DIRECTORY_FLAGS if self.is_dir else FILE_FLAGS, dir_fd=self.dir_fd)

    def hold(self) -> int:
        """A descriptor of a regular file, opened once for all that is asked about it; `release` closes it."""
        if self._held < 0:
            self._held = self.open()
            self.info = os.fstat(self._held)  # of the file that is read, should the name be another's by now
        return self._held

    def release(self) -> None:
        """Close what `hold` has opened; nodes of `walk` need not be released."""
        if self._held >= 0:
            os.close(self._held)
            self._held = -1

    def xattrs(self) -> dict[bytes, bytes]:
        """Those that belong to the file; see `OVERLAY_XATTRS` and `HOST_XATTRS` for what does not."""
        return {
            key: value
            for key, value in self.all_xattrs().items()
            if not key.startswith(OVERLAY_XATTRS) and key not in HOST_XATTRS
        }

    def all_xattrs(self) -> dict[bytes, bytes]:
        """Those of the host's policy and overlayfs' orders too; asked of the kernel once."""
        if self._xattrs is None:
            self._xattrs = self._read_xattrs()
        return self._xattrs

    def _read_xattrs(self) -> dict[bytes, bytes]:
        place: int | bytes = self._held if self._held >= 0 else b"/proc/self/fd/%d/%s" % (self.dir_fd, self.name)
        follow = self._held >= 0  # what is held is no link, and a descriptor knows no other way
        try:
            keys = os.listxattr(place, follow_symlinks=follow)
        except OSError as error:
            if error.errno == errno.ENOTSUP:
                return {}
            raise
        found = {}
        for key in keys:
            with contextlib.suppress(OSError):  # gone meanwhile, or listed and not readable
                found[os.fsencode(key)] = os.getxattr(place, key, follow_symlinks=follow)
        return found


def walk(root_fd: int, *, prefix: bytes = b"", enter: Callable[[Node], bool] | None = None) -> Iterator[Node]:
    """Everything below `root_fd`, names sorted, a directory before what is in it; `enter` may keep out of one.

    What vanishes meanwhile is passed over. Raises TreeTooDeep.
    """
    stack = [(root_fd, prefix, iter(_names(root_fd)))]
    try:
        while stack:
            fd, at, names = stack[-1]
            name = next(names, None)
            if name is None:
                stack.pop()
                if stack:
                    os.close(fd)
                continue
            try:
                node = Node(at + name, fd, name, os.stat(name, dir_fd=fd, follow_symlinks=False))
                try:
                    yield node
                finally:
                    node.release()
                if node.is_dir and (enter is None or enter(node)):
                    if len(stack) == DEPTH_MAX:
                        raise TreeTooDeep(path=os.fsdecode(at[:200]), depth=DEPTH_MAX)
                    below = os.open(name, DIRECTORY_FLAGS, dir_fd=fd)
                    stack.append((below, node.path + b"/", iter(_names(below))))
            except FileNotFoundError:
                continue
    finally:
        for fd, _, _ in stack[1:]:
            os.close(fd)


def _names(fd: int) -> list[bytes]:
    return sorted(map(os.fsencode, os.listdir(fd)))


@dataclass(slots=True)
class TreeTar:
    """Nodes of one tree into one archive; hard links are found by their inode numbers."""

    out: TarWriter
    size_bytes: int = 0
    """File contents and symbolic links' targets, as Docker counts a layer's size."""
    skipped: list[bytes] = field(default_factory=list)
    """Sockets: no archive can hold them. A hundred names at most."""
    _links: dict[tuple[int, int], bytes] = field(default_factory=dict)

    def add(self, node: Node) -> None:
        """Write one entry with its content."""
        point("diff-entry")
        info = node.info
        kind = _TYPES.get(stat.S_IFMT(info.st_mode))
        if kind is None:
            if len(self.skipped) < 100:
                self.skipped.append(node.path)
            return
        inode = info.st_dev, info.st_ino
        first = self._links.get(inode) if info.st_nlink > 1 and kind != DIRECTORY else None
        if first is not None:
            self.out.add(entry_of(node, HARD_LINK, linkname=first))
            return
        if info.st_nlink > 1 and kind != DIRECTORY:
            self._links[inode] = node.path
        if kind == REGULAR:
            self._file(node)
        elif kind == SYMLINK:
            target = os.readlink(node.name, dir_fd=node.dir_fd)
            self.size_bytes += len(target)
            self.out.add(entry_of(node, kind, linkname=target, xattrs=node.xattrs()))
        else:
            self.out.add(entry_of(node, kind, xattrs=node.xattrs()))

    def _file(self, node: Node) -> None:
        try:
            fd = node.hold()
            left = node.info.st_size
            self.size_bytes += left
            self.out.add(entry_of(node, REGULAR, xattrs=node.xattrs()))
            while left:
                data = os.read(fd, min(left, CHUNK)) or bytes(min(left, CHUNK))  # zeros: it has shrunk meanwhile
                self.out.content(data)
                left -= len(data)
            self.out.end_content()
        finally:
            node.release()

    def forget(self, node: Node) -> None:
        """The node could not be added after all: another link to it is not one to this."""
        if self._links.get((node.info.st_dev, node.info.st_ino)) == node.path:
            del self._links[node.info.st_dev, node.info.st_ino]

    def mark(self, path: bytes) -> None:
        """Write an empty file that means something by its name: a whiteout."""
        self.out.add(Entry(name=path, type=REGULAR, mode=0o600, uid=0, gid=0, size=0, mtime_ns=0))


def entry_of(node: Node, kind: bytes, *, linkname: bytes = b"", xattrs: dict[bytes, bytes] | None = None) -> Entry:
    """The header of a node; a directory's name ends with a slash."""
    info = node.info
    is_device = kind in (CHAR_DEVICE, BLOCK_DEVICE)
    return Entry(
        name=node.path.rstrip(b"/") + b"/" if kind == DIRECTORY else node.path,
        type=kind,
        mode=stat.S_IMODE(info.st_mode),
        uid=info.st_uid,
        gid=info.st_gid,
        size=info.st_size if kind == REGULAR else 0,
        mtime_ns=info.st_mtime_ns,
        linkname=linkname,
        devmajor=os.major(info.st_rdev) if is_device else 0,
        devminor=os.minor(info.st_rdev) if is_device else 0,
        xattrs=xattrs or {},
    )


def write_tree(root_fd: int, out: TarWriter) -> TreeTar:
    """The whole tree below `root_fd` as an archive, its end included; what was skipped is in the answer."""
    tar = TreeTar(out)
    for node in walk(root_fd):
        tar.add(node)
    out.finish()
    return tar
