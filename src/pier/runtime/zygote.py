"""The process every monitor is forked from: everything a container start needs is loaded here, once.

Standard library only, one thread, and it never executes another program: after fork nothing is imported, so nothing of
a container's can be. The daemon starts it as `python -I -S zygote` from a read-only mount of the interpreter, so that
/proc/PID/exe of a process that has not yet become the container's program is no way to the host's binary.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
from typing import NoReturn

from pier.kernel import process
from pier.runtime import monitor, wire
from pier.runtime.child import close_fds
from pier.runtime.request import AttachEnd, StartRequest


def serve(sock: socket.socket) -> None:
    """Fork a monitor for each request until the daemon closes its end.

    A request is `{"request": StartRequest, "ends": [[stdin, stdout, stderr], …]}` with the monitor's first control
    connection and then each client's socket as descriptors.
    """
    while (received := wire.receive(sock)) is not None:
        message, fds = received
        pid = os.fork()
        if pid == 0:
            sock.close()
            _become_monitor(message, fds)
        close_fds(fds)


def _become_monitor(message: wire.Message, fds: list[int]) -> NoReturn:
    control = socket.socket(fileno=fds[0])
    try:
        request = StartRequest.from_dict(message["request"])
        wants = [AttachEnd(fd, *flags) for fd, flags in zip(fds[1:], message["ends"], strict=True)]
    except (KeyError, TypeError, ValueError) as error:
        wire.send(control, {"error": f"malformed start request: {error}", "exit_code": 128})
        os._exit(1)
    attached = [
        (socket.socket(fileno=end.fd), {"stdin": end.stdin, "stdout": end.stdout, "stderr": end.stderr})
        for end in wants
    ]
    monitor.main(request, control, attached)


def main() -> None:
    """`zygote FD`: serve the daemon's socket, inherited as descriptor FD."""
    sock = socket.socket(fileno=int(sys.argv[1]))
    sock.set_inheritable(False)
    process.close_all_but([sock.fileno()])
    process.set_name("pier-zygote")
    os.setsid()
    os.chdir("/")
    os.umask(0o022)
    # Ctrl-C at the daemon's terminal is the daemon's; SIG_IGN on SIGCHLD lets the kernel bury ended monitors.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_IGN)
    # What is loaded now is shared by all monitors for ever; a collection would touch, and so copy, every page of it.
    gc.collect()
    gc.freeze()
    gc.disable()
    serve(sock)


if __name__ == "__main__":
    main()
