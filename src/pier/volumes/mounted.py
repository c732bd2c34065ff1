"""Volumes whose options describe a mount (`type`, `o`, `device`): mounted for the first user, gone with the last.

Nothing is mounted where the host sees it. The mount is the root of a mount namespace in which no process is, kept by a
descriptor of the daemon's; every container gets a copy of the mount that belongs to no tree (open_tree(2)), and moves
it to its place. All of them are one file system, so a tmpfs has the same files in every container. When the daemon is
killed its namespace goes with it, and the file system stays for as long as a container has it: nothing is left over on
the host. The next daemon takes a copy back out of the mount namespace of a container that runs.

What a container shows at the volume's place may not be the volume: its programs may mount there. So the device and the
inode of a file system's root are noted in the exec root, and what has others is not taken.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

from pier.kernel import mounts, namespaces
from pier.kernel.paths import closing, open_in_root
from pier.volumes.options import MountPlan

T = TypeVar("T")
Identity = tuple[int, int]
"""st_dev and st_ino of a file system's root."""


class Donor(NamedTuple):
    """A container that was running when the daemon came up, and where it has the volume."""

    pid: int
    target: str


class Held(NamedTuple):
    """A mount that the daemon keeps."""

    root_fd: int
    namespace_fd: int

    def copy(self) -> int:
        """A descriptor of a mount of the same file system that belongs to no tree. Raises OSError."""
        return _aside(lambda: _copy_root(self.namespace_fd))

    def close(self) -> None:
        os.close(self.root_fd)
        os.close(self.namespace_fd)


def make(plan: MountPlan) -> int:
    """A detached mount as the plan says. Raises OSError, with what the kernel has to say."""
    options = plan.options
    if plan.bind:
        fd = mounts.open_tree(mounts.AT_FDCWD, plan.device, clone=True, recursive=options.recursive_bind)
        try:
            if not stat.S_ISDIR(os.fstat(fd).st_mode):
                raise NotADirectoryError(20, "not a directory", plan.device)
            if options.set or options.clear:
                mounts.mount_setattr(fd, set=options.set, clear=options.clear)
            if options.recursive_set or options.recursive_clear:
                mounts.mount_setattr(fd, set=options.recursive_set, clear=options.recursive_clear, recursive=True)
        except BaseException:
            os.close(fd)
            raise
        return fd
    words = list(options.filesystem)
    if options.set & mounts.MOUNT_ATTR_RDONLY:
        words.append(("ro", None))  # of the file system as well: a device may be one that cannot be written
    return mounts.mount_filesystem(plan.fstype, words, options.set, source=plan.device)


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


def take_back(donor: Donor, identity: Identity) -> int | None:
    """A copy of what a running container has mounted; None: it has something else there, or is gone.

    Nothing is looked up by a path outside the container's root, and nothing but descriptors leaves it.
    """
    try:
        with closing(os.open(namespaces.namespace_path(donor.pid, "mount"), os.O_RDONLY | os.O_CLOEXEC)) as namespace:
            return _aside(lambda: _copy_within(namespace, donor.target, identity))
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


class Mounted:
    """One volume that is, or was found to be, in use. Its owner sees to it that one thread uses it at a time."""

    def __init__(self, plan: MountPlan, note: str) -> None:
        self.plan = plan
        self.users: set[str] = set()
        self.donors: dict[str, Donor] = {}
        """User -> where to take the mount back from; of an earlier daemon's users."""
        self._note = note
        self._held: Held | None = None

    def acquire(self, user: str) -> tuple[int, bool]:
        """(a copy of the mount for a user, whether the file system was mounted for it). Raises OSError."""
        if self.plan.bind:
            fd, fresh = make(self.plan), False
        else:
            fresh = self._ensure()
            assert self._held is not None
            fd = self._held.copy()
        self.users.add(user)
        return fd, fresh

    def _ensure(self) -> bool:
        """Have the mount in hand; True: the file system was made, or found, by this."""
        if self._held is not None:
            return False
        if self.plan.own_instance and self._taken_back():
            return False
        self._held = hold(make(self.plan))
        os.makedirs(os.path.dirname(self._note), mode=0o700, exist_ok=True)
        with open(self._note, "w", encoding="ascii") as file:
            file.write("{} {}".format(*identity_of(self._held.root_fd)))
        return True

    def _taken_back(self) -> bool:
        identity = self._noted()
        if identity is None:
            return False
        for donor in self.donors.values():
            fd = take_back(donor, identity)
            if fd is not None:
                self._held = hold(fd)
                return True
        return False

    def _noted(self) -> Identity | None:
        try:
            with open(self._note, encoding="ascii") as file:
                device, inode = file.read(64).split()
                return int(device), int(inode)
        except (OSError, ValueError):
            return None

    def release(self, user: str) -> bool:
        """A user has ended; True: it was the last, and the mount is let go of."""
        self.users.discard(user)
        self.donors.pop(user, None)
        if self.users:
            return False
        self.close()
        with contextlib.suppress(OSError):
            os.unlink(self._note)
        return True

    def close(self) -> None:
        """Let go of the daemon's own mount; the containers keep theirs."""
        if self._held is not None:
            self._held.close()
            self._held = None
