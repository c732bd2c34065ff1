"""What an idle container costs beside its own processes: the monitor, or containerd's shim; and a published port."""

from __future__ import annotations

import time

import processes
from engines import IMAGE, Engine
from samples import Row, Samples, Target

SETTLE_S = 1.0
MONITORS = ("pier-monitor", "containerd-shim", "conmon")
PORT_KEEPERS = ("docker-proxy", "rootlessport")


def measure(engines: list[Engine]) -> list[Row]:
    counts = (1, 20)
    rows = [Row(f"monitor of an idle container, PSS, {count} running", "MB", {}) for count in counts]
    rows[-1].target = Target("at most 1.5 MB", 1.5)
    ports = Row("per published port, PSS of the processes that keep it", "MB", {})
    for engine in engines:
        if engine.pid is None:
            continue
        for count, row in zip(counts, rows, strict=True):
            monitors, keepers = _weigh(engine, count)
            row.columns[engine.name] = Samples(monitors)
            ports.columns[engine.name] = Samples([sum(keepers) / count])
    return [*rows, ports]


def _weigh(engine: Engine, count: int) -> tuple[list[float], list[float]]:
    """PSS of each monitor, and of each process that keeps a port, of `count` containers with a port each."""
    made = [engine.docker("run", "-d", "-p", "127.0.0.1::80", IMAGE, "sleep", "1000") for _ in range(count)]
    try:
        time.sleep(SETTLE_S)
        kept = [pid for pid in processes.all_pids() if _serves(pid, engine, made)]
        monitors = [pid for pid in kept if processes.name(pid).startswith(MONITORS)]
        return [processes.pss_mb(pid) for pid in monitors], [
            processes.pss_mb(pid) for pid in kept if pid not in monitors
        ]
    finally:
        engine.remove(made)


def _serves(pid: int, engine: Engine, containers: list[str]) -> bool:
    """Whether a process keeps one of these containers: it names it, or it descends from the engine."""
    if not processes.name(pid).startswith(MONITORS + PORT_KEEPERS):
        return False
    above = processes.parent(pid)
    return not {above, processes.parent(above)}.isdisjoint({engine.pid}) or any(
        word in containers for word in processes.command_line(pid)
    )
