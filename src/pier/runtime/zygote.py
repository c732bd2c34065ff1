"""The process every monitor is forked from: everything a container start needs is loaded here, once.

Standard library only, one thread, and it never executes another program: after fork nothing is imported, so nothing of
a container's can be. The daemon starts it as `python -I -S zygote` from a read-only mount of the interpreter, so that
/proc/PID/exe of a process that has not yet become the container's program is no way to the host's binary.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import sys
from typing import Any, NoReturn

from pier.kernel import process
from pier.kernel.capabilities import last_cap
from pier.kernel.cgroup_layout import detect
from pier.runtime import wire
from pier.runtime.monitor import monitor, parking
from pier.runtime.rehearsal import rehearse

ZYGOTE = "pier-zygote"

PARKED = 2
"""How many monitors wait for an order, each with a parked first process."""
QUIET_MS = 40
"""A monitor in reserve is made when no container has been asked for during this time: its making would slow those."""


def serve(sock: socket.socket, standard_mounts: list[dict[str, Any]]) -> None:
    """Fork monitors, which take the daemon's orders from `sock` themselves, until the daemon closes its end.

    There is always one that listens, and in quiet times PARKED of them. A message is `{"order": [Supervision,
    [[stdin, stdout, stderr], …]]}`, an end a client; its descriptors are the monitor's first control connection, the
    StartRequest (`wire.sealed`), then each client's socket. The monitor reads the message, not this process, and the
    container's first process the request, not the monitor: a page that is written between two forks is one that
    monitors do not share.
    """
    waiting: list[int] = []  # a pipe for each that waits: it hangs up when its monitor has an order, or has died
    poller = select.poll()
    while not _closed(sock):
        if len(waiting) < PARKED and not (waiting and poller.poll(QUIET_MS)):
            pipe, held = os.pipe2(os.O_CLOEXEC)
            if os.fork() == 0:
                _be_monitor(sock, held, waiting, standard_mounts)
            os.close(held)
            waiting.append(pipe)
            poller.register(pipe, 0)
            continue
        for pipe, _ in poller.poll():
            poller.unregister(pipe)
            waiting.remove(pipe)
            os.close(pipe)


def _closed(sock: socket.socket) -> bool:
    try:
        return not sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False


def _be_monitor(sock: socket.socket, held: int, others: list[int], standard_mounts: list[dict[str, Any]]) -> NoReturn:
    """Take one order, an impatient one at once, and be its monitor."""
    try:
        for fd in others:
            os.close(fd)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        parked = None
        try:
            packet = wire.receive_packet(sock, wait=False)
        except BlockingIOError:
            process.set_name(parking.NAME)
            parked = parking.Parked(standard_mounts)
            packet = wire.receive_packet(sock)
        os.close(held)
        sock.close()
        order = monitor.Order.decode(packet)
    except (KeyError, IndexError, TypeError, ValueError, OSError):
        os._exit(1)  # the daemon has closed its end, or hears of ours
    monitor.main(order, parked)


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
    """`zygote FD MOUNTS LIMITS`: serve the daemon's socket, inherited as descriptor FD.

    MOUNTS are what most containers mount, runtime-spec's `mounts` as JSON; LIMITS those on descriptors, soft and hard,
    which are the daemon's own where they are null.
    """
    sock = socket.socket(fileno=int(sys.argv[1]))
    os.set_inheritable(sock.fileno(), False)
    standard_mounts, open_files = json.loads(sys.argv[2]), json.loads(sys.argv[3])
    if open_files is not None:
        process.set_rlimit("RLIMIT_NOFILE", *open_files)
    process.close_all_but([sock.fileno()])
    process.set_name(ZYGOTE)
    os.setsid()
    os.chdir("/")
    os.umask(0o022)
    gc.collect()
    gc.freeze()
    rehearse(ZYGOTE)
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
    serve(sock, standard_mounts)
    del filling


if __name__ == "__main__":
    main()
