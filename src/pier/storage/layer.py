"""Layer archive -> directory tree (image-spec, layer.md), confined to that tree.

Every entry's parent directory is resolved by openat2 as if the tree were the root (`open_in_root`); the entry itself is
made, changed and linked by descriptor or by one last component that is never followed. A name with `..` is refused; an
absolute name counts from the tree's root, as with Docker; a link in the middle of a name leads at most to another place
of the same tree. So no entry can name anything outside (attack 10).
"""

from __future__ import annotations

import contextlib
import enum
import errno
import os
import stat
from dataclasses import dataclass, field
from typing import Final

from pier.kernel.paths import closing, mkdir_in_root, open_in_root
from pier.storage import acl
from pier.storage.errors import HostileEntry, LayerTooLarge
from pier.storage.faults import point
from pier.storage.stream import CHUNK, Reader
from pier.storage.tar import TarLimits, TarReader
from pier.storage.tar_header import (
    BLOCK_DEVICE,
    CHAR_DEVICE,
    DIRECTORY,
    FIFO,
    HARD_LINK,
    REGULAR,
    SYMLINK,
    Entry,
    Sparse,
)
from pier.storage.trees import remove_tree

WHITEOUT_PREFIX: Final = b".wh."
WHITEOUT_META_PREFIX: Final = b".wh..wh."
"""aufs' own files: no part of an image, but for the one below."""
OPAQUE_MARKER: Final = b".wh..wh..opq"
OPAQUE_XATTR: Final = b"trusted.overlay.opaque"
REFUSED_XATTRS: Final = (b"trusted.overlay.", b"user.overlay.")
"""overlayfs' own orders (redirect, metacopy, …): an image must not give them, so they are dropped."""

NAME_MAX: Final = 255
DEPTH_MAX: Final = 1024
"""Components of one name; a path of PATH_MAX bytes has hardly more."""
OPEN_DIRECTORIES: Final = 64
ENTRY_ERRORS: Final = frozenset(
    getattr(errno, name)
    for name in "EINVAL ELOOP ENAMETOOLONG ENOTDIR EISDIR EXDEV EMLINK ERANGE E2BIG EOVERFLOW".split()
)
"""What the kernel says of a name, link or attribute that cannot be: the archive's fault, not the disk's."""
DIRECTORY_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Whiteouts(enum.Enum):
    """What becomes of a whiteout."""

    OVERLAY = "overlay"
    """It stays, in overlayfs' form: the tree is one layer."""
    APPLIED = "applied"
    """What it hides is removed: the tree is all layers up to this one, and holds those below at the start."""


DEFAULT_LAYER_BYTES: Final = 256 << 30


@dataclass(frozen=True, slots=True)
class LayerLimits:
    """Bounds of one layer (attack 12)."""

    content_bytes: int = DEFAULT_LAYER_BYTES
    """All files together, unpacked."""
    tar: TarLimits = field(default_factory=TarLimits)


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What an archive turned out to hold."""

    size_bytes: int
    """File contents and symbolic links' targets, as Docker counts an image's size."""
    entries: int
    top_names: frozenset[bytes]
    """First components of all names, a thousand at most."""
    hole_bytes: int = 0
    """Of `size_bytes`, what holes in sparse files are: it takes nothing on the disk (T13)."""


def unpack(
    stream: Reader,
    root_fd: int,
    limits: LayerLimits = LayerLimits(),
    *,
    whiteouts: Whiteouts = Whiteouts.OVERLAY,
) -> Unpacked:
    """Unpack a plain tar stream into the directory `root_fd`: empty, or with `APPLIED` the tree of the layers below.

    Raises BadArchive and its kinds, and OSError for what the file system says. Needs root.
    """
    archive = TarReader(stream, limits.tar)
    with _EXTRACTORS[whiteouts](root_fd, archive, limits) as extractor:
        extractor.run()
        top_names = frozenset(extractor.top_names)
        return Unpacked(extractor.size_bytes, archive.entries, top_names, extractor.hole_bytes)


def components(entry: Entry, name: bytes) -> list[bytes]:
    """The parts of a name, without empty ones and `.`; empty for the root. Raises HostileEntry: `..`, too long."""
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise HostileEntry(name=entry.shown, reason="a name with '..' in it")
    if len(parts) > DEPTH_MAX or any(len(part) > NAME_MAX for part in parts):
        raise HostileEntry(name=entry.shown, reason="the name is too long")
    return parts


def whiteout_target(entry: Entry, base: bytes) -> bytes:
    """The name that the whiteout `base` hides. Raises HostileEntry where that is no name of an entry."""
    target = base.removeprefix(WHITEOUT_PREFIX)
    if target in (b"", b".", b".."):
        raise HostileEntry(name=entry.shown, reason="a whiteout of no file")
    return target


class Extractor:
    """One unpacking: descriptors of recent directories, times still to be set. Whiteouts become overlayfs'."""

    def __init__(self, root_fd: int, archive: TarReader, limits: LayerLimits) -> None:
        self._root_fd = root_fd
        self._archive = archive
        self._limits = limits
        self._open_dirs: dict[tuple[bytes, ...], int] = {}
        self._dir_times: dict[tuple[bytes, ...], int] = {}
        self._inherits = False
        """Whether a directory may have given what is made in it an access control list."""
        self.size_bytes = 0
        self.hole_bytes = 0
        self.top_names: set[bytes] = set()

    def __enter__(self) -> Extractor:
        return self

    def __exit__(self, *_: object) -> None:
        self._close_dirs()

    def run(self) -> None:
        """Make every entry, then what has to come last. Raises BadArchive and its kinds, OSError."""
        for entry in self._archive:
            point("layer-entry")
            try:
                self.extract(entry)
            except OSError as error:
                if error.errno not in ENTRY_ERRORS:
                    raise
                raise HostileEntry(name=entry.shown, reason=(error.strerror or str(error)).lower()) from error
        self.finish()

    def extract(self, entry: Entry) -> None:
        """Make one entry."""
        parts = components(entry, entry.name)
        if not parts:
            self._set_root(entry)
            return
        if len(self.top_names) < 1000:
            self.top_names.add(parts[0])
        *parents, base = parts
        if base.startswith(WHITEOUT_PREFIX):
            self._whiteout(entry, parents, base)
            return
        dir_fd = self._parent(entry, parents)
        hides_lower = self._put(entry, dir_fd, base)
        if entry.type == DIRECTORY:
            self._dir_times[tuple(parts)] = entry.mtime_ns
            if hides_lower:
                self._make_opaque([*parents, base], entry)

    def finish(self) -> None:
        """Set the directories' times, which making their contents has changed; the innermost first."""
        self._close_dirs()
        for parts, mtime_ns in sorted(self._dir_times.items(), key=lambda item: -len(item[0])):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                fd = open_in_root(self._root_fd, b"/".join(parts) or b".", DIRECTORY_FLAGS | os.O_NOFOLLOW)
                try:
                    _set_times(fd, mtime_ns)
                finally:
                    os.close(fd)

    # --- places

    def _parent(self, entry: Entry, parents: list[bytes]) -> int:
        """A descriptor of the directory an entry goes into, made with its parents where it is missing."""
        key = tuple(parents)
        fd = self._open_dirs.get(key)
        if fd is not None:
            return fd
        path = b"/".join(parents) or b"."
        try:
            fd = open_in_root(self._root_fd, path, DIRECTORY_FLAGS)
        except FileNotFoundError:
            os.close(mkdir_in_root(self._root_fd, os.fsdecode(path), 0o755))
            fd = open_in_root(self._root_fd, path, DIRECTORY_FLAGS)
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP, errno.EXDEV, errno.ENAMETOOLONG):
                raise HostileEntry(
                    name=entry.shown, reason=f"its directory cannot be reached ({os.strerror(error.errno)})"
                ) from None
            raise
        if len(self._open_dirs) >= OPEN_DIRECTORIES:
            self._close_dirs()
        self._open_dirs[key] = fd
        return fd

    def _close_dirs(self) -> None:
        for fd in self._open_dirs.values():
            os.close(fd)
        self._open_dirs.clear()

    def _put(self, entry: Entry, dir_fd: int, base: bytes) -> bool:
        """Make the entry in place of what stands there, unless both are directories; True where that was a whiteout."""
        try:
            self._create(entry, dir_fd, base)
            return False
        except FileExistsError:
            there = os.stat(base, dir_fd=dir_fd, follow_symlinks=False)
        if not stat.S_ISDIR(there.st_mode):
            os.unlink(base, dir_fd=dir_fd)
        elif entry.type == DIRECTORY:
            self._set_directory(entry, dir_fd, base)
            return False
        # A link may have led to a directory whose descriptor is kept under the link's name.
        self._close_dirs_but(dir_fd)
        if stat.S_ISDIR(there.st_mode):
            remove_tree(dir_fd, base)
        self._create(entry, dir_fd, base)
        return self._is_whiteout(there)

    def _close_dirs_but(self, dir_fd: int) -> None:
        for key, fd in list(self._open_dirs.items()):
            if fd != dir_fd:
                os.close(fd)
                del self._open_dirs[key]

    # --- deeds

    def _set_root(self, entry: Entry) -> None:
        if entry.type != DIRECTORY:
            raise HostileEntry(name=entry.shown, reason="the root can be nothing but a directory")
        self._set_attributes(entry, self._root_fd)
        self._dir_times[()] = entry.mtime_ns

    def _create(self, entry: Entry, dir_fd: int, base: bytes) -> None:
        """Raises FileExistsError, having changed nothing, where something stands there."""
        match entry.type:
            case kind if kind == REGULAR:
                self._regular(entry, dir_fd, base)
            case kind if kind == DIRECTORY:
                os.mkdir(base, 0o700, dir_fd=dir_fd)
                self._disinherit(dir_fd, base)
                self._set_directory(entry, dir_fd, base)
            case kind if kind == HARD_LINK:
                self._hard_link(entry, dir_fd, base)
            case kind if kind == SYMLINK:
                try:
                    os.symlink(entry.linkname, base, dir_fd=dir_fd)
                except FileNotFoundError:  # symlink(2) of an empty target
                    raise HostileEntry(name=entry.shown, reason="a symbolic link to nothing") from None
                self._count(entry, len(entry.linkname))
                self._set_attributes_by_name(entry, dir_fd, base)
            case _:
                os.mknod(
                    base, _NODE_TYPES[entry.type] | 0o600, os.makedev(entry.devmajor, entry.devminor), dir_fd=dir_fd
                )
                self._disinherit(dir_fd, base)
                self._set_attributes_by_name(entry, dir_fd, base)

    def _regular(self, entry: Entry, dir_fd: int, base: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(base, flags, 0o600, dir_fd=dir_fd)
        try:
            self._disinherit(dir_fd, base)
            self._count(entry, entry.size if entry.sparse is None else entry.sparse.size)
            if entry.sparse is None:
                while data := self._archive.read(CHUNK):
                    _write_all(fd, data)
            else:
                self._fragments(entry.sparse, fd)
            self._set_attributes(entry, fd)
            _set_times(fd, entry.mtime_ns)
        finally:
            os.close(fd)

    def _fragments(self, sparse: Sparse, fd: int) -> None:
        """A sparse file: data where there is some, holes between."""
        os.ftruncate(fd, sparse.size)
        self.hole_bytes += sparse.size - sum(length for _, length in sparse.fragments)
        for offset, length in sparse.fragments:
            os.lseek(fd, offset, os.SEEK_SET)
            left = length
            while left:
                data = self._archive.read(min(left, CHUNK))
                _write_all(fd, data)
                left -= len(data)

    def _hard_link(self, entry: Entry, dir_fd: int, base: bytes) -> None:
        """A link to an entry of this archive: a name below the root, whose last component is not followed."""
        parts = components(entry, entry.linkname)
        try:
            if not parts:
                raise HostileEntry(name=entry.shown, reason="a hard link to the root")
            target_fd = open_in_root(self._root_fd, b"/".join(parts[:-1]) or b".", os.O_PATH | os.O_DIRECTORY)
            try:
                os.link(parts[-1], base, src_dir_fd=target_fd, dst_dir_fd=dir_fd, follow_symlinks=False)
            finally:
                os.close(target_fd)
        except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
            shown = entry.linkname[:200].decode("utf-8", "backslashreplace")
            raise HostileEntry(
                name=entry.shown,
                reason=f"a hard link to {shown!r}, which is no file of this archive ({error.strerror})",
            ) from None

    def _whiteout(self, entry: Entry, parents: list[bytes], base: bytes) -> None:
        """Hide a name of the layers below, or with the opaque marker all of a directory."""
        if base == OPAQUE_MARKER:
            self._make_opaque(parents, entry)
            return
        if base.startswith(WHITEOUT_META_PREFIX):
            return
        self._hide(entry, parents, whiteout_target(entry, base))

    def _is_whiteout(self, there: os.stat_result) -> bool:
        return stat.S_ISCHR(there.st_mode) and there.st_rdev == 0

    def _hide(self, entry: Entry, parents: list[bytes], target: bytes) -> None:
        dir_fd = self._parent(entry, parents)
        try:
            os.mknod(target, stat.S_IFCHR, 0, dir_fd=dir_fd)
        except FileExistsError:
            # Whiteouts concern lower layers alone: what this layer has under the name stays, and hides what is below.
            if stat.S_ISDIR(os.stat(target, dir_fd=dir_fd, follow_symlinks=False).st_mode):
                self._make_opaque([*parents, target], entry)

    def _make_opaque(self, parts: list[bytes], entry: Entry) -> None:
        os.setxattr(self._parent(entry, parts), OPAQUE_XATTR, b"y")

    # --- attributes

    def _set_attributes(self, entry: Entry, fd: int) -> None:
        """Owner, then mode (chown clears set-id bits), then xattrs (chown clears capabilities)."""
        self._inherits |= acl.DEFAULT in entry.xattrs
        os.fchown(fd, entry.uid, entry.gid)
        os.fchmod(fd, entry.mode)
        for key, value in entry.xattrs.items():
            if not key.startswith(REFUSED_XATTRS):
                _set_xattr(fd, key, value)

    def _disinherit(self, dir_fd: int, base: bytes) -> None:
        """Take away what a directory's default access control list (acl(5)) gives to whatever is made in it."""
        if self._inherits:
            for key in (acl.ACCESS, acl.DEFAULT):
                with contextlib.suppress(OSError):
                    os.removexattr(b"/proc/self/fd/%d/%s" % (dir_fd, base), key, follow_symlinks=False)

    def _set_directory(self, entry: Entry, dir_fd: int, base: bytes) -> None:
        fd = os.open(base, DIRECTORY_FLAGS | os.O_NOFOLLOW, dir_fd=dir_fd)
        try:
            self._set_attributes(entry, fd)
        finally:
            os.close(fd)

    def _set_attributes_by_name(self, entry: Entry, dir_fd: int, base: bytes) -> None:
        """The same for what cannot be opened: links, devices, fifos; nothing is followed."""
        os.chown(base, entry.uid, entry.gid, dir_fd=dir_fd, follow_symlinks=False)
        if entry.type != SYMLINK:
            _chmod_node(dir_fd, base, entry.mode)
        for key, value in entry.xattrs.items():
            if not key.startswith(REFUSED_XATTRS):
                _set_xattr(b"/proc/self/fd/%d/%s" % (dir_fd, base), key, value)
        os.utime(base, ns=_times(entry.mtime_ns), dir_fd=dir_fd, follow_symlinks=False)

    def _count(self, entry: Entry, size: int) -> None:
        self.size_bytes += size
        if self.size_bytes > self._limits.content_bytes:
            reason = f"more than {self._limits.content_bytes} bytes unpacked, at {entry.shown}"
            raise LayerTooLarge(reason=reason, key="max-layer-size")


class _Applier(Extractor):
    """An unpacking onto the tree of the layers below: what a whiteout names goes, unless this layer made it."""

    def __init__(self, root_fd: int, archive: TarReader, limits: LayerLimits) -> None:
        super().__init__(root_fd, archive, limits)
        self._inherits = True  # from what the layers below have
        self._made: set[bytes] = set()

    def extract(self, entry: Entry) -> None:
        super().extract(entry)
        parts = components(entry, entry.name)
        if parts and not parts[-1].startswith(WHITEOUT_PREFIX):
            self._made.add(b"/".join(parts))
            while (parts := parts[:-1]) and (path := b"/".join(parts)) not in self._made:
                self._made.add(path)

    def _set_attributes(self, entry: Entry, fd: int) -> None:
        for key in os.listxattr(fd):  # of the directory that the layers below have here
            if os.fsencode(key) not in entry.xattrs:
                with contextlib.suppress(OSError):
                    os.removexattr(fd, key)
        super()._set_attributes(entry, fd)

    def _is_whiteout(self, there: os.stat_result) -> bool:
        return False

    def _hide(self, entry: Entry, parents: list[bytes], target: bytes) -> None:
        self._close_dirs()
        self._clear(self._parent(entry, parents), target, b"/".join([*parents, target]))

    def _make_opaque(self, parts: list[bytes], entry: Entry) -> None:
        self._close_dirs()
        dir_fd = self._parent(entry, parts)
        for name in map(os.fsencode, os.listdir(dir_fd)):
            self._clear(dir_fd, name, b"/".join([*parts, name]))

    def _clear(self, dir_fd: int, name: bytes, path: bytes) -> None:
        """Remove what the layers below have under a name; directories of this layer keep what is this layer's."""
        if path not in self._made:
            remove_tree(dir_fd, name)
        elif stat.S_ISDIR(os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_mode):
            below = os.open(name, DIRECTORY_FLAGS | os.O_NOFOLLOW, dir_fd=dir_fd)
            try:
                for inner in map(os.fsencode, os.listdir(below)):
                    self._clear(below, inner, path + b"/" + inner)
            finally:
                os.close(below)


_EXTRACTORS: Final = {Whiteouts.OVERLAY: Extractor, Whiteouts.APPLIED: _Applier}
_NODE_TYPES: Final = {CHAR_DEVICE: stat.S_IFCHR, BLOCK_DEVICE: stat.S_IFBLK, FIFO: stat.S_IFIFO}


def _write_all(fd: int, data: bytes) -> None:
    written = os.write(fd, data)
    while written < len(data):
        written += os.write(fd, data[written:])


def _chmod_node(dir_fd: int, base: bytes, mode: int) -> None:
    """chmod(2) of a device or fifo, which must not be opened, without following a link that may stand there by now."""
    with closing(os.open(base, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)) as fd:
        if not stat.S_ISLNK(os.fstat(fd).st_mode):
            os.chmod(f"/proc/self/fd/{fd}", mode)


def _set_xattr(where: int | bytes, key: bytes, value: bytes) -> None:
    """Set one, without following; a kind that this file system does not have is left out, a capability never is."""
    try:
        if isinstance(where, int):
            os.setxattr(where, key, value)
        else:
            os.setxattr(where, key, value, follow_symlinks=False)
    except OSError as error:
        tolerable = error.errno in (errno.ENOTSUP, errno.EPERM) and key != b"security.capability"
        if not tolerable:
            raise


_TIME_MAX_NS: Final = (2**34 - 2**31 - 1) * 10**9
_TIME_MIN_NS: Final = -(2**31) * 10**9
"""What ext4 can store; others store at least as much or clamp by themselves."""


def _times(mtime_ns: int) -> tuple[int, int]:
    clamped = max(_TIME_MIN_NS, min(mtime_ns, _TIME_MAX_NS))
    return clamped, clamped


def _set_times(fd: int, mtime_ns: int) -> None:
    os.utime(fd, ns=_times(mtime_ns))
