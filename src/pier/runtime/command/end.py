"""`kill`, `delete`."""

from __future__ import annotations

import signal

from pier.runtime.command.flags import Line
from pier.runtime.command.life import cgroup_of, destroy, frozen, kill_and_wait, send_signal, signal_all, status
from pier.runtime.command.main import Context
from pier.runtime.command.state import Container, StateError

SIGNALS = {
    name: int(number)
    for name, number in vars(signal).items()
    if name.startswith("SIG") and not name.startswith("SIG_") and isinstance(number, int)
}


def parse_signal(text: str) -> int:
    """`KILL`, `sigkill`, `9`. Raises StateError."""
    if text.isascii() and text.removeprefix("-").isdigit():
        return int(text) if len(text) < 10 else 2**31 - 1
    upper = text.upper()
    full = upper if upper.startswith("SIG") else f"SIG{upper}"
    if full not in SIGNALS:
        raise StateError(f'unknown signal "{text}"')
    return SIGNALS[full]


def kill(context: Context, line: Line) -> int:
    """Signal the first process, or with --all every one."""
    container_id, *rest = line.arguments
    container = Container(context.root, container_id)
    record = container.load()
    number = parse_signal(rest[0] if rest else "SIGTERM")
    cgroup = cgroup_of(record)
    # Without a pid namespace of its own the end of the first process leaves the others.
    if line.on("all") or (number == signal.SIGKILL and not record.own_pid_namespace):
        # None at all is well with --all: who tears a container down asks for it once more at the end.
        if not line.on("all") and status(container, record) == "stopped" and not cgroup.pids():
            raise StateError("container not running")
        signal_all(cgroup, number)
    else:
        send_signal(container, record, number)
    if number == signal.SIGKILL and frozen(cgroup):
        cgroup.thaw()
    return 0


def delete(context: Context, line: Line) -> int:
    """Remove a container that has ended or was never started; with --force any."""
    container = Container(context.root, line.arguments[0])
    force = line.on("force")
    try:
        record = container.load()
    except StateError:
        if not force:
            raise
        container.remove()
        return 0
    found = status(container, record)
    if found not in ("stopped", "created") and not force:
        raise StateError(f"cannot delete container {container.id} that is not stopped: {found}")
    if found != "stopped":
        kill_and_wait(container, record)
    destroy(container, record, context.log.warning)
    return 0
