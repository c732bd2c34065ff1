"""Join a client to a container's streams: while it runs through its monitor, before the start by waiting for it."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from pier.containers.start import NotRunning
from pier.containers.world import Container, World
from pier.errors import Conflict
from pier.runtime.client import MonitorError, MonitorLost
from pier.runtime.request import AttachEnd

PENDING_MAX = 64
"""Clients that may wait for one container's start: the runtime takes their descriptors in one message."""


class AttachToPaused(Conflict):
    """container {id} is paused, unpause the container before attach"""


class TooManyPending(Conflict):
    """{count} clients are waiting for container {id} to start already"""


@dataclass(slots=True)
class Attachment:
    """One client's connection to a container's or an exec's streams."""

    sock: socket.socket
    """The client's end, a connected non-blocking stream socket, the receiver's to close."""
    tty: bool
    prefix: AsyncIterator[bytes] | None = None
    """To be sent first: the log so far."""


def make_ends(*, stdin: bool, stdout: bool, stderr: bool) -> tuple[socket.socket, AttachEnd]:
    """A socket pair: the client's end, and the runtime's, whose descriptor the caller closes after handing it on."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    return ours, AttachEnd(theirs.detach(), stdin, stdout, stderr)


async def attach(
    world: World, container: Container, *, stdin: bool, stdout: bool, stderr: bool, stream: bool
) -> tuple[socket.socket, int]:
    """The client's end of the container's streams, and up to when the log has what does not come through it (ns).

    Without `stream` it is at its end already, for a caller that only wants the log. Raises AttachToPaused, NotRunning.
    """
    if container.record.state.status == "paused":
        raise AttachToPaused(id=container.id)
    wants_stdin = stdin and container.record.config.open_stdin
    sock, end = make_ends(stdin=wants_stdin, stdout=stdout, stderr=stderr)
    if not stream:
        os.close(end.fd)
        return sock, time.time_ns()
    try:
        at_ns = await _hand_over(container, end)
    except BaseException:
        sock.close()
        raise
    world.publish(container, "attach")
    return sock, at_ns


async def _hand_over(container: Container, end: AttachEnd) -> int:
    """Give the end to the monitor, or keep it for the start."""
    if container.monitor is None:
        if len(container.pending) >= PENDING_MAX:
            os.close(end.fd)
            raise TooManyPending(id=container.id, count=PENDING_MAX)
        container.pending.append(end)
        return time.time_ns()
    try:
        return await container.monitor.attach(end)
    except (MonitorLost, MonitorError) as error:
        raise NotRunning(id=container.id) from error
    finally:
        os.close(end.fd)


async def resize(container: Container, height: int, width: int) -> None:
    """Set the size of the container's terminal. Raises NotRunning, MonitorError (it has none)."""
    if container.monitor is None:
        raise NotRunning(id=container.id)
    try:
        await container.monitor.resize(height=height, width=width)
    except MonitorLost as error:
        raise NotRunning(id=container.id) from error
