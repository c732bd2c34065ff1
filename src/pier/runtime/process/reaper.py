"""The reaper that `--init` puts in front of a program as pid 1: it passes signals on and buries orphans.

It has the program's own identity, capabilities and filter, and runs no code but what was loaded before.
"""

from __future__ import annotations

import contextlib
import os
import signal

from pier.kernel import process

NAME = "docker-init"
"""What tools look for in a list of processes."""

NOT_PASSED_ON = {signal.SIGCHLD, signal.SIGTTIN, signal.SIGTTOU, signal.SIGKILL, signal.SIGSTOP}


def show_as_reaper(args: list[str]) -> None:
    """Have this process listed as the init in front of `args`; while /proc is the host's.

    To be listed as something else is no reason not to start.
    """
    with contextlib.suppress(OSError):
        process.set_name(NAME)
        process.set_command_line([f"/sbin/{NAME}", "--", *args])


def run_reaper(report_fd: int, *, die_with_parent: int) -> None:
    """Fork; return in the child, which is to become the program. The parent stays as pid 1 and exits as it did.

    `report_fd` is closed in the parent, so that the monitor sees the child's execve; the child waits for that, for the
    program may look what pid 1 has open (attack 2). `die_with_parent` is the signal that comes when the monitor is
    gone, 0 for none; the change of identity has cleared it.
    """
    passed_on = signal.valid_signals() - NOT_PASSED_ON
    signal.pthread_sigmask(signal.SIG_BLOCK, passed_on | {signal.SIGCHLD})
    closed, closing = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        os.close(closing)
        os.read(closed, 1)
        os.close(closed)
        os.setpgid(0, 0)
        if os.isatty(0):
            signal.signal(signal.SIGTTOU, signal.SIG_IGN)
            os.tcsetpgrp(0, os.getpid())
            signal.signal(signal.SIGTTOU, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        return
    process.prctl(process.PR_SET_PDEATHSIG, die_with_parent)
    for fd in (closed, report_fd, closing):
        os.close(fd)
    os._exit(_reap(child, passed_on))


def _reap(child: int, passed_on: set[signal.Signals]) -> int:
    while True:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    break
                if pid == child:
                    return exit_code(status)
        number = signal.sigwait(passed_on | {signal.SIGCHLD})
        if number != signal.SIGCHLD:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(child, number)


def exit_code(status: int) -> int:
    """A wait status as shells and Docker count: the code, or 128 + the signal."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code
