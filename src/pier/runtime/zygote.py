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
from pier.runtime.rehearsal import rehearse


def serve(sock: socket.socket) -> None:
    """Fork a monitor for each request until the daemon closes its end.

    A message is `{"order": [Supervision, [[stdin, stdout, stderr], …]]}`, an end a client; its descriptors are the
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
    try:
        order = monitor.Order.decode(packet)
    except (KeyError, IndexError, TypeError, ValueError, OSError):
        os._exit(1)  # what the daemon hears of its end of file
    monitor.main(order)


POOL_BYTES = 16 * 1024
"""Objects of one size class share pools of this size (CPython's obmalloc); a pool's first bytes say what is free."""
POOL_HEADER = 48
BLOCK_STEP, BLOCK_MAX = 16, 512
BYTES_OVERHEAD = sys.getsizeof(b"")


def fill_holes() -> list[bytes]:
    """Occupy the free blocks between the objects loaded so far; what is returned must be kept.

    A monitor's own small objects then lie together in fresh pools, beside the pools' headers. Scattered over the holes
    of the zygote's heap each of them would cost the monitor a page of its own, copied on write.
    """
    kept: list[bytes] = []
    for size in range(BLOCK_STEP * 3, BLOCK_MAX + 1, BLOCK_STEP):
        block = bytes(size - BYTES_OVERHEAD)
        while id(block) % POOL_BYTES != POOL_HEADER:  # until it is the first of a pool: every other is full
            kept.append(block)
            block = bytes(size - BYTES_OVERHEAD)
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
    gc.collect()
    gc.freeze()
    rehearse()
    # Monitors inherit this: what is meant for the daemon is not for them, and none ends but with its container. This
    # process ends with the daemon's socket. SIG_IGN on SIGCHLD lets the kernel bury ended monitors.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGCHLD):
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
