"""One container's control group: what it may have, and what it has had (`cgroup_tree` has the rest of its life).

The files' names and values are `cgroup_plan`'s and `cgroup_stats`' matter; here are the deeds. Everything on the path
of a container's start is a plain system call.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
from collections.abc import Mapping, Set
from operator import itemgetter
from typing import Any

from pier.errors import InvalidParameter, PierError
from pier.kernel import bpf_devices, cgroup_files, cgroup_stats
from pier.kernel.cgroup_layout import Layout, NoCgroups, detect
from pier.kernel.cgroup_plan import BadResources, Write, plan
from pier.kernel.cgroup_stats import CgroupStats, IOEntry
from pier.kernel.cgroup_tree import CgroupBusy, CgroupError, CgroupTree

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


class ResourceRefused(InvalidParameter):
    """failed to write {value!r} to {file} of cgroup {path}: {reason}"""


class MemoryInUse(ResourceRefused):
    """unable to set memory limit to {value} (current usage: {usage}, peak usage: {peak})"""

    remedy = "what is in use cannot be reclaimed: ask for more, or end a process in the container first"


class Cgroup(CgroupTree):
    """The cgroup `path` (`/pier/<id>`) of one container: limited and watched."""

    __slots__ = ()

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

    # --- watching ----------------------------------------------------------------------------------------------------

    def oom_kills(self) -> int:
        """How many processes of this cgroup the kernel killed for want of memory; 0 when that is not known."""
        file = "memory.events" if self.layout.version("memory") == 2 else "memory.oom_control"
        return cgroup_files.flat(self._read("memory", file)).get("oom_kill", 0)

    def oom_kills_above(self) -> int:
        """The same for the cgroup above this one and all that is or was below it: on v2, elsewhere 0."""
        if self.layout.version("memory") != 2:
            return 0
        path = f"{self.layout.controllers['memory']}{os.path.dirname(self.path)}/memory.events"
        return cgroup_files.flat(cgroup_files.read(path)).get("oom_kill", 0)

    def under_oom(self) -> bool:
        """Whether its processes wait for memory that nobody is killed for (`--oom-kill-disable`, v1 only)."""
        return self.layout.version("memory") == 1 and bool(
            cgroup_files.flat(self._read("memory", "memory.oom_control")).get("under_oom", 0)
        )

    def stats(self) -> CgroupStats:
        """What this cgroup has used. Zeros when it is gone."""
        return cgroup_stats.collect(self.layout, self._read)

    def _read(self, controller: str, file: str) -> str:
        mount = cgroup_stats.mount_of(self.layout, controller)
        return "" if mount is None else cgroup_files.read(f"{mount}{self.path}/{file}")


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
