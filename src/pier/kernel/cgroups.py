"""One container's control group in every hierarchy of this machine: make, limit, join, watch, kill, remove.

On v1 and hybrid a container has a directory in each hierarchy, on v2 one. The files' names and values are
`cgroup_plan`'s and `cgroup_stats`' matter; here are the deeds. Everything on the path of a container's start is a
plain system call.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import select
import time
from collections.abc import Iterable, Mapping, Set
from operator import itemgetter
from typing import Any

from pier.errors import InvalidParameter, PierError
from pier.kernel import bpf_devices, cgroup_files, cgroup_stats
from pier.kernel.cgroup_layout import Layout, NoCgroups, detect
from pier.kernel.cgroup_plan import BadResources, Write, plan
from pier.kernel.cgroup_stats import CgroupStats, IOEntry

__all__ = [
    "BadResources",
    "Cgroup",
    "CgroupBusy",
    "CgroupError",
    "CgroupStats",
    "IOEntry",
    "Layout",
    "NoCgroups",
    "Write",
    "detect",
    "lost",
    "plan",
]

_ENOTSUPP = 524
"""The kernel's own "not supported", which it lets out for `memory.kmem.limit_in_bytes`; errno.h has no name for it."""


_NOT_PLAIN = frozenset({"", ".", ".."})


class CgroupError(PierError):
    """{deed} cgroup {path}: {reason}"""


class CgroupBusy(CgroupError):
    """{deed} cgroup {path}: still busy after {timeout_s:g} s, processes: {pids}"""

    remedy = "a process in uninterruptible sleep (state D) holds it; it can be removed once that process is gone"


class ResourceRefused(InvalidParameter):
    """failed to write {value!r} to {file} of cgroup {path}: {reason}"""


class MemoryInUse(ResourceRefused):
    """unable to set memory limit to {value} (current usage: {usage}, peak usage: {peak})"""

    remedy = "what is in use cannot be reclaimed: ask for more, or end a process in the container first"


class Cgroup:
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

    # --- limits ------------------------------------------------------------------------------------------------------

    def apply(self, resources: Mapping[str, Any]) -> list[str]:
        """Write OCI's `linux.resources`; returns warnings for what this kernel lacks and Docker goes on without.

        Without a key `devices` the device policy stays as it is; with one, what every container may do is added to it.
        Raises BadResources, ResourceRefused, BadDeviceRule, OSError.
        """
        return self._apply_files(resources)

    def _apply_files(self, resources: Mapping[str, Any]) -> list[str]:
        warnings: list[str] = []
        again: list[Write] = []
        writes = plan(resources, self.layout)
        self._check_usage(resources.get("memory") or {})
        for write in writes:
            try:
                self._apply_one(write, warnings)
            except ResourceRefused:
                # Limits that depend on each other (memory and swap, quota and burst) may only go in the other order.
                again.append(write)
        for write in again:
            self._apply_one(write, warnings)
        if "devices" in resources:
            self._apply_devices([*bpf_devices.parse(resources["devices"] or ()), *bpf_devices.DEFAULT_RULES])
        return list(dict.fromkeys(warnings))

    def update(self, resources: Mapping[str, Any]) -> list[str]:
        """As `apply`, for a cgroup in use: where one value is refused, all files are again what they were before.

        Takes no `devices`. Raises BadResources, ResourceRefused, CgroupError, OSError.
        """
        files = [
            (write.controller, file)
            for write in plan(resources, self.layout)
            for file in ((write.file,) if write.otherwise is None else (write.file, write.otherwise[0]))
        ]
        before = {file: self._read(*file).strip() for file in files}
        try:
            return self._apply_files(resources)
        except (PierError, OSError):
            self._put_back({file: value for file, value in before.items() if value})
            raise

    def _put_back(self, values: Mapping[tuple[str, str], str]) -> None:
        """Write what files held; twice, for those that depend on each other."""
        for (controller, file), value in (*values.items(), *values.items()):
            with contextlib.suppress(ResourceRefused):
                self._write(controller, file, value)

    def _check_usage(self, memory: Mapping[str, Any]) -> None:
        """runtime-spec's `checkBeforeUpdate`: refuse a limit below what is in use, for which v2 would kill."""
        if not memory.get("checkBeforeUpdate") or self.layout.version("memory") != 2:
            return
        usage = cgroup_stats.number(self._read("memory", "memory.current"))
        limit, swap = memory.get("limit") or 0, memory.get("swap") or 0
        if 0 < swap <= usage:
            raise BadResources(reason=f"rejecting memory+swap limit {swap} <= usage {usage}", field="memory.swap")
        if 0 < limit <= usage:
            raise BadResources(reason=f"rejecting memory limit {limit} <= usage {usage}", field="memory.limit")

    def _apply_one(self, write: Write, warnings: list[str]) -> None:
        if self._write(write.controller, write.file, write.value, write.field):
            return
        if write.otherwise is not None and self._write(write.controller, *write.otherwise, write.field):
            return
        if not write.lost:
            reason = f"this kernel has no {write.file} (controller {write.controller})"
            raise CgroupError(deed="limit", path=self.path, reason=reason, field=write.field)
        if write.lost != "-":
            warnings.append(write.lost)

    def _write(self, controller: str, file: str, value: str, field: str = "") -> bool:
        """Write a controller's file (`cgroup`: v2's own); False where there is none. Raises ResourceRefused.

        `field` as in `Write`.
        """
        mount = self.layout.unified if controller == "cgroup" else self.layout.controllers.get(controller)
        if mount is None:
            return False
        path = f"{mount}{self.path}/{file}"
        try:
            try:
                cgroup_files.write(path, value)
            except FileNotFoundError:
                # In a hybrid what v2 has of controllers is handed down only to who asks for it.
                if mount != self.layout.unified or self.layout.mode == "v2":
                    return False
                cgroup_files.delegate(mount, self.path, {controller})
                cgroup_files.write(path, value)
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno in {_ENOTSUPP, errno.EOPNOTSUPP}:
                return False
            if error.errno == errno.EBUSY and file == "memory.limit_in_bytes":
                stats = CgroupStats(1)
                cgroup_stats.read_v1_memory(stats, self._read)
                usage, peak = stats.memory_usage, stats.memory_max_usage
                raise MemoryInUse(value=value, usage=usage, peak=peak, field=field) from error
            reason = error.strerror
            raise ResourceRefused(value=value, file=file, path=self.path, reason=reason, field=field) from error
        return True

    def _apply_devices(self, rules: list[bpf_devices.DeviceRule]) -> None:
        directory = self.directory("devices")
        if directory is not None:
            for file, lines in itertools.groupby(bpf_devices.v1_writes(rules), key=itemgetter(0)):
                cgroup_files.write_each(f"{directory}/{file}", [line for _, line in lines])
        elif self.layout.unified is not None:
            fd = os.open(self.layout.unified + self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                bpf_devices.attach(fd, rules)
            finally:
                os.close(fd)
        else:
            raise CgroupError(deed="limit", path=self.path, reason="this kernel has no `devices` controller")

    def files(self) -> frozenset[str]:
        """The names of all files of this cgroup, which are what this kernel can limit and count."""
        found: set[str] = set()
        for directory in self._directories:
            found.update(os.listdir(directory))
        return frozenset(found)

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
            while cgroup_stats.flat(os.pread(fd, 4096, 0).decode()).get("frozen") != 1:
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

    # --- watching ----------------------------------------------------------------------------------------------------

    def oom_kills(self) -> int:
        """How many processes of this cgroup the kernel killed for want of memory; 0 when that is not known."""
        file = "memory.events" if self.layout.version("memory") == 2 else "memory.oom_control"
        return cgroup_stats.flat(self._read("memory", file)).get("oom_kill", 0)

    def oom_kills_above(self) -> int:
        """The same for the cgroup above this one and all that is or was below it: on v2, elsewhere 0."""
        if self.layout.version("memory") != 2:
            return 0
        path = f"{self.layout.controllers['memory']}{os.path.dirname(self.path)}/memory.events"
        return cgroup_stats.flat(cgroup_files.read(path)).get("oom_kill", 0)

    def is_gone(self) -> bool:
        """Whether it was removed, or never made."""
        return not any(map(os.path.isdir, self._directories))

    def under_oom(self) -> bool:
        """Whether its processes wait for memory that nobody is killed for (`--oom-kill-disable`, v1 only)."""
        return self.layout.version("memory") == 1 and bool(
            cgroup_stats.flat(self._read("memory", "memory.oom_control")).get("under_oom", 0)
        )

    def stats(self) -> CgroupStats:
        """What this cgroup has used. Zeros when it is gone."""
        version = self.layout.version
        stats = CgroupStats(2 if self.layout.mode == "v2" else 1)
        (cgroup_stats.read_v2_cpu if version("cpu") == 2 else cgroup_stats.read_v1_cpu)(stats, self._read)
        (cgroup_stats.read_v2_memory if version("memory") == 2 else cgroup_stats.read_v1_memory)(stats, self._read)
        (cgroup_stats.read_v2_io if version("blkio") == 2 else cgroup_stats.read_v1_io)(stats, self._read)
        cgroup_stats.read_pids(stats, self._read)
        return stats

    def _read(self, controller: str, file: str) -> str:
        mount = self.layout.controllers.get(controller)
        if mount is None and (controller == "cgroup" or (controller == "cpu" and self.layout.mode == "v2")):
            mount = self.layout.unified  # cpu.stat is there without the controller
        return "" if mount is None else cgroup_files.read(f"{mount}{self.path}/{file}")

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


def lost(resources: Mapping[str, Any], layout: Layout, files: Set[str]) -> list[str]:
    """The warnings that `apply` would return in a cgroup with these `files` (`Cgroup.files` of any, such as `/pier`).

    For the daemon, which warns when a container is created. Pure. Raises BadResources.
    """
    warnings = []
    for write in plan(resources, layout):
        names = {write.file} if write.otherwise is None else {write.file, write.otherwise[0]}
        if write.lost not in {"", "-"} and not names & files:
            warnings.append(write.lost)
    return list(dict.fromkeys(warnings))
