"""What must be there before the daemon touches anything: each miss is one line, what and how to get it (W13, T14)."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass

from pier.engine.host import Host
from pier.errors import PierError
from pier.kernel.cgroups import Layout

OLDEST_KERNEL = (5, 15)
"""openat2(2) came with 5.6, mount_setattr(2) with 5.12; 5.15 is the first long-term kernel with both."""
NEEDED_CONTROLLERS = ("cpu", "memory", "pids")
NEEDED_ON_V1 = ("devices", "freezer")
"""On cgroup v2 devices are decided by a BPF program, and freezing is part of every group."""


class NotReady(PierError):
    """{lines}"""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class Miss:
    """Something that is not there."""

    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what} ({self.remedy})"


def misses(*, euid: int, host: Host, layout: Layout, filesystems: Collection[str]) -> list[Miss]:
    """Everything that keeps the daemon from starting, the plainest first. Pure."""
    if euid != 0:
        return [Miss("pierd must run as root", "start it with sudo, or as a system service")]
    found = []
    if host.kernel < OLDEST_KERNEL:
        needed = ".".join(map(str, OLDEST_KERNEL))
        found.append(
            Miss(f"the kernel {host.kernel_version} is too old", f"Pier needs {needed} or newer: openat2, mount API")
        )
    needed_controllers = NEEDED_CONTROLLERS + (NEEDED_ON_V1 if layout.mode != "v2" else ())
    found += [_controller(name, layout) for name in needed_controllers if name not in layout.controllers]
    if "overlay" not in filesystems:
        found.append(Miss("the kernel has no overlay file system", "load it: modprobe overlay"))
    return found


def _controller(name: str, layout: Layout) -> Miss:
    what = f"the cgroup controller {name} is missing"
    if layout.mode == "v2":
        return Miss(what, f"enable it: echo +{name} > {layout.unified}/cgroup.subtree_control")
    boot = " and boot with cgroup_enable=memory swapaccount=1" if name == "memory" else ""
    return Miss(
        what, f"mount it: mkdir -p /sys/fs/cgroup/{name}; mount -t cgroup -o {name} {name} /sys/fs/cgroup/{name}{boot}"
    )


def check(host: Host, layout: Layout) -> None:
    """Raise NotReady with a line for each miss."""
    with open("/proc/filesystems", encoding="ascii") as file:
        filesystems = {line.split()[-1] for line in file if line.strip()}
    found = misses(euid=os.geteuid(), host=host, layout=layout, filesystems=filesystems)
    if found:
        raise NotReady(lines="\n".join(map(str, found)))
