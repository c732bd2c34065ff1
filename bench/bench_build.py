"""Builds, by the same client (`docker buildx`) on each engine, and by Pier's; their own time is part of all of them."""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from engines import BIN, CHECKOUT, IMAGE, OWN, Engine
from samples import Row, Target, in_turn

STAGES, FILES, COPIED = 10, 5000, 10_000
EXPORT_MB = 500
STEPS = 20
NAME = f"pier-bench-build-{OWN}"
OWN_CLIENT = "pier, its own client"
WEBS = ("left", "right", "third", "fourth")


def measure(engines: list[Engine], rounds: int, folder: Path) -> list[Row]:
    """Nothing where Docker's plugins are not to be had."""
    found = subprocess.run([CHECKOUT / "tools" / "docker-plugins"], capture_output=True, text=True, check=False)
    if found.returncode:
        return []
    clients = {engine.name: _Client(engine, folder, found.stdout.strip()) for engine in engines}
    with_own = {**clients, OWN_CLIENT: _OwnClient(engines[0])}
    few = max(3, rounds // 4)
    try:
        return [
            _unchanged(with_own, rounds, folder / "stages"),
            _one_changed(with_own, few, folder / "stages"),
            _diamond(with_own, few, folder / "diamond"),
            _copied(clients, few, folder / "copied"),
            _exported(clients, few, folder / "exported"),
            _step(clients, few, folder / "steps"),
        ]
    finally:
        for client in clients.values():
            client.clean()


class _Client:
    """buildx against one engine."""

    command: Sequence[str | Path] = ("docker", "buildx", "build")

    def __init__(self, engine: Engine, folder: Path, plugins: str) -> None:
        self.engine = engine
        config = folder / f"client-{engine.name}"
        config.mkdir(parents=True, exist_ok=True)
        (config / "cli-plugins").symlink_to(plugins)
        (config / "config.json").write_text(json.dumps({"features": {"buildkit": "true"}}))
        self._environment = {**engine.environment, "DOCKER_CONFIG": str(config), "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}

    def build(self, context: Path, *flags: str) -> float:
        """The milliseconds it took."""
        began = time.perf_counter()
        subprocess.run(
            [*self.command, "--quiet", *flags, str(context)],
            env=self._environment,
            check=True,
            capture_output=True,
            timeout=300,
        )
        return (time.perf_counter() - began) * 1000

    def clean(self) -> None:
        subprocess.run(["docker", "buildx", "prune", "-af"], env=self._environment, check=False, capture_output=True)
        subprocess.run(["docker", "rmi", "-f", NAME], env=self._environment, check=False, capture_output=True)


class _OwnClient(_Client):
    """`pier build`."""

    command = (BIN / "pier", "build")

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._environment = engine.environment


def _fill(folder: Path, files: int) -> None:
    """A context of files of a few hundred bytes, a hundred in a folder."""
    shutil.rmtree(folder, ignore_errors=True)
    for number in range(files):
        path = folder / "src" / f"d{number // 100}" / f"f{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(number) * 60)


def _each(clients: dict[str, _Client], deed: Callable[[_Client], float]) -> dict[str, Callable[[], float]]:
    return {name: partial(deed, client) for name, client in clients.items()}


def _unchanged(clients: dict[str, _Client], rounds: int, folder: Path) -> Row:
    _fill(folder, FILES)
    stages = [
        f"FROM {IMAGE} AS s{number}\n"
        + (f"COPY --from=s{number - 1} /out /in\n" if number else "")
        + f"COPY src /src\nRUN mkdir /out && echo {number} >/out/made\n"
        for number in range(STAGES)
    ]
    (folder / "Dockerfile").write_text("".join(stages))
    columns = in_turn(_each(clients, lambda client: client.build(folder, "-t", NAME)), rounds)
    name = f"rebuild of {STAGES} stages with nothing changed, context of {FILES:,} files"
    return Row(name, "ms", columns, Target("at most 0.3 of dockerd", 0.3, "docker"), subject=OWN_CLIENT)


def _one_changed(clients: dict[str, _Client], rounds: int, folder: Path) -> Row:
    (folder / "Dockerfile").write_text(f"FROM {IMAGE}\nCOPY src/d0/f0 /\nCOPY src/d1 /d1\n")

    def deed(client: _Client) -> float:
        (folder / "src/d0/f0").write_text(secrets.token_hex())
        return client.build(folder, "-t", NAME)

    return Row("rebuild with one file of the context changed", "ms", in_turn(_each(clients, deed), rounds))


def _diamond(clients: dict[str, _Client], rounds: int, folder: Path) -> Row:
    """A base, four stages that sleep a second side by side, and one that takes from all of them."""
    folder.mkdir(exist_ok=True)
    sides = [f"FROM base AS {name}\nRUN sleep 1; echo {name} >/{name}\n" for name in WEBS]
    last = "".join(f"COPY --from={name} /{name} /\n" for name in WEBS)
    text = f"FROM {IMAGE} AS base\nARG N\nRUN echo $N >/n\n{''.join(sides)}FROM base\n{last}"
    (folder / "Dockerfile").write_text(text)
    columns = in_turn(
        _each(clients, lambda client: client.build(folder, "-t", NAME, "--build-arg", f"N={secrets.token_hex()}")),
        rounds,
        warm_up=1,
    )
    return Row("cold build of a diamond whose four sides sleep 1 s", "ms", columns, Target("at most 2 s", 2000))


def _copied(clients: dict[str, _Client], rounds: int, folder: Path) -> Row:
    _fill(folder, COPIED)
    (folder / "Dockerfile").write_text(f"FROM {IMAGE}\nCOPY src /src\n")
    columns = in_turn(
        _each(clients, lambda client: client.build(folder, "--no-cache", "-o", "type=cacheonly")), rounds, warm_up=1
    )
    target = Target("at most 0.6 of dockerd", 0.6, "docker")
    return Row(f"COPY of {COPIED:,} files, a context that is there already", "ms", columns, target)


def _exported(clients: dict[str, _Client], rounds: int, folder: Path) -> Row:
    folder.mkdir(exist_ok=True)
    text = f"FROM {IMAGE}\nARG N\nRUN head -c {EXPORT_MB * 1_000_000} /dev/urandom >/data\n"
    (folder / "Dockerfile").write_text(text)

    def deed(client: _Client) -> float:
        number = ("--build-arg", f"N={secrets.token_hex()}")
        client.build(folder, *number, "-o", "type=cacheonly")
        return client.build(folder, *number, "-t", NAME)

    columns = in_turn(_each(clients, deed), min(rounds, 3), warm_up=1)
    target = Target("at most 0.7 of dockerd", 0.7, "docker")
    return Row(f"export of an image of {EXPORT_MB} MB whose steps are in the cache", "ms", columns, target)


def _step(clients: dict[str, _Client], rounds: int, folder: Path) -> Row:
    """What a RUN of nothing costs: many of them against one."""
    folder.mkdir(exist_ok=True)
    for name, count in (("one", 1), ("many", 1 + STEPS)):
        (folder / name).write_text(f"FROM {IMAGE}\n" + "".join(f"RUN : {number}\n" for number in range(count)))

    def deed(client: _Client) -> float:
        took = [client.build(folder, "--no-cache", "-o", "type=cacheonly", "-f", str(folder / name)) for name in order]
        return (took[1] - took[0]) / STEPS

    order = ("one", "many")
    target = Target("at most 25 ms", 25)
    return Row("a RUN step of nothing", "ms", in_turn(_each(clients, deed), rounds, warm_up=1), target)
