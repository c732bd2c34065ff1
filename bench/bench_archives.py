"""`docker load` and `docker save` of 300 MB in 10,000 files and 5 layers; the daemon's memory while 2 GB are loaded."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import platform
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import engines
import processes
import registry_image
from engines import Engine
from samples import Row, Samples, Target, in_turn

FILES, FILE_BYTES, LAYERS = 10_000, 30_000, 5
LARGE_BYTES = 2_000_000_000
NAME, LARGE_NAME = f"pier-bench-archive-{engines.OWN}:1", f"pier-bench-large-{engines.OWN}:1"


def measure(compared: list[Engine], folder: Path, rounds: int) -> list[Row]:
    """The archives are written into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    archive, saved = folder / "images.tar", folder / "saved.tar"
    # Numbers that no other bench has: a layer that an engine knows already would not be unpacked.
    numbers = range(engines.OWN * LAYERS, (engines.OWN + 1) * LAYERS)
    layers = [registry_image.layer(number, FILES // LAYERS, FILE_BYTES) for number in numbers]
    write_archive(archive, NAME, [(len(layer), lambda layer=layer: iter([layer])) for layer in layers])  # type: ignore[misc]
    size = f"{FILES * FILE_BYTES // 1_000_000} MB in {FILES:,} files and {LAYERS} layers"
    peer = next((engine.name for engine in compared if engine.name != "pier"), None)
    target = Target(f"at most 0.8 of {peer}", 0.8, peer) if peer else None
    rounds = max(3, rounds // 4)

    def load(engine: Engine) -> float:
        forget(engine, NAME)
        return timed(lambda: engine.docker("load", "-q", "-i", str(archive)))

    def save(engine: Engine) -> float:
        saved.unlink(missing_ok=True)
        return timed(lambda: engine.docker("save", "-o", str(saved), NAME))

    try:
        loads = in_turn({one.name: lambda one=one: load(one) for one in compared}, rounds, 1)  # type: ignore[misc]
        saves = in_turn({one.name: lambda one=one: save(one) for one in compared}, rounds, 1)  # type: ignore[misc]
        memory = {one.name: Samples([large(one, folder)]) for one in compared if one.pid is not None}
    finally:
        for engine in compared:
            forget(engine, NAME)
            forget(engine, LARGE_NAME)
    return [
        Row(f"load {size}", "ms", loads, target),
        Row(f"save {size}", "ms", saves, target),
        Row("memory above idle while 2 GB are loaded, at its peak", "MB", memory, Target("at most 100 MB", 100)),
    ]


def large(engine: Engine, folder: Path) -> float:
    """MB above idle while an archive of 2 GB is loaded."""
    path = folder / "large.tar"
    if not path.exists():
        size, head = large_layer()
        write_archive(path, LARGE_NAME, [(size, lambda: zeros(head, size))])
    forget(engine, NAME)
    assert engine.pid is not None
    processes.forget_peak(engine.pid)
    idle = processes.peak_mb(engine.pid)
    engine.docker("load", "-q", "-i", str(path))
    peak = processes.peak_mb(engine.pid)
    forget(engine, LARGE_NAME)
    return max(0.0, peak - idle)


def timed(deed: Callable[[], object]) -> float:
    began = time.perf_counter()
    deed()
    return (time.perf_counter() - began) * 1000


def forget(engine: Engine, name: str) -> None:
    with contextlib.suppress(subprocess.CalledProcessError):
        engine.docker("rmi", "-f", name)


def large_layer() -> tuple[int, bytes]:
    """Bytes of a layer with one file of LARGE_BYTES, and its first ones."""
    entry = tarfile.TarInfo("data/large")
    entry.size = LARGE_BYTES
    head = entry.tobuf()
    return len(head) + LARGE_BYTES + -LARGE_BYTES % 512 + 1024, head


def zeros(head: bytes, size: int) -> Iterator[bytes]:
    yield head
    left = size - len(head)
    while left:
        yield bytes(min(left, 1 << 20))
        left -= min(left, 1 << 20)


def write_archive(path: Path, name: str, layers: list[tuple[int, Callable[[], Iterator[bytes]]]]) -> None:
    """What `docker save` wrote until version 24; a layer is its size and what gives its bytes."""
    diff_ids = []
    for _, pieces in layers:
        state = hashlib.sha256()
        for piece in pieces():
            state.update(piece)
        diff_ids.append(f"sha256:{state.hexdigest()}")
    config = {
        "os": "linux",
        "architecture": registry_image.ARCHITECTURES.get(platform.machine(), platform.machine()),
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    files = [f"{number}/layer.tar" for number in range(len(layers))]
    table = [{"Config": "config.json", "RepoTags": [name], "Layers": files}]
    with path.open("wb") as out:
        for file, (size, pieces) in zip(files, layers, strict=True):
            entry = tarfile.TarInfo(file)
            entry.size = size
            out.write(entry.tobuf())
            for piece in pieces():
                out.write(piece)
            out.write(bytes(-size % 512))
        with tarfile.open(fileobj=out, mode="w") as rest:
            for file, document in (("config.json", config), ("manifest.json", table)):
                data = json.dumps(document).encode()
                entry = tarfile.TarInfo(file)
                entry.size = len(data)
                rest.addfile(entry, io.BytesIO(data))
