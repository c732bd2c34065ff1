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
from pier.kernel.capabilities import last_cap
from pier.kernel.cgroup_layout import detect
from pier.runtime import monitor, wire
from pier.runtime.monitor import Attached
from pier.runtime.request import Supervision


def serve(sock: socket.socket) -> None:
    """Fork a monitor for each request until the daemon closes its end.

    A message is `{"supervision": Supervision, "ends": [[stdin, stdout, stderr], …]}`; its descriptors are the
    monitor's first control connection, the StartRequest (`wire.sealed`), then each client's socket. The monitor reads
    the message, not this process, and the container's first process the request, not the monitor: a page that is
    written between two forks is one that monitors do not share.
    """
    while (packet := wire.receive_packet(sock))[0]:
        if os.fork() == 0:
            sock.close()
            _become_monitor(packet)
        for fd in wire.packet_fds(packet):
            os.close(fd)


def _become_monitor(packet: wire.Packet) -> NoReturn:
    control: socket.socket | None = None
    try:
        message, fds = wire.decode(packet)
        control = socket.socket(fileno=fds[0])
        supervision = Supervision.from_dict(message["supervision"])
        attached = [
            Attached(socket.socket(fileno=fd), *flags) for fd, flags in zip(fds[2:], message["ends"], strict=True)
        ]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        if control is not None:
            wire.send(control, {"error": f"malformed start request: {error}", "exit_code": 128})
        os._exit(1)
    monitor.main(supervision, fds[1], control, attached)


POOL_BYTES = 16 * 1024
"""Objects of one size class share pools of this size (CPython's obmalloc)."""
BLOCK_STEP, BLOCK_MAX = 16, 512
BYTES_OVERHEAD = sys.getsizeof(b"")


def fill_holes() -> list[bytes]:
    """Occupy the free blocks between the objects loaded so far; what is returned must be kept.

    A monitor's own small objects then lie together in fresh pools. Scattered over the holes of the zygote's heap each
    of them would cost the monitor a page of its own, copied on write.
    """
    kept: list[bytes] = []
    for size in range(BLOCK_STEP * 3, BLOCK_MAX + 1, BLOCK_STEP):
        in_a_row, last = 0, 0
        while in_a_row * size < POOL_BYTES // 2:
            block = bytes(size - BYTES_OVERHEAD)
            in_a_row = in_a_row + 1 if id(block) - last == size else 0
            last = id(block)
            kept.append(block)
    return kept


def main() -> None:
    """`zygote FD`: serve the daemon's socket, inherited as descriptor FD."""
    sock = socket.socket(fileno=int(sys.argv[1]))
    os.set_inheritable(sock.fileno(), False)
    process.close_all_but([sock.fileno()])
    process.set_name("pier-zygote")
    os.setsid()
    os.chdir("/")
    os.umask(0o022)
    # Ctrl-C at the daemon's terminal is the daemon's; SIG_IGN on SIGCHLD lets the kernel bury ended monitors.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_IGN)
    # What is loaded now is shared by all monitors for ever; a collection would touch, and so copy, every page of it.
    detect()
    last_cap()
    gc.collect()
    filling = fill_holes()
    gc.freeze()
    gc.disable()
    serve(sock)
    del filling


if __name__ == "__main__":
    main()
