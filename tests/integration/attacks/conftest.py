"""Hostile images for the tests of attacks, and the host's own interpreter to attack from inside a container."""

from __future__ import annotations

import hashlib
import io
import os
import secrets
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ..client import Client
from ..conftest import Daemon

PYTHON = os.path.realpath(sys.executable)
HOST_LIBRARIES = [
    word
    for folder in dict.fromkeys(("/usr", "/lib", "/lib64", sys.base_prefix))
    if os.path.isdir(folder)
    for word in ("-v", f"{folder}:{folder}:ro")
]
"""Mounts that let the host's interpreter run in a container: an attacker would bring a loader of his own."""

Entry = tuple[tarfile.TarInfo, bytes]


def entry(name: str, *, kind: bytes = tarfile.REGTYPE, link: str = "", data: bytes | str = b"", mode: int = 0) -> Entry:
    """One entry of an archive, exactly as named."""
    content = data.encode() if isinstance(data, str) else data
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(content)
    info.mode = mode or (0o755 if kind == tarfile.DIRTYPE else 0o644)
    return info, content


def symlink(name: str, target: str) -> Entry:
    return entry(name, kind=tarfile.SYMTYPE, link=target)


def directory(name: str) -> Entry:
    return entry(name, kind=tarfile.DIRTYPE)


def archive(*entries: Entry) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, data in entries:
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@pytest.fixture
def pier(daemon: Daemon) -> Iterator[Client]:
    """The `pier` command on the session's daemon; the containers a test makes go with it."""
    client = Client(daemon.environment, "busybox", program="pier")
    before = client.ids()
    try:
        yield client
    finally:
        client.close()
        if left := client.ids() - before:
            client("rm", "--force", *left)


@pytest.fixture(scope="session")
def busybox_entries(starter_images: list[Path]) -> list[Entry]:
    with tarfile.open(starter_images[0]) as tar:
        return [(info, file.read() if (file := tar.extractfile(info)) and info.isreg() else b"") for info in tar]


@pytest.fixture
def image_of(pier: Client, busybox_entries: list[Entry]) -> Iterator[Callable[..., str]]:
    """Makes an image: busybox with these entries in place of its own of those names; returns its name."""
    made: list[str] = []

    def make(*entries: Entry, changes: tuple[str, ...] = ()) -> str:
        name = f"hostile-{secrets.token_hex(4)}"
        taken = {info.name.strip("/") for info, _ in entries}
        kept = [(info, data) for info, data in busybox_entries if info.name.strip("/") not in taken]
        words = [word for change in changes for word in ("--change", change)]
        pier.ok("import", *words, "-", name, stdin=archive(*kept, *entries))
        made.append(name)
        return name

    yield make
    for name in made:
        pier("rmi", "--force", name)


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """A folder of the host that must be the same after the test."""
    folder = tmp_path / "canary"
    folder.mkdir(mode=0o755)
    (folder / "file").write_bytes(b"untouched")
    before = picture(folder)
    yield folder
    assert picture(folder) == before


def picture(folder: Path) -> list[object]:
    """Names, kinds, owners, times and contents below a folder."""
    found: list[object] = []
    for path in (folder, *sorted(folder.rglob("*"))):
        info = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        found.append((str(path), info.st_mode, info.st_uid, info.st_ino, info.st_mtime_ns, os.listxattr(path), content))
    return found


@pytest.fixture
def interpreter() -> Iterator[str]:
    """The host's Python, which must not change by a single byte, attribute or name."""

    def state() -> tuple[object, ...]:
        info = os.stat(PYTHON)
        return info.st_ino, info.st_mode, info.st_mtime_ns, hashlib.sha256(Path(PYTHON).read_bytes()).hexdigest()

    before = state()
    yield PYTHON
    assert state() == before
