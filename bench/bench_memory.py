"""What an idle container costs beside its own processes: the monitor, or containerd's shim; and a published port."""

from __future__ import annotations

import time

import processes
from engines import IMAGE, Engine
from samples import Row, Samples, Target

SETTLE_S = 1.0
SHIMS = ("containerd-shim", "conmon")
"""They tell whose they are by the container's id; init is the parent of them all."""
MONITORS = ("pier-monitor", *SHIMS)
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
    others = set(_helpers(engine, []))
    made = [engine.docker("run", "-d", "-p", "127.0.0.1::80", IMAGE, "sleep", "1000") for _ in range(count)]
    try:
        time.sleep(SETTLE_S)
        helpers = [pid for pid in _helpers(engine, made) if pid not in others]
        monitors = [pid for pid in helpers if processes.name(pid).startswith(MONITORS)]
        keepers = [pid for pid in helpers if pid not in monitors]
        return [processes.pss_mb(pid) for pid in monitors], [processes.pss_mb(pid) for pid in keepers]
    finally:
        engine.remove(made)


def _helpers(engine: Engine, containers: list[str]) -> list[int]:
    """What names one of `containers` on its command line, and what the daemon or its zygote started."""
    found = []
    for pid in processes.all_pids():
        name, above = processes.name(pid), processes.parent(pid)
        if name.startswith(SHIMS):
            wanted = not set(containers).isdisjoint(processes.command_line(pid))
        else:
            wanted = name.startswith(MONITORS + PORT_KEEPERS) and engine.pid in (above, processes.parent(above))
        if wanted:
            found.append(pid)
    return found
