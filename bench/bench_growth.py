"""Many containers started in a row, all of which go on: does the last start take longer than the first?"""

from __future__ import annotations

import time

from api import Connection
from engines import IMAGE, Engine
from samples import Row, Samples, Target

CONTAINERS = 200
ENDS = 20
"""How many starts at the beginning and at the end are compared."""
SETTLE_S = 3.0
"""For the network namespaces of so many containers: their end goes on in the kernel."""


def measure(engines: list[Engine]) -> list[Row]:
    took = {engine.name: _starts(engine, engine.socket) for engine in engines if engine.socket}
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


def _starts(engine: Engine, path: str) -> list[float]:
    """Milliseconds of each start. Nothing of the other engine's runs meanwhile: it would grow with it."""
    connection = Connection(path)
    made: list[str] = []
    took: list[float] = []
    try:
        for _ in range(CONTAINERS):
            made.append(_create(connection))
            took.append(_start(connection, made[-1]))
    finally:
        engine.remove(made)
        connection.close()
        time.sleep(SETTLE_S)
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
