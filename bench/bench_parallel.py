"""20 containers started at once: made beforehand, each start a request on a connection of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from api import Connection
from engines import IMAGE, Engine
from samples import Row, Target, in_turn

CONTAINERS = 20
SETTLE_S = 1.5
"""For the network namespaces of the round before: their end goes on in the kernel, and it was the other engine's."""


def measure(engines: list[Engine], rounds: int) -> list[Row]:
    def deed(engine: Engine, path: str) -> Callable[[], float]:
        return lambda: _start_all(engine, path)

    deeds = {engine.name: deed(engine, engine.socket) for engine in engines if engine.socket}
    target = Target("at most a fifth of dockerd's", 0.2, of="docker")
    return [Row(f"{CONTAINERS} containers started in parallel", "ms", in_turn(deeds, max(3, rounds // 5), 1), target)]


def _start_all(engine: Engine, path: str) -> float:
    """Milliseconds from the first request until the last container runs."""
    connections = [Connection(path) for _ in range(CONTAINERS)]
    body = {"Image": IMAGE, "Cmd": ["sleep", "1000"]}
    made = [connection.call("POST", "/containers/create", body)["Id"] for connection in connections]
    try:
        time.sleep(SETTLE_S)
        with ThreadPoolExecutor(CONTAINERS) as pool:
            began = time.perf_counter()
            started = [
                pool.submit(connection.call, "POST", f"/containers/{name}/start")
                for connection, name in zip(connections, made, strict=True)
            ]
            for one in started:
                one.result()
            return (time.perf_counter() - began) * 1000
    finally:
        engine.remove(made)
        for connection in connections:
            connection.close()
