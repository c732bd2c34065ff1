"""Names looked up by a container: one question after the other, and many at once, through each engine's name server.

Asked from the container's network namespace, at 127.0.0.11: by sockets, so that no resolver library is measured.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from engines import IMAGE, Engine
from samples import Row, Target, in_turn

from pier.kernel.namespaces import CLONE_NEWNET, setns
from pier.kernel.paths import closing

NETWORK = NAME = f"pier-bench-dns-{os.getpid()}"
ADDRESS = ("127.0.0.11", 53)
QUESTION = b"\0\7\1\0\0\1\0\0\0\0\0\0" + bytes([len(NAME)]) + NAME.encode() + b"\0\0\1\0\1"
REPLY_MAX = 512
EACH = 50
"""Look-ups of one sample."""
BURST = 4000
UNDER_WAY = 32
TIMEOUT_S = 5.0


def measure(engines: list[Engine], rounds: int) -> list[Row]:
    engines = [engine for engine in engines if engine.socket]
    clients: dict[str, _Client] = {}
    try:
        for engine in engines:
            engine.docker("network", "create", NETWORK)
            engine.docker("run", "-d", "--name", NAME, "--network", NETWORK, IMAGE, "sleep", "1000")
            clients[engine.name] = _Client(engine)
        one = in_turn({name: client.one_by_one for name, client in clients.items()}, rounds)
        many = in_turn({name: client.many for name, client in clients.items()}, max(3, rounds // 4))
    finally:
        for client in clients.values():
            client.close()
        for engine in engines:
            engine.remove([NAME])
            engine.docker("network", "rm", NETWORK)
    at_once = f"{BURST} look-ups, {UNDER_WAY} at once"
    return [
        Row("look-up of a container's name", "ms", one, Target("at most 0.5 ms", 0.5)),
        Row(at_once, "ms", many, Target("at most 800 ms: 5,000 a second", 800)),
    ]


class _Client:
    """A socket in a container's network namespace."""

    def __init__(self, engine: Engine) -> None:
        pid = engine.docker("inspect", "--format", "{{.State.Pid}}", NAME)
        # The engine may live in a pid namespace of its own: the number counts there.
        with closing(os.open(f"/proc/{engine.pid}/root/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)) as netns:
            self._socket = _inside(netns, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self._socket.settimeout(TIMEOUT_S)
        self._socket.connect(ADDRESS)

    def one_by_one(self) -> float:
        """Milliseconds of one look-up."""
        began = time.perf_counter()
        for _ in range(EACH):
            self._socket.send(QUESTION)
            self._receive()
        return (time.perf_counter() - began) * 1000 / EACH

    def many(self) -> None:
        for sent in range(BURST):
            self._socket.send(QUESTION)
            if sent >= UNDER_WAY:
                self._receive()
        for _ in range(UNDER_WAY):
            self._receive()

    def _receive(self) -> None:
        reply = self._socket.recv(REPLY_MAX)
        if reply[3] & 15 or not reply[7]:
            raise RuntimeError(f"not found: {reply.hex()}")

    def close(self) -> None:
        self._socket.close()


def _inside(netns: int, deed: Callable[[], socket.socket]) -> socket.socket:
    """Do it in a thread that is in another network namespace, and ends there."""

    def work() -> socket.socket:
        setns(netns, CLONE_NEWNET)
        return deed()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(work).result()
