"""A client's files made again below a root of ours, in a thread while more come in."""

from __future__ import annotations

import asyncio
import hashlib
import os
import posixpath
import stat
from collections.abc import Callable
from typing import Final

from pier.builder.contexts import Index
from pier.builder.entries import Entry
from pier.kernel.paths import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, closing, openat2
from pier.storage.trees import remove_tree

BATCH_BYTES: Final = 1 << 20
"""Of content that is written at once, in a thread."""
BATCH_DEEDS: Final = 512
BENEATH: Final = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS


class Deeds:
    """What is to be done, in its order, many at once in a thread."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []
        self._bytes = 0
        self._doing: asyncio.Task[None] | None = None

    def add(self, deed: Callable[[], None], size: int = 0) -> None:
        self.waiting.append(deed)
        self._bytes += size

    @property
    def many(self) -> bool:
        return self._bytes >= BATCH_BYTES or len(self.waiting) >= BATCH_DEEDS

    async def begin(self) -> None:
        """Have a thread do what has gathered, after what it was given before; reading goes on meanwhile."""
        await self.done()
        deeds, self.waiting, self._bytes = self.waiting, [], 0
        if deeds:
            self._doing = asyncio.create_task(asyncio.to_thread(_do_all, deeds))

    async def done(self) -> None:
        """Wait for what was begun. Raises what it raised."""
        if self._doing is not None:
            doing, self._doing = self._doing, None
            await doing


def _do_all(deeds: list[Callable[[], None]]) -> None:
    for deed in deeds:
        deed()


class Mirror:
    """Makes files below a root, whose folders are reached by descriptor and never through a link."""

    def __init__(self, root_fd: int) -> None:
        self._root = root_fd
        self._open: dict[int, tuple[int, hashlib._Hash]] = {}
        self._parent = ("", os.dup(root_fd))

    def close(self) -> None:
        for fd, _ in self._open.values():
            os.close(fd)
        self._open.clear()
        os.close(self._parent[1])

    def begin_file(self, number: int, path: str, entry: Entry) -> None:
        parent, name = self._place(path)
        _clear(parent, name)
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=parent)
        self._open[number] = fd, hashlib.sha256()

    def write(self, number: int, data: bytes) -> None:
        fd, digest = self._open[number]
        digest.update(data)
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]

    def end_file(self, number: int, path: str, entry: Entry) -> str:
        """The sha256 of what was written."""
        fd, digest = self._open.pop(number)
        try:
            os.fchown(fd, entry.uid, entry.gid)
            os.fchmod(fd, stat.S_IMODE(entry.mode))
            _set_xattrs(fd, entry)
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(fd)
        return digest.hexdigest()

    def make_link(self, path: str, entry: Entry) -> None:
        with closing(self._folder(posixpath.dirname(entry.link))) as origin:
            parent, name = self._place(path)
            _clear(parent, name)
            os.link(posixpath.basename(entry.link), name, src_dir_fd=origin, dst_dir_fd=parent, follow_symlinks=False)

    def make(self, path: str, entry: Entry) -> None:
        """A folder, a symbolic link, a fifo, a device; a socket is left out, as nothing could be done with it."""
        parent, name = self._place(path)
        if stat.S_ISDIR(entry.mode):
            self._make_folder(parent, name, entry)
            return
        _clear(parent, name)
        if stat.S_ISLNK(entry.mode):
            os.symlink(entry.link, name, dir_fd=parent)
        elif stat.S_ISSOCK(entry.mode):
            return
        else:
            os.mknod(name, entry.mode, os.makedev(*entry.device), dir_fd=parent)
            os.chmod(name, stat.S_IMODE(entry.mode), dir_fd=parent)
        os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=parent, follow_symlinks=False)

    def _make_folder(self, parent: int, name: str, entry: Entry) -> None:
        try:
            if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                _clear(parent, name)
                os.mkdir(name, 0o700, dir_fd=parent)
        except FileNotFoundError:
            os.mkdir(name, 0o700, dir_fd=parent)
        with closing(os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)) as fd:
            os.fchown(fd, entry.uid, entry.gid)
            os.fchmod(fd, stat.S_IMODE(entry.mode))
            _set_xattrs(fd, entry)

    def finish(self, gone: list[str], after: Index) -> None:
        """Take away what the client has no longer; give folders their times, which their files' coming has changed."""
        for path in gone:
            parent = posixpath.dirname(path)
            if parent and (parent not in after or not stat.S_ISDIR(after[parent][0].mode)):
                continue  # it went, or goes, with its folder
            fd, name = self._place(path)
            _clear(fd, name)
        for path, (entry, _) in after.items():
            if stat.S_ISDIR(entry.mode):
                fd, name = self._place(path)
                os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=fd, follow_symlinks=False)

    def _place(self, path: str) -> tuple[int, str]:
        """(descriptor of its folder, name); the descriptor is ours until the next call."""
        folder, _, name = path.rpartition("/")
        if folder != self._parent[0]:
            fd = self._folder(folder)
            os.close(self._parent[1])
            self._parent = folder, fd
        return self._parent[1], name

    def _folder(self, path: str) -> int:
        return openat2(self._root, path or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, resolve=BENEATH)


def _clear(parent: int, name: str) -> None:
    """Nothing has this name any more."""
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return
    except IsADirectoryError:
        with closing(os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=parent)) as fd:
            remove_tree(fd, os.fsencode(name))


def _set_xattrs(fd: int, entry: Entry) -> None:
    for name, value in entry.xattrs:
        os.setxattr(fd, name, value)
