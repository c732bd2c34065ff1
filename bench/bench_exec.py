"""`exec true` in a container that runs."""

from __future__ import annotations

from collections.abc import Callable

from bench_run import void
from engines import BIN, IMAGE, Engine
from samples import Row, in_turn


def measure(engines: list[Engine], rounds: int) -> list[Row]:
    containers = {engine.name: engine.docker("run", "-d", IMAGE, "sleep", "1000") for engine in engines}

    def deed(engine: Engine, client: str) -> Callable[[], None]:
        return lambda: void(engine.command(client, "exec", containers[engine.name], "true"))

    deeds = {engine.name: deed(engine, "docker") for engine in engines}
    deeds["pier, its own client"] = deed(engines[0], str(BIN / "pier"))
    try:
        return [Row("`docker exec true`", "ms", in_turn(deeds, rounds))]
    finally:
        for engine in engines:
            engine.remove([containers[engine.name]])
