"""The mount API that works on descriptors: fsopen, fsconfig, fsmount, open_tree, move_mount, mount_setattr.

A file system is configured and mounted without a place in any tree, prepared through its descriptor, and attached
last; no path is resolved twice. mount(2) remains for propagation changes and for options too old for fsconfig.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os

from pier.kernel.paths import BTRFS_SUPER_MAGIC, closing, fs_magic
from pier.kernel.syscalls import SYS, libc, prototype, raise_errno

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
AT_SYMLINK_NOFOLLOW = 0x100

FSOPEN_CLOEXEC = 1
FSMOUNT_CLOEXEC = 1
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6

OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC

MOVE_MOUNT_F_EMPTY_PATH = 0x04
MOVE_MOUNT_T_EMPTY_PATH = 0x40

MOUNT_ATTR_RDONLY = 0x01
MOUNT_ATTR_NOSUID = 0x02
MOUNT_ATTR_NODEV = 0x04
MOUNT_ATTR_NOEXEC = 0x08
MOUNT_ATTR__ATIME = 0x70
MOUNT_ATTR_RELATIME = 0x00
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_IDMAP = 0x00100000
MOUNT_ATTR_NOSYMFOLLOW = 0x00200000

MS_RDONLY = 0x1
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_REC = 0x4000
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MNT_DETACH = 2

PROPAGATION = {
    "private": MS_PRIVATE,
    "rprivate": MS_PRIVATE | MS_REC,
    "slave": MS_SLAVE,
    "rslave": MS_SLAVE | MS_REC,
    "shared": MS_SHARED,
    "rshared": MS_SHARED | MS_REC,
    "unbindable": MS_UNBINDABLE,
    "runbindable": MS_UNBINDABLE | MS_REC,
}
"""Words of runtime-spec mount options and `linux.rootfsPropagation`."""


class mount_attr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


_fsopen = prototype(SYS.fsopen, ctypes.c_char_p, ctypes.c_uint)
_fsconfig = prototype(SYS.fsconfig, ctypes.c_int, ctypes.c_uint, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int)
_fsmount = prototype(SYS.fsmount, ctypes.c_int, ctypes.c_uint, ctypes.c_uint)
_open_tree = prototype(SYS.open_tree, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
_move_mount = prototype(SYS.move_mount, ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
_mount_setattr = prototype(
    SYS.mount_setattr,
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_uint,
    ctypes.POINTER(mount_attr),
    ctypes.c_size_t,
)
_pivot_root = prototype(SYS.pivot_root, ctypes.c_char_p, ctypes.c_char_p)
libc.mount.argtypes = (
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_ulong,
    ctypes.c_char_p,
)


def mount_filesystem(
    fstype: str, options: list[tuple[str, str | None]], attributes: int = 0, *, source: str | None = None
) -> int:
    """Make a detached mount of a file system; returns a descriptor of its root.

    `options` are the file system's own (`("size", "65536k")`, a flag as `("ro", None)`); `attributes` are
    MOUNT_ATTR_* of the mount; `source` is what the mount table shows as its device.
    Raises OSError with what the kernel wrote into the context's log.
    """
    context = _fsopen(fstype.encode(), FSOPEN_CLOEXEC)
    if context < 0:
        raise_errno("fsopen", fstype)
    try:
        for key, value in [("source", source or fstype), *options]:
            command = FSCONFIG_SET_FLAG if value is None else FSCONFIG_SET_STRING
            encoded = None if value is None else os.fsencode(value)
            if _fsconfig(context, command, key.encode(), encoded, 0) < 0:
                _raise_context(context, f"mount {fstype}, option {key}{'' if value is None else '=' + value}")
        if _fsconfig(context, FSCONFIG_CMD_CREATE, None, None, 0) < 0:
            _raise_context(context, f"mount {fstype}")
        fd = _fsmount(context, FSMOUNT_CLOEXEC, attributes)
        if fd < 0:
            _raise_context(context, f"mount {fstype}")
        return fd
    finally:
        os.close(context)


def _raise_context(context: int, what: str) -> None:
    """Raise the errno of the call before, with the messages the kernel left in the fscontext's log."""
    number = ctypes.get_errno()
    lines = []
    with contextlib.suppress(OSError):
        while line := os.read(context, 512):
            lines.append(line.decode(errors="replace").strip().removeprefix("e "))
    detail = "; ".join(lines) or os.strerror(number)
    raise OSError(number, f"{what}: {detail}")


VOLATILE = "work/incompat"
"""Below the work directory of an overlay that was mounted volatile: the kernel's mark that files may be missing."""
OPTIONS_MAX = os.sysconf("SC_PAGE_SIZE") - 1
"""What mount(2) reads of its options, in bytes; it drops the rest without a word."""


def mount_overlay(
    lower: list[str],
    upper: str,
    work: str,
    extra: list[tuple[str, str | None]] | None = None,
    *,
    volatile: bool = False,
) -> int:
    """A detached overlay mount; `lower` topmost first. Any number of layers where the kernel can (Linux 6.7).

    A `volatile` one never waits for the disk, where the kernel can (Linux 5.10): not for fsync(2), and not for all of
    the file system when it is unmounted. It leaves `VOLATILE` in `work`, which the next mount of `upper` refuses.

    Before that fsconfig takes strings of 255 bytes at most and mount(2) one page of options: the layers are then named
    by descriptor (`/proc/self/fd/N`), which leaves room for about 200, on a mount made with mount(2) and cloned.
    """
    upper_options: list[tuple[str, str | None]] = [("upperdir", upper), ("workdir", work), *(extra or [])]
    if volatile and kernel_version() >= (5, 10):
        upper_options.append(("volatile", None))
    # An old kernel is not asked: it would complain in its log of every container.
    if kernel_version() >= (6, 7):
        try:
            return mount_filesystem("overlay", [("lowerdir+", path) for path in lower] + upper_options)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
    return mount_overlay_by_fds(lower, upper_options, upper)


def kernel_version() -> tuple[int, int]:
    major, _, rest = os.uname().release.partition(".")
    minor = rest.partition(".")[0].partition("-")[0]
    return int(major), int(minor) if minor.isdecimal() else 0


def mount_overlay_by_fds(
    lower: list[str], upper_options: list[tuple[str, str | None]], place: str, flags: int = 0
) -> int:
    """The way of kernels before 6.7: mounted on the directory `place` for a moment, which others see."""
    with contextlib.ExitStack() as stack:

        def pinned(path: str) -> str:
            fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, fd)
            return f"/proc/self/fd/{fd}"

        options: list[tuple[str, str | None]] = [("lowerdir", ":".join(map(pinned, lower)))]
        options += [(k, pinned(v) if v is not None and k in ("upperdir", "workdir") else v) for k, v in upper_options]
        text = ",".join(key if value is None else f"{key}={value}" for key, value in options)
        if len(text) > OPTIONS_MAX:
            raise OSError(errno.E2BIG, f"mount overlay: {len(lower)} layers are more than Linux before 6.7 can stack")
        mount("overlay", place, "overlay", flags, text)
        try:
            return open_tree(AT_FDCWD, place, clone=True)
        finally:
            umount(place)


def open_tree(dir_fd: int, path: str, *, clone: bool = False, recursive: bool = False) -> int:
    """A descriptor of a mount, or with `clone` of a detached copy of it, as `mount --bind` makes (open_tree(2)).

    With path "" the object is `dir_fd` itself.
    """
    flags = OPEN_TREE_CLOEXEC | (OPEN_TREE_CLONE if clone else 0) | (AT_RECURSIVE if recursive else 0)
    flags |= AT_EMPTY_PATH if not path else 0
    fd = _open_tree(dir_fd, os.fsencode(path), flags)
    if fd < 0:
        raise_errno("open_tree", path or f"fd {dir_fd}")
    return fd


def move_mount(mount_fd: int, target_fd: int, what: str = "") -> None:
    """Attach a detached mount onto the very object behind `target_fd`; `what` names it in the error."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH
    if _move_mount(mount_fd, b"", target_fd, b"", flags) < 0:
        raise_errno("move_mount", what)


def mount_setattr(
    fd: int,
    *,
    set: int = 0,
    clear: int = 0,
    propagation: int = 0,
    userns_fd: int = 0,
    recursive: bool = False,
) -> None:
    """Change attributes of the mount behind `fd` (mount_setattr(2))."""
    attr = mount_attr(set, clear, propagation, userns_fd)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    if _mount_setattr(fd, b"", flags, ctypes.byref(attr), ctypes.sizeof(attr)) < 0:
        raise_errno("mount_setattr", hex(set))


def mount(source: str | None, target: str, fstype: str | None, flags: int, data: str | None = None) -> None:
    """mount(2), for what the descriptor API cannot say."""
    encoded = [None if text is None else os.fsencode(text) for text in (source, target, fstype, data)]
    if libc.mount(encoded[0], encoded[1], encoded[2], flags, encoded[3]) < 0:
        raise_errno("mount", fstype or "", target)


def umount(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    if libc.umount2(os.fsencode(target), flags) < 0:
        raise_errno("umount2", target)


def filesystem_type(path: str) -> str:
    """The kernel's name for the file system that `path` is on (proc(5), mountinfo); empty: not found."""
    device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            fields = line.split()
            if fields[2] == wanted:
                return fields[fields.index("-") + 1]
    # btrfs gives every subvolume a device number of its own, which no mount has.
    with closing(os.open(path, os.O_PATH | os.O_CLOEXEC)) as fd:
        return "btrfs" if fs_magic(fd) == BTRFS_SUPER_MAGIC else ""


def pivot_root(new_root: str, put_old: str) -> None:
    """Swap the root mount of this mount namespace (pivot_root(2))."""
    if _pivot_root(os.fsencode(new_root), os.fsencode(put_old)) < 0:
        raise_errno("pivot_root", new_root)
