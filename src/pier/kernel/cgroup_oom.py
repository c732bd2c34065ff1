"""Be told by the kernel when a cgroup is out of memory (cgroup-v2.rst, memory.events; v1/memory.rst, section 9)."""

from __future__ import annotations

import os
import select

from pier.kernel.cgroups import Cgroup


def open_watch(cgroup: Cgroup) -> tuple[int, int] | None:
    """A descriptor and the epoll(7) events that say "look again"; None where this machine has no such thing.

    On v1 an eventfd, signalled before the kernel has chosen whom to kill; on v2 `memory.events`, which also changes
    without a kill. `acknowledge` what it says. Raises OSError.
    """
    directory = cgroup.directory("memory")
    if directory is None:
        return None
    try:
        if cgroup.layout.version("memory") == 2:
            return os.open(f"{directory}/memory.events", os.O_RDONLY | os.O_CLOEXEC), select.EPOLLPRI
        return _register(directory), select.EPOLLIN
    except FileNotFoundError:
        return None


def _register(directory: str) -> int:
    """The kernel keeps what it needs of both files, which can be closed."""
    control = os.open(f"{directory}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
    try:
        entrance = os.open(f"{directory}/cgroup.event_control", os.O_WRONLY | os.O_CLOEXEC)
        try:
            event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            try:
                os.write(entrance, f"{event} {control}".encode())
            except BaseException:
                os.close(event)
                raise
        finally:
            os.close(entrance)
    finally:
        os.close(control)
    return event


def acknowledge(fd: int, events: int) -> None:
    """Take what `open_watch`'s descriptor said, so that it speaks of what comes later."""
    try:
        if events & select.EPOLLPRI:
            os.pread(fd, 4096, 0)
        else:
            os.read(fd, 8)
    except OSError:  # nothing to read, or the cgroup is gone
        return
