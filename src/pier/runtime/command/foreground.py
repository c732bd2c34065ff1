"""Stay beside a program until it ends (`run` and `exec` without --detach): signals, terminal, orphans, exit code."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal

from pier.kernel import namespaces, process
from pier.runtime.command import console
from pier.runtime.process.reaper import exit_code

NOT_PASSED_ON = frozenset({signal.SIGCHLD, signal.SIGURG, signal.SIGWINCH, signal.SIGPIPE})
NOT_TAKEN = frozenset({signal.SIGKILL, signal.SIGSTOP, signal.SIGTTIN, signal.SIGTTOU})
"""Cannot be, or are about our own terminal: in the background we stop when we use it, as every program does."""


class Foreground:
    """To be made before the program is started, so that no signal is missed."""

    def __init__(self, *, subreaper: bool) -> None:
        self._reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in signal.valid_signals() - NOT_TAKEN:
            with contextlib.suppress(OSError, ValueError):  # libc keeps two for itself
                signal.signal(number, _noted)
        if subreaper:
            process.prctl(process.PR_SET_CHILD_SUBREAPER, 1)

    def attend(self, pid: int, terminal: int) -> int:
        """Wait for the end of our child `pid`; returns its exit code as shells count. `terminal`: its master, or -1."""
        pidfd = os.pidfd_open(pid)
        try:
            if terminal < 0:
                return self._loop(pid, pidfd, None)
            with contextlib.closing(console.Joined(terminal)) as joined, console.RawTerminal(0):
                return self._loop(pid, pidfd, joined)
        finally:
            os.close(pidfd)

    def _loop(self, pid: int, pidfd: int, joined: console.Joined | None) -> int:
        while True:
            poller = select.poll()
            for fd in (self._reader, pidfd):
                poller.register(fd, select.POLLIN)
            for fd, mask in (joined.wanted() if joined else {}).items():
                poller.register(fd, mask)
            ready = dict(poller.poll())
            if joined:
                joined.serve(ready)
            if self._reader in ready:
                self._take_signals(pidfd, joined)
            if pidfd in ready:
                return self._finish(pid, joined)

    def _take_signals(self, pidfd: int, joined: console.Joined | None) -> None:
        for number in os.read(self._reader, 4096):
            if number == signal.SIGWINCH and joined:
                console.resize(joined.master, 0)
            elif number not in NOT_PASSED_ON:
                with contextlib.suppress(ProcessLookupError):
                    namespaces.pidfd_send_signal(pidfd, number)

    def _finish(self, pid: int, joined: console.Joined | None) -> int:
        """Show what the terminal still holds, bury the program, and the orphans that came to us."""
        while joined and joined.show():
            pass
        code = exit_code(os.waitpid(pid, 0)[1])
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        return code


def _noted(number: int, frame: object) -> None:
    """The wake-up descriptor tells of it."""


def require_own_terminal() -> None:
    """Raises OSError where there is no terminal to show the program's on."""
    if not os.isatty(0):
        raise OSError(errno.ENXIO, "no such device or address", "/dev/tty")
