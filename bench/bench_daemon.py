"""The daemon itself: what it weighs with nothing to do, and how long it takes to answer once it is started."""

from __future__ import annotations

import contextlib
import functools
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import processes
from engines import Engine, daemon_processes, forget_bridge, start_pierd, wait_for
from samples import Row, Samples, Target, in_turn

IN_BOX = Path("/box")
"""Where the box shows the folder of its socket."""
SECOND = 2
"""The number of the daemon that is started here, beside the one that is measured."""
PEER_ROOT = "/var/lib/pier-bench-docker"


def measure(engines: list[Engine], rounds: int) -> list[Row]:
    return [_memory(engines), _start_up(engines, max(3, rounds // 5))]


def _memory(engines: list[Engine]) -> Row:
    columns = {
        engine.name: Samples([sum(processes.pss_mb(pid) for pid in pids)])
        for engine in engines
        if (pids := daemon_processes(engine))
    }
    return Row(
        "daemon idle, PSS (pierd and zygote; dockerd and containerd)", "MB", columns, Target("at most 60 MB", 60)
    )


def _start_up(engines: list[Engine], rounds: int) -> Row:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pier-bench-", dir="/var/tmp")))
        deeds: dict[str, Callable[[], float]] = {"pier": lambda: _start_pier(folder)}
        for engine in engines:
            if engine.box is not None and engine.socket is not None:
                stack.callback(_forget_docker, engine.box)
                deeds[engine.name] = functools.partial(_start_docker, engine.box, Path(engine.socket).parent)
        stack.callback(forget_bridge, SECOND)
        columns = in_turn(deeds, rounds, 1)
    return Row("daemon start-up until it answers (a data root it knows)", "ms", columns)


def _start_pier(folder: Path) -> float:
    began = time.perf_counter()
    process = start_pierd(folder, SECOND)
    took = (time.perf_counter() - began) * 1000
    process.terminate()
    process.wait()
    return took


def _forget_docker(box: Path) -> None:
    subprocess.run([box, "run", "rm", "-rf", PEER_ROOT, f"{PEER_ROOT}-run"], check=False)


def _start_docker(box: Path, run: Path) -> float:
    """A second dockerd in the peer's box, with a containerd and a network namespace of its own."""
    flags = ["--data-root", PEER_ROOT, "--exec-root", f"{PEER_ROOT}-run", "--pidfile", f"{PEER_ROOT}.pid"]
    flags += ["-H", f"unix://{IN_BOX}/bench.sock"]
    began = time.perf_counter()
    process = subprocess.Popen(
        [box, "run", "unshare", "--net", "dockerd", *flags],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(str(run / "bench.sock"), process)
        return (time.perf_counter() - began) * 1000
    finally:
        subprocess.run([box, "run", "sh", "-c", f"kill $(cat {PEER_ROOT}.pid)"], check=False)
        process.wait()
        (run / "bench.sock").unlink(missing_ok=True)
