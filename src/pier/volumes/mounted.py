"""Volumes whose options describe a mount (`type`, `o`, `device`): mounted for the first user, gone with the last.

Nothing is mounted where the host sees it. The daemon holds the mount (`kernel.held_mounts`); every container gets a
copy of it that belongs to no tree, and moves that to its place. All of them are one file system, so a tmpfs has the
same files in every container. When the daemon is killed what it held goes with it, and the file system stays for as
long as a container has it: nothing is left over on the host. The next daemon takes a copy back out of the mount
namespace of a container that runs.

What a container shows at the volume's place may not be the volume: its programs may mount there. So the device and the
inode of a file system's root are noted in the exec root, and what has others is not taken.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import NamedTuple

from pier.kernel import mounts
from pier.kernel.held_mounts import Held, Identity, copy_from, hold, identity_of
from pier.volumes.options import MountPlan


class Donor(NamedTuple):
    """A container that was running when the daemon came up, and where it has the volume."""

    pid: int
    target: str


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


class Mounted:
    """One volume that is, or was found to be, in use. Its owner sees to it that one thread uses it at a time."""

    def __init__(self, plan: MountPlan, note: str) -> None:
        self.plan = plan
        self.users: set[str] = set()
        self.donors: dict[str, Donor] = {}
        """User -> where to take the mount back from; of an earlier daemon's users."""
        self._note = note
        self._held: Held | None = None

    @property
    def in_hand(self) -> bool:
        """Whether the daemon has the mount itself."""
        return self._held is not None

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
            fd = copy_from(donor.pid, donor.target, identity)
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
