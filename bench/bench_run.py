"""`run --rm busybox true`, from the request to the removed container: through the API, and through each client."""

from __future__ import annotations

from collections.abc import Callable

from api import Connection
from engines import BIN, IMAGE, Engine
from samples import Row, Target, in_turn


def measure(engines: list[Engine], rounds: int) -> list[Row]:
    return [_through_api(engines, rounds), _through_clients(engines, rounds)]


def _through_api(engines: list[Engine], rounds: int) -> Row:
    connections = {engine.name: Connection(engine.socket) for engine in engines if engine.socket}

    def deed(connection: Connection) -> Callable[[], None]:
        return lambda: connection.run(IMAGE, ["true"])

    columns = in_turn({name: deed(connection) for name, connection in connections.items()}, rounds)
    for connection in connections.values():
        connection.close()
    return Row("create, start, wait, delete through the API", "ms", columns)


def _through_clients(engines: list[Engine], rounds: int) -> Row:
    run = ("run", "--rm", IMAGE, "true")

    def deed(engine: Engine, client: str) -> Callable[[], None]:
        return lambda: void(engine.command(client, *run))

    deeds = {engine.name: deed(engine, "docker") for engine in engines}
    deeds["pier, its own client"] = deed(engines[0], str(BIN / "pier"))
    target = Target("at most a quarter of dockerd's", 0.25, of="docker")
    return Row("`docker run --rm busybox true`", "ms", in_turn(deeds, rounds), target)


def void(_: object) -> None:
    """For a deed whose result is only that it is done."""
