"""Mounts that a process keeps without a place in any tree: copied for others as often as it likes.

A detached mount cannot be copied before Linux 6.15 (open_tree(2)), so it is made the root of a mount namespace in which
no process is. It is gone with the last descriptor: nothing of it shows in any other namespace, a kill leaves nothing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

from pier.kernel import mounts, namespaces
from pier.kernel.paths import closing, open_in_root

T = TypeVar("T")
Identity = tuple[int, int]
"""st_dev and st_ino of a file system's root."""


class Held(NamedTuple):
    """A mount that is kept, until `close`."""

    root_fd: int
    namespace_fd: int

    def copy(self) -> int:
        """A descriptor of a mount of the same file system that belongs to no tree. Raises OSError."""
        return _aside(lambda: _copy_root(self.namespace_fd))

    def close(self) -> None:
        os.close(self.root_fd)
        os.close(self.namespace_fd)


def hold(mount_fd: int) -> Held:
    """Keep a detached mount, whose descriptor is closed. Raises OSError."""
    with closing(mount_fd):
        return _aside(lambda: _hold(mount_fd))


def _hold(mount_fd: int) -> Held:
    """In a mount namespace of this thread's own: make the mount its root, and let go of the host's mounts."""
    namespaces.unshare(namespaces.CLONE_NEWNS)
    mounts.mount(None, "/", None, mounts.MS_SLAVE | mounts.MS_REC)
    with contextlib.ExitStack() as undo:
        namespace_fd = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        undo.callback(os.close, namespace_fd)
        with closing(os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as place:
            mounts.move_mount(mount_fd, place, "/")
        root_fd = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mount_fd)
        # Where the host's root is its initramfs it cannot be put away: then its mounts stay below, unseen.
        with contextlib.suppress(OSError):
            os.fchdir(root_fd)
            mounts.pivot_root(".", ".")
            mounts.umount(".", mounts.MNT_DETACH)
        undo.pop_all()
        return Held(root_fd, namespace_fd)


def _copy_root(namespace_fd: int) -> int:
    namespaces.unshare(namespaces.CLONE_FS)
    namespaces.setns(namespace_fd, namespaces.CLONE_NEWNS)
    return mounts.open_tree(mounts.AT_FDCWD, "/", clone=True)


def copy_from(pid: int, target: str, identity: Identity) -> int | None:
    """A copy of what a process has mounted at `target`; None: it has something else there, or is gone.

    Nothing is looked up by a path outside that process's root, and nothing but descriptors leaves it.
    """
    try:
        with closing(os.open(namespaces.namespace_path(pid, "mount"), os.O_RDONLY | os.O_CLOEXEC)) as namespace:
            return _aside(lambda: _copy_within(namespace, target, identity))
    except OSError:
        return None


def _copy_within(namespace_fd: int, target: str, identity: Identity) -> int | None:
    namespaces.unshare(namespaces.CLONE_FS)
    namespaces.setns(namespace_fd, namespaces.CLONE_NEWNS)
    with closing(os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as root:
        fd = open_in_root(root, target, os.O_PATH | os.O_DIRECTORY)
    with closing(fd):
        if identity_of(fd) != identity:
            return None
        return mounts.open_tree(fd, "", clone=True)


def identity_of(fd: int) -> Identity:
    info = os.fstat(fd)
    return info.st_dev, info.st_ino


def _aside(deed: Callable[[], T]) -> T:
    """In a thread that ends with it: what it leaves and joins touches no other."""
    with ThreadPoolExecutor(1, thread_name_prefix="volume-mount") as thread:
        return thread.submit(deed).result()
