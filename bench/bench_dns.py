"""Names looked up by a container: one question after the other, and many at once, through each engine's name server.

Asked from the container's network namespace, at 127.0.0.11: by sockets, so that no resolver library is measured.
"""

from __future__ import annotations

import contextlib
import os
import socket
import statistics
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

from engines import IMAGE, Engine
from samples import Row, Target

NETWORK = f"pier-bench-dns-{os.getpid()}"
NAME = f"{NETWORK}-web"
ADDRESS = ("127.0.0.11", 53)
ASKED_AT_ONCE = 32
BURST = 4000
TIMEOUT_S = 5.0
CLONE_NEWNET = 0x40000000


def measure(engines: list[Engine], rounds: int) -> list[Row]:
    one, many = {}, {}
    for engine in [engine for engine in engines if engine.socket]:
        engine.docker("network", "create", NETWORK)
        try:
            engine.docker("run", "-d", "--name", NAME, "--network", NETWORK, IMAGE, "sleep", "1000")
            pid = int(engine.docker("inspect", "--format", "{{.State.Pid}}", NAME))
            one[engine.name] = inside(namespace(engine, pid), lambda: after_each_other(rounds * 50))
            many[engine.name] = inside(namespace(engine, pid), lambda: [at_once() for _ in range(max(3, rounds // 4))])
        finally:
            with contextlib.suppress(Exception):
                engine.remove([NAME])
            engine.docker("network", "rm", NETWORK)
    return [
        Row("look-up of a container's name", "ms", one, Target("at most 0.5 ms", 0.5)),
        Row(f"{BURST} look-ups, {ASKED_AT_ONCE} under way", "ms", many, Target("at most 800 ms: 5,000 a second", 800)),
    ]
