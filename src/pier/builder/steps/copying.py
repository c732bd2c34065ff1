"""Files from one tree into another, by descriptor: nothing below either root leads out of it (attacks 10, 19).

What lands where is BuildKit's (fsutil, copy.Copy): a file goes into a directory that is there, or in its place takes
the destination's name; a directory's contents go into the destination; what is there already is replaced by files, and
kept, with its attributes, by directories. Links within the destination are followed on the way to it and at its end,
never below it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from pier.builder.steps import modes
from pier.builder.wildcard import clean
from pier.errors import InvalidParameter
from pier.kernel.paths import RESOLVE_IN_ROOT, RESOLVE_NO_SYMLINKS, SYMLINKS_MAX, closing, open_in_root
from pier.storage.copy_tree import clone, copy_data
from pier.storage.tree_tar import DEPTH_MAX, HOST_XATTRS, OVERLAY_XATTRS, TreeTooDeep
from pier.storage.trees import remove_tree

DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
LITERALLY: Final = RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS
LEFT_MAX: Final = 64
"""Directories that one copy leaves to be filled; each has a descriptor."""
SMALL: Final = 1 << 18
"""Files up to here are read and written whole: one call each."""

Wanted = Callable[[str, bool], bool]
"""(path below what is copied, is it a directory) -> is it copied; a directory that is not may have parts that are."""


class NotADirectory(InvalidParameter):
    """cannot copy to non-directory: {path}"""


class IsADirectory(InvalidParameter):
    """cannot replace to directory {path} with file"""


@dataclass(frozen=True, slots=True)
class Attributes:
    """What copied and made files are given; None and empty: what they have in the source."""

    owner: tuple[int, int] | None = None
    mode: int = -1
    mode_str: str = ""
    mtime_ns: int = -1

    def mode_of(self, mode: int) -> int:
        """The permission bits of a file that has `mode` in the source."""
        if self.mode_str:
            return modes.changed(mode, self.mode_str, is_dir=stat.S_ISDIR(mode))
        return self.mode if self.mode >= 0 else stat.S_IMODE(mode)


@dataclass(frozen=True, slots=True)
class _Left:
    """A directory that was made and is to be filled."""

    source: int
    """A descriptor, its own."""
    root: str
    """Where what is copied stands, from the root: `Copier._place`."""
    path: str
    """Of the directory, below `root`; empty: that itself."""
    info: os.stat_result | None
    """What the directory is to be like; None: it is as it is."""


@dataclass(slots=True)
class Copier:
    """Copies into one tree."""

    root_fd: int
    attributes: Attributes
    replace: bool = False
    """Files take the place of directories, and the other way round."""
    wanted: Wanted | None = None
    """None: everything."""
    leaves: bool = False
    """Directories that the tree has not had are made and left empty, as far as they can be: `fill` fills them."""
    parts: bool = False
    """Only parts of directories were asked for: those that are there already stay as they are."""
    files: int = 0
    _left: list[_Left] = field(default_factory=list)
    _links: dict[tuple[int, int], str] = field(default_factory=dict)
    _place: str = ""
    """Where what is copied now stands, from the root."""
    _clones: bool = True
    _xattrs: bool = True

    def copy(self, source_root: int, src: str, dest: str, *, contents: bool, follow: bool) -> None:
        """Copy what is at `src`, clean and from the source's root, to `dest`. Raises NotADirectory, IsADirectory,
        TreeTooDeep, OSError."""
        dest = through_links(self.root_fd, dest)
        parent, _, name = src.rstrip("/").rpartition("/")
        if follow or src.endswith("/") or not name:
            fd = open_in_root(source_root, src or "/", os.O_PATH)
        else:
            with closing(open_in_root(source_root, parent or "/", DIRECTORY)) as above:
                fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
        with closing(fd):
            info = os.fstat(fd)
            is_dir = stat.S_ISDIR(info.st_mode)
            os.close(self._make_dirs(dest.rpartition("/")[0] or "/"))
            there = self._kind_at(dest)
            if is_dir and (contents or not name):
                self._into(fd, dest, there)
            else:
                inside = stat.S_ISDIR(there) or (is_dir and there)
                self._as(fd, f"{dest.rstrip('/')}/{name}" if inside else dest, info)

    def _into(self, fd: int, dest: str, there: int) -> None:
        """What is in a directory, into another, which is made if it is not there."""
        if there and not stat.S_ISDIR(there):
            if not self.replace:
                raise NotADirectory(path=dest)
            parent, _, name = dest.rstrip("/").rpartition("/")
            with closing(open_in_root(self.root_fd, parent or "/", DIRECTORY)) as above:
                os.unlink(name, dir_fd=above)
        self._place = dest
        with (
            closing(os.open(f"/proc/self/fd/{fd}", DIRECTORY)) as source,
            closing(self._make_dirs(dest)) as target,
        ):
            if there or not self._leave(source, "", None):
                self._contents(source, target, "")

    def _as(self, fd: int, place: str, info: os.stat_result) -> None:
        """A file, or a directory as such, under the name that `place` ends with; patterns are for what is below it."""
        parent, _, name = place.rstrip("/").rpartition("/")
        self._place = place
        with closing(self._make_dirs(parent or "/")) as above:
            if stat.S_ISDIR(info.st_mode):
                with closing(os.open(f"/proc/self/fd/{fd}", DIRECTORY)) as source:
                    self._directory(source, above, name, info, "")
            elif stat.S_ISREG(info.st_mode):
                with closing(os.open(f"/proc/self/fd/{fd}", READ & ~os.O_NOFOLLOW)) as source:
                    self._content(source, above, name, os.fstat(source), "")
            else:
                target = os.readlink("", dir_fd=fd) if stat.S_ISLNK(info.st_mode) else ""
                self._make_room(above, name, name)
                self._special(above, name, info, target)

    def _make_dirs(self, path: str) -> int:
        """A directory that files go to; those that are made have the permissions of an octal mode, as BuildKit's do."""
        mode = self.attributes.mode & 0o777 if self.attributes.mode >= 0 and not self.attributes.mode_str else 0o755
        return make_dirs(self.root_fd, path, self.attributes, mode)

    def _kind_at(self, path: str) -> int:
        """The mode of what is there, links followed; 0: nothing."""
        try:
            fd = open_in_root(self.root_fd, path or "/", os.O_PATH)
        except (FileNotFoundError, NotADirectoryError):
            return 0
        with closing(fd):
            return os.fstat(fd).st_mode

    # --- directories that are filled elsewhere

    @property
    def left(self) -> bool:
        """Whether there is something for `fill` to do."""
        return bool(self._left)

    def fill(self, root_fd: int) -> None:
        """Fill what was left. Below `root_fd` these directories stand where they stand in the tree, with none of their
        kind under them: the upper directory of an overlay, which is not mounted now.

        A file in an overlay takes twice the time. Raises what `copy` raises.
        """
        self.root_fd, self.leaves = root_fd, False
        for left in self._left:
            self._place = left.root
            place = f"{left.root}/{left.path}"
            with closing(open_in_root(root_fd, place, DIRECTORY, resolve=LITERALLY)) as target:
                self._contents(left.source, target, f"{left.path}/" if left.path else "")
                if left.info is not None:
                    self._attribute(left.source, target, left.info)

    def close(self) -> None:
        """Let go of what was left."""
        for left in self._left:
            os.close(left.source)
        self._left.clear()

    def _leave(self, source: int, path: str, info: os.stat_result | None) -> bool:
        """Leave a directory, which has just been made, for `fill`; False: it cannot be left."""
        if not self.leaves or len(self._left) == LEFT_MAX:
            return False
        try:
            os.close(open_in_root(self.root_fd, f"{self._place}/{path}", DIRECTORY, resolve=LITERALLY))
        except OSError as error:
            if error.errno != errno.ELOOP:  # a link on the way: it is another path in the upper directory
                raise
            return False
        self._left.append(_Left(os.dup(source), self._place, path, info))
        return True

    # --- trees

    def _contents(self, source: int, target: int, at: str) -> None:
        if at.count("/") >= DEPTH_MAX:
            raise TreeTooDeep(path=at[:200], depth=DEPTH_MAX)
        with os.scandir(source) as entries:
            names = sorted(entry.name for entry in entries)
        for name in names:
            try:
                info = os.stat(name, dir_fd=source, follow_symlinks=False)
            except FileNotFoundError:
                continue
            path = f"{at}{name}"
            if stat.S_ISDIR(info.st_mode):
                with closing(os.open(name, DIRECTORY | os.O_NOFOLLOW, dir_fd=source)) as below:
                    self._directory(below, target, name, info, path)
            elif self.wanted is None or self.wanted(path, False):
                self._entry(source, target, name, info, path)

    def _directory(self, source: int, above: int, name: str, info: os.stat_result, path: str) -> None:
        """One directory of the source, `path` below what is copied ("": that itself)."""
        if self.wanted is not None and path and not self.wanted(path, True):
            self._parts_of(source, above, name, info, path)
            return
        made = self._make_directory(above, name, path)
        if made and self._leave(source, path, info):
            return
        with closing(os.open(name, DIRECTORY | os.O_NOFOLLOW, dir_fd=above)) as target:
            self._contents(source, target, f"{path}/" if path else "")
            if made or (path and not self.parts):
                self._attribute(source, target, info, new=made)

    def _parts_of(self, source: int, above: int, name: str, info: os.stat_result, path: str) -> None:
        """A directory that is not wanted, but something in it may be: it is there only if something is."""
        existed = self._is_directory(above, name)
        if not existed:
            os.mkdir(name, 0o700, dir_fd=above)
        with closing(os.open(name, DIRECTORY | os.O_NOFOLLOW, dir_fd=above)) as target:
            before = self.files
            self._contents(source, target, f"{path}/")
            empty = self.files == before and not os.listdir(target)
            if not existed and not empty:
                self._attribute(source, target, info)
        if not existed and empty:
            os.rmdir(name, dir_fd=above)

    def _is_directory(self, above: int, name: str) -> bool:
        try:
            return stat.S_ISDIR(os.stat(name, dir_fd=above, follow_symlinks=False).st_mode)
        except FileNotFoundError:
            return False

    def _make_directory(self, above: int, name: str, path: str) -> bool:
        """True: there was none, it has been made."""
        try:
            os.mkdir(name, 0o700, dir_fd=above)
            return True
        except FileExistsError:
            if self._is_directory(above, name):
                return False
            if not self.replace:
                raise NotADirectory(path="/" + (path or name)) from None
            os.unlink(name, dir_fd=above)
            os.mkdir(name, 0o700, dir_fd=above)
            return True

    def _entry(self, source: int, above: int, name: str, info: os.stat_result, path: str) -> None:
        kind = stat.S_IFMT(info.st_mode)
        if info.st_nlink > 1 and (first := self._links.get((info.st_dev, info.st_ino))) is not None:
            self._make_room(above, name, path)
            with closing(open_in_root(self.root_fd, first, os.O_PATH | os.O_NOFOLLOW)) as linked:
                os.link(f"/proc/self/fd/{linked}", name, dst_dir_fd=above, follow_symlinks=True)
            self.files += 1
            return
        if kind == stat.S_IFREG:
            try:
                fd = os.open(name, READ, dir_fd=source)
            except FileNotFoundError:
                return
            with closing(fd):
                self._content(fd, above, name, info, path)
        elif kind != stat.S_IFSOCK:
            self._make_room(above, name, path)
            target = os.readlink(name, dir_fd=source) if kind == stat.S_IFLNK else ""
            self._special(above, name, info, target)

    def _make_room(self, above: int, name: str, path: str) -> None:
        """Remove what is at the name. Raises IsADirectory."""
        try:
            os.unlink(name, dir_fd=above)
        except FileNotFoundError:
            pass
        except IsADirectoryError:
            if not self.replace:
                raise IsADirectory(path="/" + path) from None
            remove_tree(above, os.fsencode(name))

    # --- files

    def _content(self, source: int, above: int, name: str, info: os.stat_result, path: str) -> None:
        fd = self._new_file(above, name, path)
        try:
            size = info.st_size
            if size <= SMALL:
                if size:
                    data = os.read(source, size)
                    if os.write(fd, data) != len(data) or len(data) < size:
                        _copy_rest(source, fd)
            elif not (self._clones and clone(source, fd)):
                self._clones = False
                copy_data(source, fd, size)
            self._attribute(source, fd, info)
        finally:
            os.close(fd)
        self.files += 1
        if info.st_nlink > 1:
            self._links[info.st_dev, info.st_ino] = f"{self._place}/{path}" if path else self._place

    def _new_file(self, above: int, name: str, path: str) -> int:
        try:
            return os.open(name, NEW, 0o600, dir_fd=above)
        except FileExistsError:
            self._make_room(above, name, path or name)
            return os.open(name, NEW, 0o600, dir_fd=above)

    def _attribute(self, source: int, target: int, info: os.stat_result, *, new: bool = True) -> None:
        """Owner before mode, which chown may clear bits of; times last."""
        wanted = self.attributes
        uid, gid = wanted.owner if wanted.owner is not None else (info.st_uid, info.st_gid)
        if uid or gid or not new:
            os.fchown(target, uid, gid)
        os.fchmod(target, wanted.mode_of(info.st_mode))
        if self._xattrs:
            self._copy_xattrs(source, target)
        mtime = wanted.mtime_ns if wanted.mtime_ns >= 0 else info.st_mtime_ns
        os.utime(target, ns=(mtime, mtime))

    def _copy_xattrs(self, source: int, target: int) -> None:
        try:
            keys = os.listxattr(source)
        except OSError as error:
            self._xattrs = error.errno != errno.ENOTSUP
            return
        for key in keys:
            raw = os.fsencode(key)
            if not raw.startswith(OVERLAY_XATTRS) and raw not in HOST_XATTRS:
                os.setxattr(target, key, os.getxattr(source, key))

    def _special(self, above: int, name: str, info: os.stat_result, link: str) -> None:
        kind = stat.S_IFMT(info.st_mode)
        wanted = self.attributes
        if kind == stat.S_IFCHR and not info.st_rdev:  # overlayfs' whiteout: an overlay makes none for anybody
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), name)
        if kind == stat.S_IFLNK:
            os.symlink(link, name, dir_fd=above)
        else:
            os.mknod(name, kind | 0o600, info.st_rdev, dir_fd=above)
        uid, gid = wanted.owner if wanted.owner is not None else (info.st_uid, info.st_gid)
        os.chown(name, uid, gid, dir_fd=above, follow_symlinks=False)
        if kind != stat.S_IFLNK:
            os.chmod(name, wanted.mode_of(info.st_mode), dir_fd=above)
        mtime = wanted.mtime_ns if wanted.mtime_ns >= 0 else info.st_mtime_ns
        os.utime(name, ns=(mtime, mtime), dir_fd=above, follow_symlinks=False)
        self.files += 1


def through_links(root_fd: int, path: str) -> str:
    """Where a path leads whose last component is a link, below the root, there or not. Raises OSError (ELOOP)."""
    for _ in range(SYMLINKS_MAX):
        parent, _, name = path.rpartition("/")
        if not name:
            return path
        try:
            with closing(open_in_root(root_fd, parent or "/", DIRECTORY)) as above:
                target = os.readlink(name, dir_fd=above)
        except OSError:
            return path  # no link, or nothing
        path = clean(target if target.startswith("/") else f"{parent}/{target}")
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)


def make_dirs(root_fd: int, path: str, attributes: Attributes, mode: int = 0o755) -> int:
    """Make a directory and those above it below a root; a descriptor of it. Links that are there are followed.

    Those that are made get the owner and time of `attributes`. Raises OSError (ENOTDIR, ELOOP).
    """
    try:
        return open_in_root(root_fd, path or "/", DIRECTORY)
    except FileNotFoundError:
        pass
    parent, _, name = path.rstrip("/").rpartition("/")
    with closing(make_dirs(root_fd, parent or "/", attributes, mode)) as above:
        try:
            os.mkdir(name, mode, dir_fd=above)
        except FileExistsError:  # a link to nothing: where it leads is made, below the root
            target = os.readlink(name, dir_fd=above)
            return make_dirs(root_fd, target if target.startswith("/") else f"{parent}/{target}", attributes, mode)
        fd = os.open(name, DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
    if attributes.owner is not None:
        os.fchown(fd, *attributes.owner)
    os.fchmod(fd, mode)
    if attributes.mtime_ns >= 0:
        os.utime(fd, ns=(attributes.mtime_ns, attributes.mtime_ns))
    return fd


def _copy_rest(source: int, target: int) -> None:
    """A file that reads or writes in pieces, or has changed its size meanwhile: from the beginning."""
    os.lseek(source, 0, os.SEEK_SET)
    os.lseek(target, 0, os.SEEK_SET)
    while data := os.read(source, SMALL):
        view = memoryview(data)
        while view:
            view = view[os.write(target, view) :]
