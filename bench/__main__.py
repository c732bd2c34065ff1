"""`make bench`: measure Pier and its peer in turn, print the figures, write RESULTS.md.

The peer is the Docker Engine that PEER_DOCKER_HOST names, else the reference engine beside the checkout, else none.
BENCH_ROUNDS (20) says how often each thing is done; a word on the command line picks benches by name.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import bench_archives
import bench_build
import bench_cold
import bench_daemon
import bench_disk
import bench_dns
import bench_exec
import bench_growth
import bench_images
import bench_log
import bench_logs
import bench_many
import bench_memory
import bench_networks
import bench_parallel
import bench_pull
import bench_run
import bench_runtime
import bench_volumes
import engines
import report
from samples import Row

RESULTS = Path(__file__).parent / "RESULTS.md"


def main() -> None:
    if os.geteuid() != 0:
        sys.exit("the benchmark starts a daemon: run it as root (sudo make bench)")
    if not engines.has_docker():
        sys.exit("the benchmark drives both engines with the docker client, which is not installed")
    rounds = int(os.environ.get("BENCH_ROUNDS", "20"))
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pier-bench-", dir="/var/tmp")))
        archive = engines.busybox(folder)
        pier = stack.enter_context(engines.pier(folder / "pier"))
        compared = [pier, *([peer] if (peer := engines.peer()) else [])]
        for engine in compared:
            stack.enter_context(engines.image(engine, archive))
        benches: dict[str, Callable[[], list[Row]]] = {
            "run": lambda: bench_run.measure(compared, rounds),
            "exec": lambda: bench_exec.measure(compared, rounds, archive),
            "parallel": lambda: bench_parallel.measure(compared, rounds),
            "growth": lambda: bench_growth.measure(compared),
            "log": lambda: bench_log.measure(compared, rounds),
            "memory": lambda: bench_memory.measure(compared),
            "daemon": lambda: bench_daemon.measure(compared, rounds),
            "runtime": lambda: bench_runtime.measure(compared, rounds, archive),
            "cold": lambda: bench_cold.measure(compared, rounds, archive),
        }
        benches["logs"] = lambda: bench_logs.measure(compared, rounds)
        benches["networks"] = lambda: bench_networks.measure(compared, rounds)
        benches["dns"] = lambda: bench_dns.measure(compared, rounds)
        benches["many"] = lambda: bench_many.measure(compared, folder / "many", archive, rounds)
        benches["archives"] = lambda: bench_archives.measure(compared, folder / "archives", rounds)
        benches["pull"] = lambda: bench_pull.measure(compared, folder / "pull", rounds)
        benches["disk"] = lambda: bench_disk.measure(compared, folder / "disk")
        benches["images"] = lambda: bench_images.measure(compared, rounds, archive, folder)
        benches["volumes"] = lambda: bench_volumes.measure(compared, rounds, archive, folder)
        benches["build"] = lambda: bench_build.measure(compared, rounds, folder / "build")
        wanted = sys.argv[1:] or list(benches)
        rows = []
        for name in wanted:
            print(f"measuring {name} …", file=sys.stderr, flush=True)
            rows += benches[name]()
        text = report.markdown(compared, rows, rounds)
    print(text)
    if wanted == list(benches):
        RESULTS.write_text(text)


if __name__ == "__main__":
    main()
