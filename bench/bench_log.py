"""From a program's standard output to its log: 200 MB of lines, until the container has ended and the log is complete.

The lines are made by a container's first run, in a file of its own, and printed by every run after it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from engines import IMAGE, Engine
from samples import Row, Target, in_turn

MB = 10**6
TOTAL_MB, FILE_MB = 200, 10
ROUNDS_MAX = 3
"""A round writes 200 MB and more to the disk."""
TARGETS = {
    "json-file": Target("at most half of docker", 0.5, "docker"),
    "local": Target("at most a fifth of docker", 0.2, "docker"),
}
WORDS = "GET /index.html HTTP/1.1 200 2326 curl/8.5 in 12 ms ok, served from the cache; "
PROGRAM = (
    "if [ -e /lines ]; then n=0; while [ $n -lt {times} ]; do cat /lines; n=$((n+1)); done;"
    " else yes '{line}' | head -c {file_bytes} >/lines; fi"
)


def measure(engines: list[Engine], rounds: int) -> list[Row]:
    return [
        _row(engines, min(rounds, ROUNDS_MAX), driver, length, target)
        for driver, target in TARGETS.items()
        for length in (100, 1024)
    ]


def _row(engines: list[Engine], rounds: int, driver: str, length: int, target: Target) -> Row:
    with contextlib.ExitStack() as stack:
        deeds: dict[str, Callable[[], float]] = {}
        for engine in engines:
            made = engine.docker("create", "--log-driver", driver, IMAGE, "sh", "-c", program(length))
            stack.callback(engine.remove, [made])
            _run(engine, made)
            deeds[engine.name] = lambda engine=engine, made=made: _run(engine, made)  # type: ignore[misc]
        samples = in_turn(deeds, rounds, warm_up=1)
    return Row(f"{TOTAL_MB} MB of {length}-byte lines to {driver}", "ms", samples, target)


def program(length: int) -> str:
    """Prints lines of `length` bytes, newline included."""
    line = (WORDS * (length // len(WORDS) + 1))[: length - 1]
    return PROGRAM.format(line=line, file_bytes=FILE_MB * MB, times=TOTAL_MB // FILE_MB)


def _run(engine: Engine, container: str) -> float:
    began = time.perf_counter()
    engine.docker("start", container)
    engine.docker("wait", container)
    return (time.perf_counter() - began) * 1000
