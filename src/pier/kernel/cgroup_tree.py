"""A container's directories in every cgroup hierarchy of this machine: made, joined, frozen, emptied, removed.

On v1 and hybrid a container has a directory in each hierarchy, on v2 one. Everything on the path of a container's start
is a plain system call, and this module needs little: the command line's verbs load it and no more. Limits and counters
are `cgroups.Cgroup`'s.
"""

from __future__ import annotations

import errno
import os
import select
import time
from collections.abc import Iterable

from pier.errors import PierError
from pier.kernel import cgroup_files
from pier.kernel.cgroup_layout import Layout

_NOT_PLAIN = frozenset({"", ".", ".."})


class CgroupError(PierError):
    """{deed} cgroup {path}: {reason}"""


class CgroupBusy(CgroupError):
    """{deed} cgroup {path}: still busy after {timeout_s:g} s, processes: {pids}"""

    remedy = "a process in uninterruptible sleep (state D) holds it; it can be removed once that process is gone"


class CgroupTree:
    """The cgroup `path` (`/pier/<id>`) of one container, in every hierarchy of `layout`."""

    __slots__ = ("layout", "path")

    made_around_a_process = False
    """Whether it cannot be there before its first process (`runtime.systemd.Scope`)."""

    def __init__(self, layout: Layout, path: str) -> None:
        first, *names = path.split("/")
        if first or not names or not _NOT_PLAIN.isdisjoint(names):
            raise CgroupError(deed="name", path=path, reason="not an absolute path of plain names")
        self.layout = layout
        self.path = path

    @property
    def _directories(self) -> list[str]:
        return [mount + self.path for mount in self.layout.hierarchies]

    def directory(self, controller: str) -> str | None:
        """The directory that holds a controller's files, None where the kernel has no such controller."""
        mount = self.layout.controllers.get(controller)
        return None if mount is None else mount + self.path

    # --- making and joining ------------------------------------------------------------------------------------------

    def create(self) -> None:
        """Make the cgroup and what is missing above it, ready for a process to join. One that exists is taken over.

        Raises CgroupError or OSError; what was made before the failure is removed again.
        """
        made: list[str] = []
        try:
            for mount, directory in zip(self.layout.hierarchies, self._directories, strict=True):
                if cgroup_files.make(mount, directory):
                    made.append(directory)
            self._prepare()
        except BaseException:
            for directory in reversed(made):
                cgroup_files.remove(directory)
            raise

    def create_around(self, pid: int) -> None:
        """Make the cgroup, and move a process of one thread into it. Raises CgroupError, OSError."""
        self.create()
        self._adopt(pid)

    def _adopt(self, pid: int) -> None:
        inside = cgroup_files.read(f"/proc/{pid}/cgroup")
        for mount, directory in zip(self.layout.hierarchies, self._directories, strict=True):
            if mount != self.layout.unified or f"0::{self.path}\n" not in inside:
                cgroup_files.write(f"{directory}/cgroup.procs", str(pid))

    def _prepare(self) -> None:
        mount = self.layout.controllers.get("cpuset")
        if mount is not None and mount != self.layout.unified:
            cgroup_files.fill_cpuset(mount, self.path)
        if self.layout.mode == "v2" and self.layout.unified is not None:
            wanted = self.layout.controllers.keys()
            if not wanted <= set(cgroup_files.read(f"{self.layout.unified}{self.path}/cgroup.controllers").split()):
                self._delegate(self.layout.unified, wanted)
                self.require_domain()

    def require_domain(self) -> None:
        """Raises CgroupError where this cgroup is below a threaded one: no process can be in it, only threads can."""
        kind = "" if self.layout.unified is None else cgroup_files.read(f"{self.layout.unified}{self.path}/cgroup.type")
        if kind.strip() in {"domain invalid", "threaded"}:
            reason = "it is below a threaded cgroup, which holds threads of one process and no container"
            raise CgroupError(deed="make", path=self.path, reason=reason)

    def _delegate(self, mount: str, controllers: Iterable[str]) -> None:
        try:
            cgroup_files.delegate(mount, self.path, controllers)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            raise CgroupError(deed="make", path=self.path, reason=error.strerror) from error

    def open_entrances(self) -> list[int]:
        """A file for each v1 hierarchy: a process of one thread that writes `0` to it joins. Raises OSError.

        That file is `tasks`: a thread that moves itself does not take the kernel's lock over all forks, which a write
        to `cgroup.procs` does, at the price of an RCU grace period (milliseconds). cgroup2 has no such file; there a
        process is born in its cgroup (`open_unified`).
        """
        fds: list[int] = []
        try:
            for mount, directory in zip(self.layout.hierarchies, self._directories, strict=True):
                if mount != self.layout.unified:
                    fds.append(os.open(f"{directory}/tasks", os.O_WRONLY | os.O_CLOEXEC))
        except BaseException:
            for fd in fds:
                os.close(fd)
            raise
        return fds

    def create_unified(self) -> None:
        """The part of `create` that a process born in this cgroup needs; it can do the rest itself. Raises OSError."""
        if self.layout.unified is not None:
            cgroup_files.make(self.layout.unified, self.layout.unified + self.path)

    def open_unified(self) -> int | None:
        """The directory in the cgroup2 hierarchy, for CLONE_INTO_CGROUP; None where there is none. Raises OSError."""
        if self.layout.unified is None:
            return None
        return os.open(self.layout.unified + self.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def open_unified_of(self, pid: int) -> int | None:
        """As `open_unified`, but where `pid` is now: a container that divided its cgroup takes no process at the top.

        That is v2's rule once its root hands controllers down, as systemd does. Raises OSError.
        """
        where = cgroup_files.read(f"/proc/{pid}/cgroup").rpartition("0::")[2].strip()
        if self.layout.unified is None or not where.startswith(f"{self.path}/"):
            return self.open_unified()
        return os.open(self.layout.unified + where, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)

    # --- processes ---------------------------------------------------------------------------------------------------

    def pids(self) -> list[int]:
        """Processes in this cgroup and below it, sorted; empty when it is gone."""
        # A container may make cgroups of its own below in one v1 hierarchy and not in another: any one knows them all,
        # best the one where only the engine moves them. Another runtime may leave out a hierarchy.
        directories = self._directories[::-1] if self.layout.unified is not None else self._directories
        pids = (sorted(set(cgroup_files.pids_below(directory))) for directory in directories)
        return next(filter(None, pids), [])

    def kill(self, timeout_s: float = 2.0) -> None:
        """SIGKILL every process in this cgroup and below it, forks under way included. Does not wait for their end.

        Raises CgroupBusy when new processes kept coming for `timeout_s` (only where the kernel has no cgroup.kill,
        before Linux 5.14 or on plain v1).
        """
        if self.layout.unified is not None:
            try:
                cgroup_files.write(f"{self.layout.unified}{self.path}/cgroup.kill", "1")
            except OSError as error:
                if error.errno not in {errno.ENOENT, errno.ENODEV}:
                    raise
            else:
                return
        self._kill_each(timeout_s)

    def _kill_each(self, timeout_s: float) -> None:
        """Freeze, so that nothing forks away, signal each, thaw; again while there are processes never signalled."""
        signalled: set[int] = set()
        for _ in cgroup_files.waits(timeout_s):
            frozen = self._try_freeze()
            try:
                pids = set(self.pids())
                for pid in pids:
                    cgroup_files.kill(pid)
            finally:
                if frozen:
                    self.thaw()
            if frozen or pids <= signalled:
                return
            signalled |= pids
        raise CgroupBusy(deed="kill", path=self.path, timeout_s=timeout_s, pids=self.pids())

    def _try_freeze(self) -> bool:
        try:
            self.freeze(timeout_s=0.2)
        except (OSError, CgroupError):
            return False
        return True

    def freeze(self, timeout_s: float = 2.0) -> None:
        """Stop every process in this cgroup and below it (`docker pause`); returns when all stand still.

        Raises CgroupBusy (and thaws again) when one does not within `timeout_s`.
        """
        stands = self._freeze_v1 if self.directory("freezer") is not None else self._freeze_v2
        if not stands(timeout_s):
            self.thaw()
            raise CgroupBusy(deed="freeze", path=self.path, timeout_s=timeout_s, pids=self.pids())

    def _freeze_v1(self, timeout_s: float) -> bool:
        file = f"{self.directory('freezer')}/freezer.state"
        for _ in cgroup_files.waits(timeout_s):
            # Written again each time: a task that forked meanwhile holds the whole group in FREEZING.
            cgroup_files.write(file, "FROZEN")
            if cgroup_files.read(file) == "FROZEN\n":
                return True
        return False

    def _freeze_v2(self, timeout_s: float) -> bool:
        directory = self._unified()
        deadline = time.monotonic() + timeout_s
        fd = os.open(f"{directory}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
        try:
            cgroup_files.write(f"{directory}/cgroup.freeze", "1")
            changed = select.poll()
            changed.register(fd, select.POLLPRI)
            while cgroup_files.flat(os.pread(fd, 4096, 0).decode()).get("frozen") != 1:
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                changed.poll(left * 1000)
        finally:
            os.close(fd)
        return True

    def thaw(self) -> None:
        """Let them go on (`docker unpause`)."""
        freezer = self.directory("freezer")
        if freezer is not None:
            cgroup_files.write(f"{freezer}/freezer.state", "THAWED")
        else:
            cgroup_files.write(f"{self._unified()}/cgroup.freeze", "0")

    def _unified(self) -> str:
        if self.layout.unified is None:
            raise CgroupError(deed="freeze", path=self.path, reason="this kernel has no `freezer` controller")
        return self.layout.unified + self.path

    # --- the end -----------------------------------------------------------------------------------------------------

    def remove(self, timeout_s: float = 2.0) -> None:
        """Remove the cgroup and those below it, waiting for processes that are dying. Gone already is well too.

        Raises CgroupBusy when a process is still there after `timeout_s`; it kills nothing.
        """
        left = self._directories
        for _ in cgroup_files.waits(timeout_s):
            left = [directory for directory in left if not cgroup_files.remove(directory)]
            if not left:
                return
        pids = sorted({pid for directory in left for pid in cgroup_files.pids_below(directory)})
        raise CgroupBusy(deed="remove", path=self.path, timeout_s=timeout_s, pids=pids)

    def is_gone(self) -> bool:
        """Whether it was removed, or never made."""
        return not any(map(os.path.isdir, self._directories))
