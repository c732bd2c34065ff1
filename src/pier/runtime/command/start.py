"""`create`, `run`."""

from __future__ import annotations

import contextlib
import os
from typing import NamedTuple

from pier.errors import PierError
from pier.runtime.command import console
from pier.runtime.command.bundle import Bundle, load
from pier.runtime.command.flags import Line, UsageError
from pier.runtime.command.foreground import Foreground, require_own_terminal
from pier.runtime.command.launch import Started, Wishes
from pier.runtime.command.launch import create as make
from pier.runtime.command.life import destroy, kill_and_wait
from pier.runtime.command.main import Context
from pier.runtime.command.release import run_poststart
from pier.runtime.command.state import Container, StateError


class _Made(NamedTuple):
    container: Container
    bundle: Bundle
    started: Started


def create(context: Context, line: Line) -> int:
    """Make a container whose program waits for `start`."""
    made = _make(context, line, detach=True, wait=True)
    if made.started.terminal >= 0:
        os.close(made.started.terminal)
    return 0


def run(context: Context, line: Line) -> int:
    """Make a container, run its program, and remove it when that has ended; with --detach leave it running."""
    detach = line.on("detach")
    foreground = None if detach else Foreground(subreaper=not line.on("no-subreaper"))
    container, bundle, started = _make(context, line, detach=detach, wait=False)
    run_poststart(context, container.id, bundle.spec, bundle.path, started.pid)
    if foreground is None:
        return 0
    code = foreground.attend(started.pid, started.terminal)
    if not line.on("keep"):
        destroy(container, container.load(), context.log.warning)
    return code


def _make(context: Context, line: Line, *, detach: bool, wait: bool) -> _Made:
    bundle = load(line.text("bundle"))
    container = Container(context.root, line.arguments[0])
    terminal = bool(bundle.spec["process"].get("terminal"))
    check_terminal(terminal=terminal, detach=detach, console_socket=line.text("console-socket"))
    if terminal and not detach:
        console.adopt_size(bundle.spec["process"])
    preserved, added = preserved_fds(line.options["preserve-fds"])
    bundle.spec["process"]["env"] = [*bundle.spec["process"].get("env", []), *added]
    wishes = Wishes(
        pivot=not line.on("no-pivot"),
        new_keyring=not line.on("no-new-keyring"),
        preserve_fds=preserved,
        wait_at_fifo=wait,
        systemd=context.systemd,
    )
    started = make(container, bundle, wishes, context.log.warning)
    try:
        tell(line, started)
    except BaseException:
        _end(context, container)
        raise
    return _Made(container, bundle, started)


def _end(context: Context, container: Container) -> None:
    with contextlib.suppress(StateError, PierError, OSError):
        record = container.load()
        kill_and_wait(container, record)
        destroy(container, record, context.log.warning)


def check_terminal(*, terminal: bool, detach: bool, console_socket: str) -> None:
    """Where a program's terminal would go. Raises StateError in runc's words, OSError."""
    if terminal and detach and not console_socket:
        raise StateError("cannot allocate tty if pier-runtime will detach without setting console socket")
    if console_socket and not (terminal and detach):
        raise StateError("cannot use console socket if pier-runtime will not detach or allocate tty")
    if terminal and not detach:
        require_own_terminal()


def preserved_fds(wanted: int) -> tuple[int, list[str]]:
    """How many descriptors from 3 on the program gets, and what its environment says of them (sd_listen_fds(3))."""
    listening = os.environ.get("LISTEN_FDS", "")
    sockets = int(listening) if listening.isdecimal() else 0
    if not 0 <= wanted + sockets <= 1024:
        raise UsageError(f"--preserve-fds {wanted} is out of range")
    for fd in range(3, 3 + wanted + sockets):
        try:
            os.fstat(fd)
        except OSError:
            raise StateError(f"unable to stat preserved-fd {fd} (of {wanted}): no such file or directory") from None
    return wanted + sockets, [f"LISTEN_FDS={sockets}", "LISTEN_PID=1"] if sockets else []


def tell(line: Line, started: Started) -> None:
    """Hand terminal and pid to who asked for them. Raises OSError."""
    if line.text("console-socket") and started.terminal >= 0:
        console.send(line.text("console-socket"), started.terminal, b"/dev/ptmx")
    if line.text("pidfd-socket"):
        pidfd = os.pidfd_open(started.pid)
        try:
            console.send(line.text("pidfd-socket"), pidfd, b"pidfd")
        finally:
            os.close(pidfd)
    if line.text("pid-file"):
        write_pid_file(line.text("pid-file"), started.pid)


def write_pid_file(path: str, pid: int) -> None:
    """So that a reader sees the number or no file."""
    folder, name = os.path.split(path)
    fresh = os.path.join(folder, f".{name}")
    with open(fresh, "wb") as file:
        file.write(str(pid).encode())
    os.replace(fresh, path)
