"""The disk that ten images of a common base take: Pier, Pier without blobs it can rebuild, Docker's containerd store.

The blobs are gzip by zlib, which can be rebuilt; those that Docker pushes cannot, and for them both columns of Pier are
alike.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import bench_pull
from bench_pull import Place
from engines import START_S, Engine
from samples import Row, Samples, Target

IMAGES = 10
LAYERS = 4
FILES = 2_000
"""Of one image."""
FILE_BYTES = 30_000
REPOSITORY = "bench/ten"
DOCKER = "docker, containerd store"
IN_BOX = "/tmp/pier-bench-containerd"
START_DOCKERD = f"""mkdir -p {IN_BOX}; exec dockerd --feature containerd-snapshotter=true --data-root {IN_BOX}/data \\
    --exec-root {IN_BOX}/run --pidfile {IN_BOX}/pid -H unix://{IN_BOX}/sock --bridge none --iptables=false \\
    --ip6tables=false"""


def measure(compared_engines: list[Engine], folder: Path) -> list[Row]:
    """MB on the disk after the pulls, and after what goes on in the background has ended."""
    peer = next((engine for engine in compared_engines if engine.name != "pier"), None)
    columns: dict[str, Samples] = {}
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(bench_pull.registries(peer))
        if place is None:
            print("no registry: set BENCH_REGISTRY and BENCH_PUSH_REGISTRY", file=sys.stderr)
            return []
        fill(place)
        for name, mode in (("pier", "keep"), ("pier, blobs rebuilt", "rebuild")):
            with bench_pull.second_pier(folder / mode, place, "--layer-blobs", mode) as engine:
                pull(["docker", "-H", engine.host], place)
                columns[name] = Samples([settled_mb(["du", "-s", str(folder / mode / "data")])])
        if peer is not None and peer.box is not None:
            with containerd_store(peer.box):
                pull([str(peer.box), "run", "docker", "-H", f"unix://{IN_BOX}/sock"], place)
                columns[DOCKER] = Samples([settled_mb([str(peer.box), "run", "du", "-s", f"{IN_BOX}/data"])])
    name = f"disk, {IMAGES} images with {LAYERS - 1} of {LAYERS} layers in common"
    return [Row(name, "MB", columns, Target("at most 0.6 of docker's", 0.6, DOCKER), subject="pier, blobs rebuilt")]


def fill(place: Place) -> None:
    script = Path(__file__).with_name("registry_image.py")
    words = [place.pull, REPOSITORY, str(LAYERS), str(FILES), str(FILE_BYTES), str(IMAGES)]
    subprocess.run([*place.within, sys.executable, str(script), *words], check=True, timeout=300)


def pull(docker: list[str], place: Place) -> None:
    for image in range(1, IMAGES + 1):
        words = [*docker, "pull", "-q", f"{place.pull}/{REPOSITORY}:{image}"]
        subprocess.run(words, check=True, capture_output=True, timeout=300)


def settled_mb(du: list[str]) -> float:
    """What `du` says once it says the same for three seconds."""
    last, since = -1, time.monotonic()
    while time.monotonic() - since < 3:
        now = int(subprocess.run(du, check=True, capture_output=True).stdout.split()[0])
        if now != last:
            last, since = now, time.monotonic()
        time.sleep(0.2)
    return last * 1024 / 1e6


@contextlib.contextmanager
def containerd_store(box: Path) -> Iterator[None]:
    """A dockerd in the peer's box that keeps images as containerd does."""
    process = subprocess.Popen(
        [box, "run", "sh", "-c", START_DOCKERD],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        asks = [box, "run", "docker", "-H", f"unix://{IN_BOX}/sock", "version"]
        deadline = time.monotonic() + START_S
        while subprocess.run(asks, check=False, capture_output=True).returncode:
            if time.monotonic() > deadline:
                raise RuntimeError("no dockerd with the containerd store in the box")
            time.sleep(0.1)
        yield
    finally:
        subprocess.run([box, "run", "sh", "-c", f"kill $(cat {IN_BOX}/pid)"], check=False)
        process.wait(START_S)
        subprocess.run([box, "run", "rm", "-rf", IN_BOX], check=False)
