"""The namespaces of other containers that one joins (`--network container:NAME`, `--pid container:NAME`)."""

from __future__ import annotations

import contextlib
import os

from pier.containers.world import Container, World
from pier.errors import Conflict, NotFound, PierError
from pier.kernel.namespaces import namespace_path
from pier.model.host_config import HostConfig
from pier.runtime.client import MonitorError, MonitorLost


class JoinedMissing(PierError):
    """joining {kind} namespace of container: {reason}"""


class JoinedNotRunning(Conflict):
    """cannot join {kind} namespace of a non running container: container {id} is {status}"""


class NotShareable(Conflict):
    """failed to join IPC namespace: container {id} {reason}"""


def find_joined(world: World, host: HostConfig) -> dict[str, Container]:
    """The containers whose namespaces are joined, by OCI's word for the namespace.

    Raises JoinedMissing, JoinedNotRunning.
    """
    found: dict[str, Container] = {}
    for kind, mode in (("network", host.network_mode), ("pid", host.pid_mode), ("ipc", host.ipc_mode)):
        if mode.startswith("container:"):
            try:
                other = world.find(mode.partition(":")[2])
            except NotFound as error:
                raise JoinedMissing(kind=kind, reason=error.message) from error
            if kind == "ipc":
                _require_shareable(other)
            if not other.record.state.pid:
                raise _not_running(kind, other)
            found[kind] = other
    return found


def _require_shareable(donor: Container) -> None:
    if not donor.running or donor.record.state.status == "restarting":
        raise NotShareable(id=donor.id, reason="is not running")
    if donor.record.host_config.ipc_mode != "shareable":
        reason = "non-shareable IPC (hint: use IpcMode:shareable for the donor container)"
        raise NotShareable(id=f"{donor.id}:", reason=reason)


async def pin(joined: dict[str, Container], stack: contextlib.ExitStack) -> dict[str, str]:
    """A path to each namespace that leads there as long as `stack` is open, whatever becomes of the process in it.

    The paths lead through descriptors of this process: by the number of the other container's process they could lead
    to another that has got the number meanwhile. Raises JoinedNotRunning.
    """
    paths = {}
    for kind, other in joined.items():
        if other.monitor is None:
            raise _not_running(kind, other)
        try:
            fd = os.open(namespace_path(other.monitor.pid, kind), os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, fd)
            # Its monitor has not buried it: so the number was still its own when the file was opened.
            await other.monitor.signal(0)
        except (OSError, MonitorError, MonitorLost) as error:
            raise _not_running(kind, other) from error
        paths[kind] = f"/proc/{os.getpid()}/fd/{fd}"
    return paths


def _not_running(kind: str, other: Container) -> JoinedNotRunning:
    status = other.record.state.status
    return JoinedNotRunning(kind=kind, id=other.id, status="exited" if status == "running" else status)
