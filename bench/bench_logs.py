"""A log read back: all of it at once, and line by line by many who follow it."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Callable

from engines import IMAGE, Engine
from samples import Row, Target, in_turn

TOTAL_MB = int(os.environ.get("BENCH_LOG_MB", "1000"))
LINE = "2026-01-02 03:04:05,678 INFO shop.orders: request handled in 12 ms path=/a/b/c status=200 bytes=2326 ok yes"
FOLLOWERS = (1, 100)
PATIENCE_S = 60.0
READ_BYTES = 1 << 20


def measure(engines: list[Engine], rounds: int) -> list[Row]:
    engines = [engine for engine in engines if engine.socket]
    return [_whole(engines), *(_follow(engines, count, rounds) for count in FOLLOWERS)]


def _whole(engines: list[Engine]) -> Row:
    """`GET /containers/ID/logs` of a log of so many megabytes of text; the bytes are dropped."""
    with contextlib.ExitStack() as stack:
        deeds: dict[str, Callable[[], float | None]] = {}
        for engine in engines:
            endless = ["--log-opt", "max-size=-1"] if engine.name == "pier" else []  # dockerd's own default
            words = ["--log-driver", "json-file", *endless, IMAGE, "sh", "-c"]
            made = engine.docker("create", *words, f"yes '{LINE}' | head -c {TOTAL_MB}000000")
            stack.callback(engine.remove, [made])
            engine.docker("start", made)
            engine.docker("wait", made)
            deeds[engine.name] = lambda engine=engine, made=made: _drain(engine, made)  # type: ignore[misc]
        columns = in_turn(deeds, 1, warm_up=0)
    return Row(f"logs of {TOTAL_MB} MB, by the API", "ms", columns, Target("at most half of docker", 0.5, "docker"))


def _drain(engine: Engine, container: str) -> None:
    with _ask(engine, f"GET /containers/{container}/logs?stdout=1 HTTP/1.0") as sock:
        while sock.recv(READ_BYTES):
            pass


def _follow(engines: list[Engine], count: int, rounds: int) -> Row:
    """From a byte on a container's standard input, through `cat` and its log, to all who follow it."""
    with contextlib.ExitStack() as stack:
        deeds: dict[str, Callable[[], float | None]] = {}
        for engine in engines:
            made = engine.docker("run", "-d", "-i", IMAGE, "cat")
            stack.callback(engine.remove, [made])
            follow = f"GET /containers/{made}/logs?stdout=1&follow=1 HTTP/1.1"
            readers = [stack.enter_context(_ask(engine, follow)) for _ in range(count)]
            attach = f"POST /containers/{made}/attach?stdin=1&stream=1 HTTP/1.1\r\nUpgrade: tcp\r\nConnection: Upgrade"
            writer = stack.enter_context(_ask(engine, attach))
            time.sleep(1)  # until all of them follow
            deeds[engine.name] = _Line(writer, readers).send
        columns = in_turn(deeds, rounds)
    return Row(f"a line to the log, until {count} who follow have it", "ms", columns, Target("at most 5 ms", 5))


class _Line:
    """Sends lines, each another, and waits for them."""

    def __init__(self, writer: socket.socket, readers: list[socket.socket]) -> None:
        self._writer = writer
        self._readers = readers
        self._number = 0

    def send(self) -> float:
        self._number += 1
        line = b"line %09d end\n" % self._number
        missing = dict.fromkeys(self._readers, b"")
        began = time.perf_counter()
        self._writer.sendall(line)
        while missing:
            for sock in select.select(list(missing), [], [], PATIENCE_S)[0]:
                missing[sock] += sock.recv(READ_BYTES)
                if line in missing[sock]:
                    del missing[sock]
        return (time.perf_counter() - began) * 1000


def _ask(engine: Engine, request: str) -> socket.socket:
    assert engine.socket is not None
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(PATIENCE_S)
    sock.connect(engine.socket)
    sock.sendall(f"{request}\r\nHost: engine\r\nContent-Length: 0\r\n\r\n".encode())
    return sock
