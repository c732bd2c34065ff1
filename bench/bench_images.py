"""Images: a commit of a small change of a large image, and the list of a thousand, both through the API."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from api import Connection
from engines import OWN, Engine
from samples import Row, Target, in_turn

FILES, FILE_KB = 10_000, 100
"""Of the large image: 1 GB."""
CHANGED = 10
LARGE = f"pier-bench-large-{OWN}"
MANY, AT_ONCE = 1000, 100


def measure(engines: list[Engine], rounds: int, archive: Path, folder: Path) -> list[Row]:
    """`archive` is the root file system of a busybox."""
    return [_commits(engines, max(3, rounds // 2), archive, folder), _list(engines[0], rounds, folder)]


def _commits(engines: list[Engine], rounds: int, archive: Path, folder: Path) -> Row:
    large = folder / "large.tar"
    _write_large(archive, large)
    with contextlib.ExitStack() as stack:
        deeds = {engine.name: stack.enter_context(_commit(engine, large)) for engine in engines}
        large.unlink()
        columns = in_turn(deeds, rounds)
    size = f"{FILES * FILE_KB // 1_000_000} GB"
    target = Target("at most 100 ms", 100)
    return Row(f"commit of {CHANGED} changed files in an image of {size}, {FILES:,} files", "ms", columns, target)


def _write_large(archive: Path, large: Path) -> None:
    """The busybox with a gigabyte of files."""
    shutil.copy(archive, large)
    with tarfile.open(large, "a") as made:
        for number in range(FILES):
            info = tarfile.TarInfo(f"data/{number}")
            info.size = FILE_KB * 1000
            made.addfile(info, io.BytesIO(os.urandom(1000) * FILE_KB))


@contextlib.contextmanager
def _commit(engine: Engine, large: Path) -> Iterator[Callable[[], float]]:
    """Commits a stopped container of the large image; the image that comes of it is removed outside of the time."""
    change = f"i=0; while [ $i -lt {CHANGED} ]; do echo changed >/data/$((i*7)); i=$((i+1)); done"
    name = f"pier-bench-change-{OWN}"
    assert engine.socket is not None
    connection = Connection(engine.socket)
    try:
        engine.docker("import", str(large), LARGE)
        engine.docker("run", "--name", name, "--network", "none", LARGE, "sh", "-c", change)

        def deed() -> float:
            began = time.perf_counter()
            made = connection.call("POST", f"/commit?container={name}")["Id"]
            took = (time.perf_counter() - began) * 1000
            connection.call("DELETE", f"/images/{made}")
            return took

        yield deed
    finally:
        connection.close()
        with contextlib.suppress(Exception):
            engine.remove([name])
            engine.docker("rmi", LARGE)


def _list(engine: Engine, rounds: int, folder: Path) -> Row:
    archive = folder / "many.tar"
    for start in range(0, MANY, AT_ONCE):
        archive.write_bytes(_images(range(start, start + AT_ONCE)))
        engine.docker("load", "-q", "-i", str(archive))
    archive.unlink()
    assert engine.socket is not None
    connection = Connection(engine.socket)
    try:
        columns = in_turn({engine.name: lambda: _void(connection.call("GET", "/images/json"))}, rounds)
    finally:
        connection.close()
        for start in range(0, MANY, AT_ONCE):
            engine.docker("rmi", *(_name(number) for number in range(start, start + AT_ONCE)))
    return Row(f"list of {MANY:,} images", "ms", columns, Target("at most 50 ms", 50))


def _void(_: object) -> None:
    pass


def _name(number: int) -> str:
    return f"pier-bench-many-{OWN}:{number}"


def _images(numbers: range) -> bytes:
    """An archive as `docker save` writes it: images of two layers, the lower one shared."""
    base = _tar({"base": b"x" * 1000})
    files, contents = {"base.tar": base}, []
    for number in numbers:
        top = _tar({f"file{number}": b"y"})
        diff_ids = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in (base, top)]
        config = json.dumps(
            {
                "created": f"2024-01-01T00:{number // 60 % 60:02}:{number % 60:02}Z",
                "architecture": "amd64",
                "os": "linux",
                "config": {"Cmd": ["x"], "Labels": {"number": str(number)}},
                "rootfs": {"type": "layers", "diff_ids": diff_ids},
                "history": [{"created_by": "base"}, {"created_by": "top"}],
            }
        ).encode()
        name = f"{hashlib.sha256(config).hexdigest()}.json"
        files |= {f"{number}.tar": top, name: config}
        contents.append({"Config": name, "RepoTags": [_name(number)], "Layers": ["base.tar", f"{number}.tar"]})
    return _tar({**files, "manifest.json": json.dumps(contents).encode()})


def _tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()
