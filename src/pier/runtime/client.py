"""The daemon's side of the runtime: start containers through the zygote, talk to their monitors (asyncio)."""

from __future__ import annotations

from collections.abc import Sequence

from pier.errors import PierError
from pier.runtime.request import AttachEnd, ExecRequest, ExitRecord, StartRequest


class StartFailed(PierError):
    """failed to create task for container: OCI runtime create failed: unable to start container process: {reason}"""

    status = 400


class ExecFailed(PierError):
    """OCI runtime exec failed: exec failed: unable to start container process: {reason}"""

    status = 400


class Monitor:
    """One running container, as the daemon sees it."""

    id: str
    pid: int
    started_at_ns: int

    async def attach(self, end: AttachEnd) -> None:
        """Join a client to the container's streams; `end.fd` is duplicated, the caller closes its own."""
        raise NotImplementedError

    async def resize(self, *, height: int, width: int, exec_id: str | None = None) -> None:
        raise NotImplementedError

    async def signal(self, signum: int) -> None:
        """Send a signal to the container's first process."""
        raise NotImplementedError

    async def exec(self, request: ExecRequest, end: AttachEnd | None) -> int:
        """Run one more process; returns its pid on the host once the program itself runs. Raises ExecFailed."""
        raise NotImplementedError

    async def wait_exec(self, exec_id: str) -> ExitRecord:
        """Wait for the end of a process that `exec` started."""
        raise NotImplementedError

    async def wait(self) -> ExitRecord:
        """Wait until the container has ended, its log is complete and its cgroup and namespaces are gone.

        If the monitor itself was killed, what is left of the container is killed and the record says 137.
        """
        raise NotImplementedError


class Runtime:
    """Starts containers. One per daemon."""

    async def start(self) -> None:
        """Start the zygote."""
        raise NotImplementedError

    async def launch(self, request: StartRequest, ends: Sequence[AttachEnd] = ()) -> Monitor:
        """Start a container with clients attached from its first byte. Raises StartFailed (nothing is left)."""
        raise NotImplementedError

    async def reconnect(self, id: str, exec_dir: str) -> Monitor | None:
        """Find the monitor of a container that an earlier daemon started; None when it is gone."""
        raise NotImplementedError

    async def close(self) -> None:
        """Stop the zygote; containers go on."""
        raise NotImplementedError
