"""Play a monitor's part in the zygote before the first real one is forked, so that it finds everything warm.

The interpreter rewrites a function's code as it learns what the function works on, and remembers where attributes were
found. What it has learned before the fork is shared by all monitors; what it learns after is a copied page in each.
"""

from __future__ import annotations

import gc
import os
import socket

from pier.runtime import wire
from pier.runtime.monitor import Monitor, Order
from pier.runtime.request import LogFile, Supervision

ROUNDS = 24
"""The interpreter adapts a function after 8 calls, and an instruction that it could not adapt again 16 later."""


class _Rehearsal(Monitor):
    """A monitor whose container ends at once, and has neither a cgroup nor a folder."""

    def _listen(self) -> None: ...

    def _fork_first(self) -> int:
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        return pid

    def _finish(self) -> None:
        assert self._init is not None
        while self._init.streams.open:
            self._round(None)
        self._init.streams.finish()
        os.close(self._init.pidfd)
        for sock in list(self._controls.values()):
            self._drop_control(sock)
        self._poller.close()


def rehearse() -> None:
    """Needs SIGCHLD's default disposition: the children are waited for."""
    supervision = Supervision("", "/", "/", "/rehearsal", False, False, False, LogFile("/dev/null"), None)
    daemon, zygote = wire.pair()
    for _ in range(ROUNDS):
        _play(supervision, daemon, zygote)
        gc.collect()
    daemon.close()
    zygote.close()


def _play(supervision: Supervision, daemon: socket.socket, zygote: socket.socket) -> None:
    mine, control = wire.pair()
    client, end = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    order = os.open("/", os.O_PATH | os.O_CLOEXEC)
    message = {"order": [supervision, [[False, True, True]]]}
    wire.send(daemon, message, [control.fileno(), order, end.fileno()])
    os.close(order)
    control.close()
    end.close()
    _Rehearsal(Order.decode(wire.receive_packet(zygote))).run()
    mine.close()
    client.close()
