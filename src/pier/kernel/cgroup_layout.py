"""Where this machine's cgroup hierarchies are mounted, read from /proc/self/mountinfo (proc(5), cgroups(7))."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache

from pier.errors import Unavailable

_V1_CONTROLLERS = frozenset(
    "blkio cpu cpuacct cpuset devices freezer hugetlb memory misc net_cls net_prio perf_event pids rdma".split()
)
SYSTEMD_RUNS = "/run/systemd/system"
"""There where systemd is pid 1 (sd_booted(3)): the hierarchies are its own to divide."""


class NoCgroups(Unavailable):
    """no cgroup hierarchy is mounted under {root}"""

    remedy = "mount one: `mount -t cgroup2 cgroup2 {root}`"


@dataclass(frozen=True, slots=True)
class Layout:
    """The hierarchies that a container joins. Paths are mount points, without a slash at the end."""

    mode: str
    """`v1`, `v2`, or `hybrid`: controllers on v1, and a cgroup2 hierarchy beside them."""
    controllers: dict[str, str]
    """Controller -> mount point. On v2, and for what of a hybrid is on v2, that of the cgroup2 hierarchy."""
    hierarchies: tuple[str, ...]
    """Every mount point once, those of named v1 hierarchies (`name=systemd`) and of cgroup2 included."""
    unified: str | None = None
    """Mount point of the cgroup2 hierarchy."""
    v1_options: tuple[tuple[str, str], ...] = ()
    """Mount point and mount options (`cpu,cpuacct`, `none,name=systemd`) of each v1 hierarchy."""

    def version(self, controller: str) -> int:
        """1 or 2: which kind of files a controller has here; for one that is not there, that of the machine."""
        mount = self.controllers.get("io" if controller == "blkio" and self.mode == "v2" else controller)
        if mount is None:
            return 2 if self.mode == "v2" else 1
        return 2 if mount == self.unified else 1

    @property
    def number(self) -> str:
        """`1` or `2`, as `docker info` shows it: a hybrid keeps its limits on v1."""
        return "2" if self.mode == "v2" else "1"


@cache
def detect(root: str = "/sys/fs/cgroup", mountinfo: str = "/proc/self/mountinfo") -> Layout:
    """This machine's layout, read once a process: what is forked after the first call has it already.

    Raises NoCgroups, OSError.
    """
    with open(mountinfo, "rb") as file:
        text = os.fsdecode(file.read())
    unified = _unified_mount(text, root)
    available = ""
    if unified is not None:
        with open(os.path.join(unified, "cgroup.controllers"), "rb") as file:
            available = file.read().decode()
    return parse(text, root, available)


def parse(mountinfo: str, root: str, unified_controllers: str) -> Layout:
    """The layout that a mountinfo tells, given what the cgroup2 hierarchy's `cgroup.controllers` holds.

    Of a hierarchy that is mounted more than once the first mount counts. Raises NoCgroups.
    """
    controllers: dict[str, str] = {}
    hierarchies: list[str] = []
    v1_options: dict[str, str] = {}
    seen: set[frozenset[str]] = set()
    for mount, kind, options in _cgroup_mounts(mountinfo, root):
        names = frozenset(name for name in options if name in _V1_CONTROLLERS or name.startswith("name="))
        if kind == "cgroup" and names and names not in seen:
            seen.add(names)
            hierarchies.append(mount)
            v1_options[mount] = ",".join(sorted(names) if names & _V1_CONTROLLERS else ["none", *names])
            controllers |= {name: mount for name in sorted(names) if name in _V1_CONTROLLERS}
    unified = _unified_mount(mountinfo, root)
    if unified is not None:
        hierarchies.append(unified)
        for name in unified_controllers.split():
            controllers.setdefault(name, unified)
    if not hierarchies:
        raise NoCgroups(root=root)
    on_v1 = any(mount != unified for mount in controllers.values())
    mode = "v1" if unified is None else "hybrid" if on_v1 else "v2"
    return Layout(mode, controllers, tuple(hierarchies), unified, tuple(v1_options.items()))


def _unified_mount(mountinfo: str, root: str) -> str | None:
    return next((mount for mount, kind, _ in _cgroup_mounts(mountinfo, root) if kind == "cgroup2"), None)


def _cgroup_mounts(mountinfo: str, root: str) -> list[tuple[str, str, list[str]]]:
    """(mount point, `cgroup` or `cgroup2`, super options) of the cgroup mounts at or under `root`."""
    mounts = []
    for line in mountinfo.splitlines():
        # 32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime shared:5 - cgroup cgroup rw,cpu
        left, dash, right = line.partition(" - ")
        fields, about = left.split(" "), right.split(" ")
        if not dash or about[0] not in {"cgroup", "cgroup2"}:
            continue
        mount = _unescape(fields[4])
        if mount == root or mount.startswith(root.rstrip("/") + "/"):
            mounts.append((mount, about[0], about[2].split(",")))
    return mounts


def _unescape(text: str) -> str:
    """Undo the kernel's octal escapes of space, tab, newline and backslash."""
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, character)
    return text
