"""Five hundred running containers: listing them, looking at one, reading what all of them use, and a daemon that is
started again among them."""

from __future__ import annotations

import contextlib
import functools
import os
import select
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import processes
from api import API, Connection
from engines import IMAGE, OWN, Engine, forget_bridge, image, start_pierd
from samples import Row, Samples, Target, in_turn

CONTAINERS = int(os.environ.get("BENCH_MANY", "500"))
NUMBER = 4
"""Of the daemon that is started here: its network holds so many."""
AT_ONCE = 4
SETTLE_S = 3.0
RESTARTS = 3
STATS_S, STATS_ROUNDS = 3.0, 3
PATIENCE_S = 60.0


def measure(engines: list[Engine], folder: Path, archive: Path, rounds: int) -> list[Row]:
    with contextlib.ExitStack() as stack:
        pier = stack.enter_context(_Restartable(folder))
        own = Engine("pier", f"unix://{folder}/run/pier.sock")
        stack.enter_context(image(own, archive))
        compared = [own, *(engine for engine in engines if engine.name != "pier" and engine.socket)]
        ids = {engine.name: stack.enter_context(_running(engine)) for engine in compared}
        time.sleep(SETTLE_S)
        lists = {engine.name: _asks(engine, "/containers/json") for engine in compared}
        looks = {
            engine.name: _asks(engine, f"/containers/{ids[engine.name][CONTAINERS // 2]}/json") for engine in compared
        }
        rows = [
            Row(f"list of {CONTAINERS} running, by the API", "ms", in_turn(lists, rounds), Target("at most 30 ms", 30)),
            Row("inspect of one of them", "ms", in_turn(looks, rounds), Target("at most 2 ms", 2)),
            _stats(own, ids["pier"]),
        ]
        restarts = Samples([pier.restart() for _ in range(RESTARTS)])
        name = f"daemon restart with {CONTAINERS} running, to the first list"
        return [*rows, Row(name, "ms", {"pier": restarts}, Target("at most 2 s", 2000))]


class _Restartable:
    """A daemon with room for so many containers, killed and started again while they run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._more = ("--bip", f"10.{150 + OWN % 50}.0.1/16")

    def __enter__(self) -> _Restartable:
        self._process = start_pierd(self._folder, NUMBER, more=self._more)
        return self

    def restart(self) -> float:
        """Milliseconds from the start of a new daemon until it has listed the containers."""
        self._process.kill()
        self._process.wait()
        began = time.perf_counter()
        self._process = start_pierd(self._folder, NUMBER, more=self._more)
        connection = Connection(f"{self._folder}/run/pier.sock")
        found = connection.call("GET", "/containers/json")
        took = (time.perf_counter() - began) * 1000
        connection.close()
        if len(found) != CONTAINERS:
            raise RuntimeError(f"{len(found)} of {CONTAINERS} containers run after a restart")
        return took

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(PATIENCE_S)
        forget_bridge(NUMBER)


@contextlib.contextmanager
def _running(engine: Engine) -> Iterator[list[str]]:
    """So many containers, each with a published port; some at a time are made, and removed."""
    body = {
        "Image": IMAGE,
        "Cmd": ["sleep", "100000"],
        "ExposedPorts": {"80/tcp": {}},
        "HostConfig": {"PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1"}]}},
    }
    made: list[str] = []

    def make(connection: Connection, _: int) -> None:
        id = connection.call("POST", "/containers/create", body)["Id"]
        made.append(id)
        connection.call("POST", f"/containers/{id}/start")

    def remove(connection: Connection, id: str) -> None:
        connection.call("DELETE", f"/containers/{id}?force=1")

    try:
        _at_once(engine, make, range(CONTAINERS))
        yield made
    finally:
        _at_once(engine, remove, list(made))


def _at_once(engine: Engine, deed: Callable[[Connection, Any], None], things: Sequence[Any]) -> None:
    """Do something to each, AT_ONCE of them at a time, each worker with a connection of its own."""
    assert engine.socket is not None

    def work(path: str, mine: Sequence[Any]) -> None:
        with contextlib.closing(Connection(path)) as connection:
            for thing in mine:
                deed(connection, thing)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for done in [pool.submit(work, engine.socket, things[first::AT_ONCE]) for first in range(AT_ONCE)]:
            done.result()


def _asks(engine: Engine, path: str) -> Callable[[], float]:
    assert engine.socket is not None
    return functools.partial(_ask, Connection(engine.socket), path)


def _ask(connection: Connection, path: str) -> float:
    """Milliseconds until the answer is here; its JSON is not taken apart."""
    began = time.perf_counter()
    connection.fetch("GET", path)
    return (time.perf_counter() - began) * 1000


def _stats(engine: Engine, ids: list[str]) -> Row:
    """The share of a core that a reading of all containers a second takes, all of them watched as by `docker stats`."""
    assert engine.socket is not None
    assert engine.pid is not None
    with contextlib.ExitStack() as stack:
        watchers = []
        for id in ids:
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.connect(engine.socket)
            sock.sendall(f"GET {API}/containers/{id}/stats?stream=1 HTTP/1.1\r\nHost: engine\r\n\r\n".encode())
            watchers.append(sock)
        _drain(watchers, SETTLE_S)
        shares = []
        for _ in range(STATS_ROUNDS):
            before, began = processes.cpu_s(engine.pid), time.perf_counter()
            _drain(watchers, STATS_S)
            shares.append((processes.cpu_s(engine.pid) - before) / (time.perf_counter() - began) * 100)
    name = f"the daemon's share of a core while `stats` of {CONTAINERS} is watched"
    return Row(name, "%", {engine.name: Samples(shares)}, Target("at most 5 %", 5))


def _drain(socks: list[socket.socket], seconds: float) -> None:
    """Read whatever comes for so long."""
    poller = select.epoll()
    by_fd = {sock.fileno(): sock for sock in socks}
    for fd in by_fd:
        poller.register(fd, select.EPOLLIN)
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        for fd, _ in poller.poll(left):
            if not by_fd[fd].recv(1 << 20):
                raise RuntimeError("a stream of stats has ended")
    poller.close()
