"""A container of the command line's as it is now: its status, its end (runtime-spec runtime.md, "State", "Delete")."""

from __future__ import annotations

import contextlib
import os
import select
import signal

from pier.errors import PierError
from pier.kernel import cgroup_files
from pier.kernel.cgroup_layout import detect
from pier.kernel.cgroup_tree import CgroupTree
from pier.runtime.command.state import Container, Record, StateError, Warn

END_S = 10.0
"""How long `delete --force` waits for a killed process."""


def cgroup_of(record: Record) -> CgroupTree:
    """Where a container's processes are; `group.group_at` gives what limits them, too."""
    if record.cgroup.startswith("/"):
        return CgroupTree(detect(), record.cgroup)
    from pier.runtime.group import group_at  # noqa: PLC0415 - where there is systemd

    return group_at(detect(), record.cgroup)


def frozen(cgroup: CgroupTree) -> bool:
    """Whether the cgroup is frozen, or on its way there."""
    freezer = cgroup.directory("freezer")
    if freezer is not None:
        return cgroup_files.read(f"{freezer}/freezer.state").strip() in ("FROZEN", "FREEZING")
    unified = cgroup.layout.unified
    return unified is not None and cgroup_files.read(f"{unified}{cgroup.path}/cgroup.freeze").strip() == "1"


def status(container: Container, record: Record) -> str:
    """`created`, `running`, `paused` or `stopped`."""
    if not container.alive(record):
        return "stopped"
    if frozen(cgroup_of(record)):
        return "paused"
    return "created" if container.has_fifo() else "running"


def require(container: Container, record: Record, *allowed: str) -> str:
    """The status. Raises StateError in runc's words if it is none of `allowed`."""
    found = status(container, record)
    if found not in allowed:
        raise StateError("container not paused" if allowed == ("paused",) else "container not running")
    return found


def send_signal(container: Container, record: Record, number: int) -> None:
    """Signal the first process, never another that took its number. Raises StateError, OSError."""
    try:
        pidfd = os.pidfd_open(record.pid)
    except ProcessLookupError:
        raise StateError("container not running") from None
    try:
        if not container.alive(record):
            raise StateError("container not running")
        try:
            signal.pidfd_send_signal(pidfd, number)
        except OSError as error:
            raise StateError(f"unable to signal init: {os.strerror(error.errno or 0).lower()}") from None
    finally:
        os.close(pidfd)


def signal_all(cgroup: CgroupTree, number: int) -> None:
    """Signal every process of the container, frozen meanwhile so that none forks away."""
    if number == signal.SIGKILL:
        cgroup.kill()
        return
    for pid in cgroup.pids():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def kill_and_wait(container: Container, record: Record) -> None:
    """End every process of the container. Raises StateError when the first one is still there after a while."""
    cgroup = cgroup_of(record)
    with contextlib.suppress(OSError, PierError):
        cgroup.kill()
    if frozen(cgroup):
        cgroup.thaw()
    try:
        pidfd = os.pidfd_open(record.pid)
    except ProcessLookupError:
        return
    try:
        if container.alive(record):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            if not select.select([pidfd], [], [], END_S)[0]:
                raise StateError("container init still running")
    finally:
        os.close(pidfd)


def destroy(container: Container, record: Record, warn: Warn) -> None:
    """Remove what is left of a container that has ended: its cgroup, its folder; then its poststop hooks."""
    cgroup = cgroup_of(record)
    spec = container.load_spec()
    cgroup.kill()
    cgroup.remove()
    if spec.get("hooks"):
        from pier.runtime.command.hooks import run_poststop  # noqa: PLC0415 - few have any

        run_poststop(spec, record.id, record.bundle, warn)
    container.remove()
