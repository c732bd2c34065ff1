"""`start`: what a program that waits needs, and nothing of what makes a container (`start`)."""

from __future__ import annotations

import errno
import os
from typing import Any

from pier.runtime.command.flags import Line
from pier.runtime.command.life import status
from pier.runtime.command.main import Context
from pier.runtime.command.state import Container, StateError


def start(context: Context, line: Line) -> int:
    """Let the program of a created container run."""
    container = Container(context.root, line.arguments[0])
    record = container.load()
    found = status(container, record)
    if found == "stopped":
        raise StateError("cannot start a container that has stopped")
    if found != "created":
        raise StateError("cannot start an already running container")
    try:
        fifo = os.open(container.fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise StateError("container process is already dead") from None
        raise
    try:
        os.unlink(container.fifo)  # of two that start it at once, one gets here
        os.write(fifo, b"0")
    except FileNotFoundError:
        raise StateError("cannot start an already running container") from None
    finally:
        os.close(fifo)
    run_poststart(context, container.id, container.load_spec(), record.bundle, record.pid)
    return 0


def run_poststart(context: Context, container_id: str, spec: dict[str, Any], bundle: str, pid: int) -> None:
    """Run the poststart hooks; the failure of one is a warning: the rest goes on (runtime.md, "Lifecycle" step 10)."""
    if not spec.get("hooks"):
        return
    from pier.runtime.command import hooks  # noqa: PLC0415 - few have any

    try:
        hooks.run_all(
            spec, "poststart", hooks.state(spec, container_id=container_id, pid=pid, status="running", bundle=bundle)
        )
    except OSError as error:
        context.log.warning(str(error))
