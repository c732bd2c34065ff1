"""Play a monitor's part in the zygote before the first real one is forked, so that it finds everything warm.

The interpreter rewrites a function's code as it learns what the function works on, and remembers where attributes were
found. What it has learned before the fork is shared by all monitors; what it learns after is a copied page in each.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
from typing import Any, NoReturn

from pier.kernel import mounts, namespaces, process
from pier.kernel.cgroup_layout import detect
from pier.kernel.cgroups import Cgroup
from pier.runtime import wire
from pier.runtime.monitor.maker import OwnMaker
from pier.runtime.monitor.monitor import Monitor, Order, main
from pier.runtime.process.init import Report, Stdio
from pier.runtime.request import LogFile, Supervision

ROUNDS = 24
"""The interpreter adapts a function after 8 calls, and what it could not adapt once more 16 calls later."""

COPIES = 3
"""After so many copies of an object the holes of its size are filled, and the next ones lie side by side."""

OUTPUT = b'two "lines"\nof output\n'


def rehearse(name: str) -> None:
    """Play in the process called `name`.

    Needs SIGCHLD's default disposition: the children are waited for. What a round has left is collected at once. Not
    for a monitor that waits for its order: it would start its container half a millisecond sooner, and each container
    would hold half a megabyte more.
    """
    codes: dict[Any, None] = dict.fromkeys((Monitor.run.__code__, main.__code__))
    cgroup = _own_cgroup()
    daemon, zygote = wire.pair()
    folder = mounts.mount_filesystem("tmpfs", [])  # no path leads to it, and it goes when it is closed
    supervision = Supervision(
        "",
        f"/proc/self/fd/{folder}",
        "/",
        "/",
        False,
        False,
        False,
        [],
        False,
        LogFile("/dev/null"),
        "/proc/self/ns/pid",
    )

    def note(frame: Any, event: str, argument: object) -> None:
        codes[frame.f_code] = None

    for number in range(1 + ROUNDS):
        first = number == 0
        process.set_name(name)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        namespaces.unshare(0)
        sys.setprofile(note if first else None)
        _play(supervision, cgroup, daemon, zygote)
        sys.setprofile(None)
        if first:
            _lay_side_by_side(codes)
        gc.collect()
    os.close(folder)
    daemon.close()
    zygote.close()


_filling: list[Any] = []


def _lay_side_by_side(codes: dict[Any, None]) -> None:
    """Give the functions of these code objects new ones that lie together.

    To call a function is to count references of its code, a write: code that lies among a monitor's other modules costs
    it a page a function.
    """
    gc.unfreeze()  # frozen objects are not listed
    function = type(_lay_side_by_side)
    called = {item.__code__: item for item in gc.get_objects() if type(item) is function and item.__code__ in codes}
    _filling.extend(code.replace() for _ in range(COPIES) for code in called)
    for code in codes:
        if code in called:
            called[code].__code__ = code.replace()
            _filling.append(code)
    gc.freeze()


def _own_cgroup() -> Cgroup:
    """A cgroup that children can be born in with no change to the machine: the one this process is in."""
    layout = detect()
    cgroup = Cgroup(layout, "/rehearsal")
    with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        own = [line.strip().removeprefix("0::") for line in file if line.startswith("0::")]
    cgroup.path = own[0].rstrip("/") if own else ""
    return cgroup


def _play(supervision: Supervision, cgroup: Cgroup, daemon: socket.socket, zygote: socket.socket) -> None:
    """One start of a container that prints and ends at once, with one client."""
    mine, control = wire.pair()
    client, end = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    request = os.open("/", os.O_PATH | os.O_CLOEXEC)
    wire.send(daemon, {"order": [supervision, [[False, True, True]]]}, [control.fileno(), request, end.fileno()])
    os.close(request)
    control.close()
    end.close()
    order = Order.decode(wire.receive_packet(zygote))
    monitor = Monitor(order, cgroup, OwnMaker(cgroup, order.supervision.pid_namespace, _end_at_once))
    monitor.start()
    monitor.serve()
    monitor.hang_up()
    mine.close()
    client.close()


def _end_at_once(request_fd: int, report: Report, stdio: Stdio, cgroup: Cgroup) -> NoReturn:
    os.write(stdio.stdout, OUTPUT)
    os._exit(0)
