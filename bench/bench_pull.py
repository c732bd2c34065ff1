"""Pull with unpacking, and push, of an image of 300 MB and 10,000 files, from and to a registry on the loopback device.

The registry is `docker-registry` in the peer's box, where all engines see it under one address; BENCH_REGISTRY (and
BENCH_PUSH_REGISTRY, which must be empty at each push) name others. Without either the bench is left out.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import engines
import processes
from engines import Engine
from samples import Row, Samples, Target, in_turn

FILES = 10_000
FILE_BYTES = 30_000
LAYERS = 5
REPOSITORY = "bench/large"
PORTS = (5931, 5932)
"""Of the registry that is pulled from, and of the one that is pushed to, on the box's loopback device."""
IN_BOX = "/tmp/pier-bench-registry"
BOX_CONFIG = """version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {folder}/{port}}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""


@dataclass(frozen=True)
class Place:
    """The registries, and what makes a program see them."""

    pull: str
    push: str
    within: list[str]
    empty: Callable[[], None]
    """Makes the registry that is pushed to forget everything."""


def measure(compared_engines: list[Engine], folder: Path, rounds: int) -> list[Row]:
    """Pier is started anew on `folder`, where the registry can be seen."""
    peer = next((engine for engine in compared_engines if engine.name != "pier"), None)
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(registries(peer))
        if place is None:
            print("no registry: set BENCH_REGISTRY and BENCH_PUSH_REGISTRY", file=sys.stderr)
            return []
        fill(place)
        pier = stack.enter_context(second_pier(folder / "pull", place))
        compared: dict[str, Client] = {"pier": DockerClient(pier, place)}
        if peer is not None:
            compared[peer.name] = DockerClient(peer, place)
            if peer.box is not None and has_podman(peer.box):
                compared["podman"] = PodmanClient(peer.box, place)
        rounds = max(3, rounds // 4)
        return [*_pulls(compared, rounds), *_pushes(compared, rounds, place)]


def _pulls(compared: dict[str, Client], rounds: int) -> list[Row]:
    memory = {name: Samples() for name in compared}
    idle_mb = {name: client.rest() for name, client in compared.items()}

    def pull(name: str, client: Client) -> float:
        client.forget()
        client.rest()
        began = time.perf_counter()
        client.pull()
        took = (time.perf_counter() - began) * 1000
        if idle_mb[name]:
            memory[name].values.append(max(0.0, client.peak_mb() - idle_mb[name]))
        return took

    deeds = {name: lambda name=name, client=client: pull(name, client) for name, client in compared.items()}
    times = in_turn(deeds, rounds, 1)  # type: ignore[arg-type]
    rows = [
        Row(f"pull and unpack {_size()}", "ms", times, Target(f"at most 0.6 of {peer}", 0.6, peer))
        for peer in list(compared)[1:]
    ] or [Row(f"pull and unpack {_size()}", "ms", times)]
    weighed = {name: samples for name, samples in memory.items() if samples.values}
    return [*rows, Row("memory above idle in that pull, at its peak", "MB", weighed, Target("at most 100 MB", 100))]


def _pushes(compared: dict[str, Client], rounds: int, place: Place) -> list[Row]:
    def push(client: Client) -> float:
        place.empty()
        began = time.perf_counter()
        client.push()
        return (time.perf_counter() - began) * 1000

    for client in compared.values():
        client.pull()
    deeds = {name: lambda client=client: push(client) for name, client in compared.items()}
    times = in_turn(deeds, rounds, 1)  # type: ignore[arg-type]
    peers = [name for name in compared if name.startswith("docker")]
    target = Target(f"at most 0.8 of {peers[0]}", 0.8, peers[0]) if peers else None
    return [Row(f"push {_size()} to an empty registry", "ms", times, target)]


def _size() -> str:
    return f"{FILES * FILE_BYTES // 1_000_000} MB in {FILES:,} files and {LAYERS} layers"


class Client:
    """How one engine is told to pull and push."""

    def __init__(self, place: Place) -> None:
        self.source = f"{place.pull}/{REPOSITORY}:1"
        self.target = f"{place.push}/{REPOSITORY}:1"

    def forget(self) -> None:
        """Remove the image."""
        raise NotImplementedError

    def pull(self) -> None:
        raise NotImplementedError

    def push(self) -> None:
        raise NotImplementedError

    def rest(self) -> float:
        """Begin to watch memory; what the daemon has now in MB, 0 where there is no daemon."""
        return 0.0

    def peak_mb(self) -> float:
        """The most since `rest`."""
        return 0.0


class DockerClient(Client):
    """An engine that Docker's client drives."""

    def __init__(self, engine: Engine, place: Place) -> None:
        super().__init__(place)
        self.engine = engine

    def forget(self) -> None:
        for name in (self.source, self.target):
            with contextlib.suppress(subprocess.CalledProcessError):
                self.engine.docker("rmi", "-f", name)

    def pull(self) -> None:
        self.engine.docker("pull", "-q", self.source)
        self.engine.docker("tag", self.source, self.target)

    def push(self) -> None:
        self.engine.docker("push", "-q", self.target)

    def rest(self) -> float:
        pid = self.engine.pid
        if pid is None:
            return 0.0
        processes.forget_peak(pid)
        return processes.peak_mb(pid)

    def peak_mb(self) -> float:
        pid = self.engine.pid
        return processes.peak_mb(pid) if pid is not None else 0.0


class PodmanClient(Client):
    """Podman in the peer's box; it has no daemon."""

    def __init__(self, box: Path, place: Place) -> None:
        super().__init__(place)
        self.box = box

    def _podman(self, *words: str) -> None:
        subprocess.run([self.box, "run", "podman", *words], check=True, capture_output=True, timeout=300)

    def forget(self) -> None:
        with contextlib.suppress(subprocess.CalledProcessError):
            self._podman("rmi", "-f", self.source, self.target)

    def pull(self) -> None:
        self._podman("pull", "-q", "--tls-verify=false", self.source)
        self._podman("tag", self.source, self.target)

    def push(self) -> None:
        self._podman("push", "-q", "--tls-verify=false", self.target)


def has_podman(box: Path) -> bool:
    return subprocess.run([box, "run", "podman", "--version"], check=False, capture_output=True).returncode == 0


@contextlib.contextmanager
def registries(peer: Engine | None) -> Iterator[Place | None]:
    """The two registries, started where nobody names them."""
    pull, push = os.environ.get("BENCH_REGISTRY"), os.environ.get("BENCH_PUSH_REGISTRY")
    if pull and push:
        yield Place(pull, push, [], lambda: None)
    elif peer is None or peer.box is None:
        yield None
    else:
        with contextlib.ExitStack() as stack:
            for port in PORTS:
                stack.enter_context(boxed_registry(peer.box, port))
            box = peer.box
            empty = [str(box), "run", "rm", "-rf", f"{IN_BOX}/{PORTS[1]}/docker"]
            yield Place(
                f"127.0.0.1:{PORTS[0]}",
                f"127.0.0.1:{PORTS[1]}",
                [str(box), "net"],
                lambda: subprocess.run(empty, check=True) and None,
            )


@contextlib.contextmanager
def boxed_registry(box: Path, port: int) -> Iterator[None]:
    """`docker-registry` in the peer's box while the block runs."""
    config = BOX_CONFIG.format(folder=IN_BOX, port=port)
    write = f"mkdir -p {IN_BOX} && cat >{IN_BOX}/{port}.yml"
    subprocess.run([box, "run", "sh", "-c", write], input=config.encode(), check=True)
    command = f"echo $$ >{IN_BOX}/{port}.pid; exec docker-registry serve {IN_BOX}/{port}.yml"
    process = subprocess.Popen(
        [box, "run", "sh", "-c", command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        subprocess.run([box, "run", "sh", "-c", f"kill $(cat {IN_BOX}/{port}.pid)"], check=False)
        process.wait(engines.START_S)
        subprocess.run([box, "run", "rm", "-rf", f"{IN_BOX}/{port}"], check=False)


@contextlib.contextmanager
def second_pier(folder: Path, place: Place, *more: str) -> Iterator[Engine]:
    """A daemon that sees the registry; without a bridge, for it runs nothing."""
    process = engines.start_pierd(folder, 3, within=place.within, more=["--bridge", "none", *more])
    try:
        yield Engine("pier", f"unix://{folder}/run/pier.sock")
    finally:
        # What was started may be a program that waits for the daemon in the box.
        os.kill(int((folder / "pier.pid").read_text()), signal.SIGTERM)
        process.wait(engines.START_S)


def fill(place: Place) -> None:
    """Put the image into the registry that is pulled from."""
    script = Path(__file__).with_name("registry_image.py")
    words = [place.pull, REPOSITORY, str(LAYERS), str(FILES), str(FILE_BYTES)]
    subprocess.run([*place.within, sys.executable, str(script), *words], check=True, timeout=300)
