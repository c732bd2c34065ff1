"""What an idle container costs beside its own processes: the monitor, or containerd's shim; and a published port."""

from __future__ import annotations

import time

import processes
from engines import IMAGE, Engine
from samples import Row, Samples, Target

SETTLE_S = 1.0
LOG_S = 300.0
SHIMS = ("containerd-shim", "conmon")
"""They tell whose they are by the container's id; init is the parent of them all."""
MONITORS = ("pier-monitor", *SHIMS)
PORT_KEEPERS = ("docker-proxy", "rootlessport")


def measure(engines: list[Engine]) -> list[Row]:
    counts = (1, 20)
    rows = [Row(f"monitor of an idle container, PSS, {count} running", "MB", {}) for count in counts]
    rows[-1].target = Target("at most 1.2 MB", 1.2)
    logged = Row("monitor that has logged 1 GB, PSS, 20 others running", "MB", {}, Target("at most 2 MB", 2))
    ports = Row("per published port, PSS of the processes that keep it", "MB", {})
    for engine in engines:
        if engine.pid is None:
            continue
        for count, row in zip(counts, rows, strict=True):
            monitors, keepers = _weigh(engine, count)
            row.columns[engine.name] = Samples(monitors)
            ports.columns[engine.name] = Samples([sum(keepers) / count])
        logged.columns[engine.name] = Samples([_weigh_after_log(engine, counts[-1])])
    return [*rows, logged, ports]


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


def _weigh_after_log(engine: Engine, others: int) -> float:
    """PSS of the monitor of a container that has printed a gigabyte, and goes on, beside `others` idle ones."""
    idle = [engine.docker("run", "-d", IMAGE, "sleep", "1000") for _ in range(others)]
    made = []
    try:
        before = set(_helpers(engine, idle))
        script = f"yes {'x' * 79} | head -c 1000000000; echo; echo end; exec sleep 1000"
        rotated = ["--log-opt", "max-size=20m", "--log-opt", "max-file=2"]
        made.append(engine.docker("run", "-d", "--log-driver", "json-file", *rotated, IMAGE, "sh", "-c", script))
        _wait_for_end(engine, made[0])
        time.sleep(SETTLE_S)
        (monitor,) = [
            pid
            for pid in _helpers(engine, [*idle, *made])
            if pid not in before and processes.name(pid).startswith(MONITORS)
        ]
        return processes.pss_mb(monitor)
    finally:
        engine.remove([*idle, *made])


def _wait_for_end(engine: Engine, container: str) -> None:
    """Until the log's last line is that of the end."""
    deadline = time.monotonic() + LOG_S
    while "end" not in engine.docker("logs", "--tail", "1", container):
        if time.monotonic() > deadline:
            raise RuntimeError(f"{engine.name} has not logged 1 GB in {LOG_S:.0f} s")
        time.sleep(SETTLE_S)


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
