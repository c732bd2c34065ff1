"""Volumes through the API: one made and removed, and a container whose volume takes over 10,000 files of its image."""

from __future__ import annotations

import contextlib
import io
import shutil
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from api import Connection
from engines import IMAGE, OWN, Engine
from samples import Row, Target, in_turn

FILES, FILE_BYTES, FOLDERS = 10_000, 4_000, 100
FULL = f"pier-bench-full-{OWN}"


def measure(engines: list[Engine], rounds: int, archive: Path, folder: Path) -> list[Row]:
    """`archive` is the root file system of a busybox."""
    return [*_create(engines, rounds), _copy_up(engines, max(3, rounds // 4), archive, folder)]


def _create(engines: list[Engine], rounds: int) -> list[Row]:
    with contextlib.ExitStack() as stack:
        connections = {engine: stack.enter_context(_connected(engine)) for engine in engines}
        make = {engine.name: _make(connection) for engine, connection in connections.items()}
        with_volume = {engine.name: _container(connection) for engine, connection in connections.items()}
        return [
            Row("create of a volume", "ms", in_turn(make, rounds * 5), Target("at most 3 ms", 3)),
            Row("create and rm --volumes of a container with a volume", "ms", in_turn(with_volume, rounds)),
        ]


@contextlib.contextmanager
def _connected(engine: Engine) -> Iterator[Connection]:
    assert engine.socket is not None
    with contextlib.closing(Connection(engine.socket)) as connection:
        yield connection


def _make(connection: Connection) -> Callable[[], float]:
    """Removes what it has made outside of the time."""

    def deed() -> float:
        began = time.perf_counter()
        name = connection.call("POST", "/volumes/create", {})["Name"]
        took = (time.perf_counter() - began) * 1000
        connection.call("DELETE", f"/volumes/{name}")
        return took

    return deed


def _container(connection: Connection) -> Callable[[], float]:
    body = {"Image": IMAGE, "Cmd": ["true"], "Volumes": {"/data": {}}}

    def deed() -> float:
        began = time.perf_counter()
        made = connection.call("POST", "/containers/create", body)["Id"]
        connection.call("DELETE", f"/containers/{made}?v=1")
        return (time.perf_counter() - began) * 1000

    return deed


def _copy_up(engines: list[Engine], rounds: int, archive: Path, folder: Path) -> Row:
    full = folder / "full.tar"
    _write_full(archive, full)
    with contextlib.ExitStack() as stack:
        deeds = {engine.name: stack.enter_context(_copying(engine, full)) for engine in engines}
        full.unlink()
        columns = in_turn(deeds, rounds)
    target = Target("at most 0.7 of docker", 0.7, of="docker")
    return Row(f"copy-up of {FILES:,} files of {FILE_BYTES // 1000} KB", "ms", columns, target)


def _write_full(archive: Path, full: Path) -> None:
    """The busybox with many files in a place that is to be a volume."""
    shutil.copy(archive, full)
    with tarfile.open(full, "a") as made:
        for number in range(FILES):
            info = tarfile.TarInfo(f"data/{number % FOLDERS}/{number}")
            info.size, info.uid, info.mode = FILE_BYTES, number % 3, 0o640
            made.addfile(info, io.BytesIO(b"x" * FILE_BYTES))


@contextlib.contextmanager
def _copying(engine: Engine, full: Path) -> Iterator[Callable[[], None]]:
    """Creates containers with a volume at the full place.

    They are removed at the end: ext4 does not give an inode away within seconds of its being freed, and looks at each
    such one before it finds another, which would be most of what is measured.
    """
    made: list[str] = []
    with _connected(engine) as connection:
        try:
            engine.docker("import", str(full), FULL)
            body = {"Image": FULL, "Cmd": ["true"], "Volumes": {"/data": {}}}

            def deed() -> None:
                made.append(connection.call("POST", "/containers/create", body)["Id"])

            yield deed
        finally:
            with contextlib.suppress(Exception):
                for id in made:
                    connection.call("DELETE", f"/containers/{id}?v=1")
                engine.docker("rmi", FULL)
