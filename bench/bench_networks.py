"""What the network costs: of a start, of a connect, of a published port among many, and of each byte that goes by."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from api import Connection
from engines import IMAGE, Engine
from samples import Row, Samples, Target, in_turn

from pier.kernel.namespaces import CLONE_NEWNET, setns
from pier.kernel.paths import closing

NETWORK = f"pier-bench-net-{os.getpid()}"
CONTAINERS = {"pier": 200, "docker": 50}
"""How many are started beside each other; a Docker Engine keeps two processes for each port."""
PORTS = 10
"""Published by each of them."""
ENDS = 30
"""How many starts at the beginning and at the end are compared."""
FIRST_PORT = 20000
SETTLE_S = 3.0
TRANSFER = 1 << 30
CHUNK = 1 << 18
SERVER_PORT, HOST_PORT = 5001, 19999
TRANSFERS = 5


def measure(engines: list[Engine], rounds: int) -> list[Row]:
    engines = [engine for engine in engines if engine.socket]
    return [_share(engines, rounds), *_live(engines, rounds), *_throughput(engines), *_ports(engines)]


# --- of a start


def _share(engines: list[Engine], rounds: int) -> Row:
    """The difference between a start with a network and one without, taken in turn."""
    connections = {engine.name: Connection(engine.socket) for engine in engines if engine.socket}

    def deed(connection: Connection) -> Callable[[], float]:
        return lambda: _one_start(connection, "bridge") - _one_start(connection, "none")

    columns = in_turn({name: deed(connection) for name, connection in connections.items()}, rounds)
    for connection in connections.values():
        connection.close()
    return Row("share of the network in a start", "ms", columns, Target("at most 8 ms", 8))


def _one_start(connection: Connection, mode: str) -> float:
    made = _create(connection, ["true"], {"NetworkMode": mode})
    took = _start(connection, made)
    connection.call("POST", f"/containers/{made}/wait")
    connection.call("DELETE", f"/containers/{made}")
    return took


def _create(connection: Connection, command: list[str], host_config: dict[str, Any]) -> str:
    exposed: dict[str, Any] = {port: {} for port in host_config.get("PortBindings", {})}
    body = {"Image": IMAGE, "Cmd": command, "HostConfig": host_config, "ExposedPorts": exposed}
    identity: str = connection.call("POST", "/containers/create", body)["Id"]
    return identity


def _start(connection: Connection, identity: str) -> float:
    began = time.perf_counter()
    connection.call("POST", f"/containers/{identity}/start")
    return (time.perf_counter() - began) * 1000


# --- of a running container


def _live(engines: list[Engine], rounds: int) -> list[Row]:
    columns: dict[str, dict[str, Samples]] = {"connect": {}, "disconnect": {}}
    for verb, samples in columns.items():
        samples.update({engine.name: Samples() for engine in engines if verb})
    for engine in engines:
        assert engine.socket
        connection = Connection(engine.socket)
        network = connection.call("POST", "/networks/create", {"Name": NETWORK})["Id"]
        made = _create(connection, ["sleep", "1000"], {})
        _start(connection, made)
        try:
            for number in range(rounds + 2):
                for verb, samples in columns.items():
                    began = time.perf_counter()
                    connection.call("POST", f"/networks/{network}/{verb}", {"Container": made})
                    if number >= 2:
                        samples[engine.name].values.append((time.perf_counter() - began) * 1000)
        finally:
            engine.remove([made])
            connection.call("DELETE", f"/networks/{network}")
            connection.close()
    return [
        Row("connect of a running container", "ms", columns["connect"], Target("at most 8 ms", 8)),
        Row("disconnect of a running container", "ms", columns["disconnect"]),
    ]


# --- of a published port among many


def _ports(engines: list[Engine]) -> list[Row]:
    took = {engine.name: _starts(engine, CONTAINERS[engine.name]) for engine in engines}
    first = {name: Samples(values[:ENDS]) for name, values in took.items()}
    last = {name: Samples(values[-ENDS:]) for name, values in took.items()}
    growth = {name: Samples([last[name].median / first[name].median]) for name in took}
    many = ", ".join(f"{name} {CONTAINERS[name]}" for name in took)
    what = f"a start with {PORTS} published ports"
    return [
        Row(f"{what}, of the first {ENDS}", "ms", first),
        Row(f"{what}, of the last {ENDS} ({many})", "ms", last),
        Row(f"its growth ({many})", "times", growth, Target("at most 1.2 times", 1.2)),
    ]


def _starts(engine: Engine, count: int) -> list[float]:
    """Milliseconds of each start; all go on until the last. Nothing of the other engine's runs meanwhile."""
    assert engine.socket
    connection = Connection(engine.socket)
    made: list[str] = []
    took: list[float] = []
    try:
        for number in range(count):
            first = FIRST_PORT + number * PORTS
            bindings = {f"{port}/tcp": [{"HostPort": str(port)}] for port in range(first, first + PORTS)}
            made.append(_create(connection, ["sleep", "1000"], {"PortBindings": bindings}))
            took.append(_start(connection, made[-1]))
    finally:
        engine.remove(made)
        connection.close()
        time.sleep(SETTLE_S)
    return took


# --- of each byte


def _throughput(engines: list[Engine]) -> list[Row]:
    """One TCP connection, its ends sockets in the containers' network namespaces: no program is measured."""
    published: dict[str, Samples] = {}
    between: dict[str, Samples] = {}
    for engine in engines:
        with _pair(engine) as (server, client, host, gateway):
            address = _address(engine, server)
            deeds = {
                "published": lambda: _transfer(engine, server, host, (gateway, HOST_PORT)),  # noqa: B023
                "between": lambda: _transfer(engine, server, client, (address, SERVER_PORT)),  # noqa: B023
            }
            columns = in_turn(deeds, TRANSFERS, warm_up=1)
        published[engine.name], between[engine.name] = columns["published"], columns["between"]
    target = Target("at most 1.05 times dockerd's", 1.05, of="docker")
    return [
        Row("1 GiB from the host through a published port", "ms", published, target),
        Row("1 GiB between containers", "ms", between, target),
    ]


@contextmanager
def _pair(engine: Engine) -> Iterator[tuple[str, str, str, str]]:
    """(server container, client container, "" for the host, the host's address on the default bridge)."""
    assert engine.socket
    connection = Connection(engine.socket)
    bindings = {f"{SERVER_PORT}/tcp": [{"HostPort": str(HOST_PORT)}]}
    made = [
        _create(connection, ["sleep", "1000"], {"PortBindings": bindings}),
        _create(connection, ["sleep", "1000"], {}),
    ]
    try:
        for identity in made:
            _start(connection, identity)
        (config,) = connection.call("GET", "/networks/bridge")["IPAM"]["Config"][:1]
        yield made[0], made[1], "", config["Gateway"]
    finally:
        engine.remove(made)
        connection.close()


def _address(engine: Engine, container: str) -> str:
    return engine.docker("inspect", "--format", "{{.NetworkSettings.Networks.bridge.IPAddress}}", container)


def _transfer(engine: Engine, server: str, client: str, target: tuple[str, int]) -> float:
    """Milliseconds of one transfer."""
    listener = _inside(engine, server, lambda: socket.create_server(("0.0.0.0", SERVER_PORT)))
    sender = _inside(engine, client, lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
    received = threading.Thread(target=_receive, args=(listener,))
    received.start()
    data = bytes(CHUNK)
    with listener, sender:
        sender.connect(target)
        began = time.perf_counter()
        for _ in range(TRANSFER // CHUNK):
            sender.sendall(data)
        sender.shutdown(socket.SHUT_WR)
        received.join()
    return (time.perf_counter() - began) * 1000


def _receive(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    room = bytearray(CHUNK)
    with connection:
        while connection.recv_into(room):
            pass


def _inside(engine: Engine, container: str, deed: Callable[[], socket.socket]) -> socket.socket:
    """Do it in a container's network namespace, or the engine's own, by a thread that ends there."""
    path = f"/proc/{engine.pid}/ns/net"
    if container:
        # The engine may live in a pid namespace of its own: the number counts there.
        pid = engine.docker("inspect", "--format", "{{.State.Pid}}", container)
        path = f"/proc/{engine.pid}/root/proc/{pid}/ns/net"

    def work() -> socket.socket:
        with closing(os.open(path, os.O_RDONLY | os.O_CLOEXEC)) as netns:
            setns(netns, CLONE_NEWNET)
        return deed()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(work).result()
