"""Paths below a directory that someone else controls, reached by descriptor only (openat2(2)).

Whoever can write below `root` can swap any component at any time. `openat2` resolves the whole path in one call that
cannot leave `root`; on kernels or sandboxes without it, `_walk` does the same a component at a time on O_PATH
descriptors, following symbolic links itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
from collections.abc import Iterator

from pier.kernel.syscalls import SYS, libc, prototype, raise_errno

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

O_PATH = os.O_PATH

PROC_SUPER_MAGIC = 0x9FA0
SYSFS_MAGIC = 0x62656572
TMPFS_MAGIC = 0x01021994
CGROUP_SUPER_MAGIC = 0x27E0EB
CGROUP2_SUPER_MAGIC = 0x63677270
OVERLAYFS_SUPER_MAGIC = 0x794C7630
BTRFS_SUPER_MAGIC = 0x9123683E

SYMLINKS_MAX = 40
"""As MAXSYMLINKS in the kernel: more in one look-up is ELOOP."""
MAGICLINK_FS = frozenset({PROC_SUPER_MAGIC})


class open_how(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


class _statfs(ctypes.Structure):
    """The head of struct statfs (statfs(2)) on 64-bit machines; the rest is padding."""

    _fields_ = (("f_type", ctypes.c_long), ("rest", ctypes.c_char * 256))


_openat2 = prototype(SYS.openat2, ctypes.c_int, ctypes.c_char_p, ctypes.POINTER(open_how), ctypes.c_size_t)
libc.fstatfs.argtypes = (ctypes.c_int, ctypes.POINTER(_statfs))

RACE_RETRIES = 128
"""openat2 answers EAGAIN when a rename or mount raced with the look-up; a caller is expected to try again."""


def openat2(dir_fd: int, path: str | bytes, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """Open `path` relative to `dir_fd` under the rules of `resolve` (openat2(2)); returns a close-on-exec fd."""
    how = open_how(flags | os.O_CLOEXEC, mode, resolve)
    raw = os.fsencode(path)
    for _ in range(RACE_RETRIES):
        fd = _openat2(dir_fd, raw, ctypes.byref(how), ctypes.sizeof(how))
        if fd >= 0:
            return fd
        if ctypes.get_errno() not in (errno.EAGAIN, errno.EINTR):
            break
    raise_errno("openat2", os.fsdecode(raw))


def open_in_root(
    root_fd: int,
    path: str | bytes,
    flags: int,
    mode: int = 0,
    *,
    resolve: int = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
) -> int:
    """Open `path` as a process whose root is `root_fd` would: `..` and absolute links stop at the root.

    Returns a close-on-exec descriptor. Raises OSError: ELOOP for a magic link (`/proc/self/fd/7`), EXDEV where
    `resolve` forbids what the path does, and what open(2) raises.
    """
    try:
        return openat2(root_fd, path, flags, mode, resolve)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
    return _walk(root_fd, os.fsdecode(path), flags, mode, resolve)


def _walk(root_fd: int, path: str, flags: int, mode: int, resolve: int) -> int:
    """`open_in_root` without openat2: one component at a time, each opened O_NOFOLLOW below the one before."""
    walk = _Walk(root_fd, path, resolve)
    try:
        while walk.pending:
            last = len(walk.pending) == 1
            if last and flags & os.O_CREAT and walk.pending[0] != "..":
                created = _create_last(walk.stack[-1], walk.pending[0], flags, mode)
                if created is not None:
                    return created
            walk.step(follow=not (last and flags & os.O_NOFOLLOW and not walk.must_be_directory))
        return _reopen(walk.stack[-1], flags | (os.O_DIRECTORY if walk.must_be_directory else 0), path)
    finally:
        walk.close()


class _Walk:
    """A look-up on its way. `stack` holds an O_PATH descriptor for each directory from the root to here, so `..` is a
    pop, and no rename can move it from under us."""

    def __init__(self, root_fd: int, path: str, resolve: int) -> None:
        self.path = path
        self.resolve = resolve
        self.pending = _components(path)
        self.must_be_directory = path.endswith("/")
        self.stack = [os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root_fd)]
        self._device = os.fstat(self.stack[0]).st_dev
        self._links = 0

    def step(self, *, follow: bool) -> None:
        """Take the next component; a symbolic link is replaced by the components it stands for if `follow`."""
        part = self.pending.pop()
        if part == "..":
            self._up()
            return
        fd = os.open(part, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.stack[-1])
        info = os.fstat(fd)
        if stat.S_ISLNK(info.st_mode) and follow:
            with closing(fd):
                self._links += 1
                self._splice(_link_target(fd, self.path, self.resolve, self._links))
            return
        self.stack.append(fd)
        if self.resolve & RESOLVE_NO_XDEV and info.st_dev != self._device:
            raise_errno("openat2", self.path, number=errno.EXDEV)
        if self.pending and not stat.S_ISDIR(info.st_mode):
            raise_errno("openat2", self.path, number=errno.ENOTDIR)

    def _up(self) -> None:
        if len(self.stack) > 1:
            os.close(self.stack.pop())
        elif self.resolve & RESOLVE_BENEATH:
            raise_errno("openat2", self.path, number=errno.EXDEV)

    def _splice(self, target: str) -> None:
        if target.startswith("/"):
            while len(self.stack) > 1:
                os.close(self.stack.pop())
        self.must_be_directory = self.must_be_directory or (not self.pending and target.endswith("/"))
        self.pending += _components(target)

    def close(self) -> None:
        for fd in self.stack:
            os.close(fd)


def _components(path: str) -> list[str]:
    """The components of a path, last first."""
    return [part for part in path.split("/") if part not in ("", ".")][::-1]


def _create_last(parent_fd: int, name: str, flags: int, mode: int) -> int | None:
    """Create the last component if it is not there; None when it is (a link is then followed by the caller)."""
    try:
        return os.open(name, flags | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=parent_fd)
    except FileExistsError:
        if flags & os.O_EXCL:
            raise
        return None


def _link_target(fd: int, path: str, resolve: int, links: int) -> str:
    """Where the link behind the O_PATH descriptor `fd` points, if `resolve` lets a look-up follow it."""
    if resolve & RESOLVE_NO_SYMLINKS or links > SYMLINKS_MAX:
        raise_errno("openat2", path, number=errno.ELOOP)
    target = os.readlink("", dir_fd=fd)
    magic = fs_magic(fd) in MAGICLINK_FS and not _is_plain_proc_link(target)
    if magic and resolve & (RESOLVE_NO_MAGICLINKS | RESOLVE_IN_ROOT):
        raise_errno("openat2", path, number=errno.ELOOP)
    if target.startswith("/") and resolve & RESOLVE_BENEATH:
        raise_errno("openat2", path, number=errno.EXDEV)
    return target


def _is_plain_proc_link(target: str) -> bool:
    """procfs has a few ordinary relative links (`self`, `thread-self`, `mounts`, `net`); all others are magic."""
    first = target.split("/", 1)[0]
    return first.isdigit() or target in ("self/mounts", "self/net")


def _reopen(fd: int, flags: int, path: str) -> int:
    """Turn an O_PATH descriptor into one with `flags`, through procfs, which cannot be led astray."""
    keep = flags & ~(os.O_CREAT | os.O_NOFOLLOW | os.O_EXCL)
    if flags & os.O_DIRECTORY and not stat.S_ISDIR(os.fstat(fd).st_mode):
        raise_errno("openat2", path, number=errno.ENOTDIR)
    if flags & os.O_PATH:
        return os.dup(fd)
    if stat.S_ISLNK(os.fstat(fd).st_mode):
        raise_errno("openat2", path, number=errno.ELOOP)
    return os.open(f"/proc/self/fd/{fd}", keep | os.O_CLOEXEC)


def fs_magic(fd: int) -> int:
    """The file system's magic number (statfs(2)), e.g. PROC_SUPER_MAGIC."""
    buffer = _statfs()
    if libc.fstatfs(fd, ctypes.byref(buffer)) < 0:
        raise_errno("fstatfs", fd)
    return int(buffer.f_type) & 0xFFFFFFFF


def require_fs(fd: int, magic: int, what: str) -> None:
    """Raise EXDEV unless `fd` is on the file system it should be on: a volume or a link may stand in its place."""
    found = fs_magic(fd)
    if found != magic:
        raise OSError(errno.EXDEV, f"{what} is on a file system of type {found:#x}, not {magic:#x}: refused")


def mkdir_in_root(root_fd: int, path: str, mode: int = 0o755, *, links: int = 0) -> int:
    """Make `path` and its parents below `root_fd`; returns an O_PATH descriptor of the directory.

    Existing links are followed inside the root, as `mkdir -p` run there would; `links` counts those that led to nothing
    yet. Raises OSError ENOTDIR, ELOOP, ….
    """
    flags = os.O_PATH | os.O_DIRECTORY
    place, missing = path, list[str]()
    while True:
        try:
            fd = open_in_root(root_fd, place or "/", flags)
            break
        except FileNotFoundError:
            place, name = split(place)
            if not name:
                raise
            missing.append(name)
    while missing:
        with closing(fd):
            name = missing.pop()
            try:
                os.mkdir(name, mode, dir_fd=fd)
            except FileExistsError:
                target = _dangling_target(fd, name)
                if target is not None:
                    if links == SYMLINKS_MAX:
                        raise_errno("mkdir", path, number=errno.ELOOP)
                    os.close(mkdir_in_root(root_fd, os.path.join("/" + place, target), mode, links=links + 1))
            # What stands at `name` now may be a link put there since; it is resolved inside the root like any other.
            place = f"{place}/{name}"
            below = open_in_root(root_fd, place, flags)
        fd = below
    return fd


def _dangling_target(parent_fd: int, name: str) -> str | None:
    """Where a link that leads to nothing yet points. Links of procfs are magic: their text is not where they lead."""
    if fs_magic(parent_fd) in MAGICLINK_FS:
        return None
    try:
        return os.readlink(name, dir_fd=parent_fd)
    except OSError:
        return None


def touch_in_root(root_fd: int, path: str, mode: int = 0o644) -> int:
    """Make sure that a non-directory exists at `path` below `root_fd`; returns an O_PATH descriptor of it."""
    with contextlib.suppress(FileNotFoundError):
        return open_in_root(root_fd, path, os.O_PATH)
    parent, name = split(path)
    parent_fd = mkdir_in_root(root_fd, parent)
    try:
        fd = os.open(name, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_WRONLY | os.O_CLOEXEC, mode, dir_fd=parent_fd)
        os.close(fd)
        return open_in_root(parent_fd, name, os.O_PATH | os.O_NOFOLLOW)
    finally:
        os.close(parent_fd)


def split(path: str) -> tuple[str, str]:
    """(parent, last component) of a path as resolved from the root; ("", "") for the root itself."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not parts:
        return "", ""
    return "/".join(parts[:-1]), parts[-1]


@contextlib.contextmanager
def closing(fd: int) -> Iterator[int]:
    """Close a descriptor when the block is left."""
    try:
        yield fd
    finally:
        os.close(fd)
