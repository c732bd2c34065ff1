"""Many containers started in a row, all of which go on: does the last start take longer than the first?"""

from __future__ import annotations

import time

from api import Connection
from engines import IMAGE, Engine
from samples import Row, Samples, Target

CONTAINERS = 200
ENDS = 20
"""How many starts at the beginning and at the end are compared."""
BATCH = 20
"""Containers made and started before it is the other engine's turn."""


def measure(engines: list[Engine]) -> list[Row]:
    took = _start_in_turn({engine.name: engine for engine in engines if engine.socket})
    first = {name: Samples(values[:ENDS]) for name, values in took.items()}
    last = {name: Samples(values[-ENDS:]) for name, values in took.items()}
    growth = {name: Samples([last[name].median / first[name].median]) for name in took}
    return [
        Row(f"one start, of the first {ENDS}", "ms", first),
        Row(f"one start, of the last {ENDS} with {CONTAINERS} running", "ms", last),
        Row(
            f"growth of a start's time up to {CONTAINERS} running",
            "times",
            growth,
            Target("at most 1.3 times", 1.3),
        ),
    ]


def _start_in_turn(engines: dict[str, Engine]) -> dict[str, list[float]]:
    """Milliseconds of each start, by engine; the engines take turns, so that each bears the load of both."""
    connections = {name: Connection(engine.socket) for name, engine in engines.items() if engine.socket}
    made: dict[str, list[str]] = {name: [] for name in connections}
    took: dict[str, list[float]] = {name: [] for name in connections}
    try:
        for _ in range(CONTAINERS // BATCH):
            for name, connection in connections.items():
                for _ in range(BATCH):
                    made[name].append(_create(connection))
                    took[name].append(_start(connection, made[name][-1]))
    finally:
        for name, engine in engines.items():
            engine.remove(made[name])
        for connection in connections.values():
            connection.close()
    return took


def _create(connection: Connection) -> str:
    body = {
        "Image": IMAGE,
        "Cmd": ["sleep", "1000"],
        "ExposedPorts": {"80/tcp": {}},
        "HostConfig": {"Memory": 64 << 20, "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1"}]}},
    }
    identity: str = connection.call("POST", "/containers/create", body)["Id"]
    return identity


def _start(connection: Connection, identity: str) -> float:
    began = time.perf_counter()
    connection.call("POST", f"/containers/{identity}/start")
    return (time.perf_counter() - began) * 1000
