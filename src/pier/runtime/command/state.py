"""What the command line knows of its containers: a folder each below --root (runtime-spec runtime.md, "State").

    ROOT/ID/state.json    Record, replaced as a whole
    ROOT/ID/config.json   the configuration it was made from
    ROOT/ID/exec.fifo     there from `create` to `start`; the first process waits at it
    ROOT/ID/seccomp.bpf   the compiled filter, where there is one
    ROOT/~seccomp         filters kept for other containers (`filter_cache`)

A process is known by pid and start time together: a number that another process got since is not taken for it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

ID_MAX = 1024
ID_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.")
FIFO_NAME = "exec.fifo"


VERSION = "1.2.1"
"""The runtime-spec that Pier implements; any 1.x is taken."""
Warn = Callable[[str], None]


class StartError(Exception):
    """The container did not start: one sentence."""


class StateError(Exception):
    """What keeps a verb from its container, in runc's words."""


@dataclass(frozen=True, slots=True)
class Record:
    """One container as it was created; `status` is looked up, never stored."""

    id: str
    oci_version: str
    pid: int
    start_time: int
    """Clock ticks since boot (proc_pid_stat(5), field 22)."""
    bundle: str
    rootfs: str
    cgroup: str
    """Path below each hierarchy's mount, or `slice:prefix:name` of systemd's."""
    created: str
    """RFC 3339, nanoseconds, UTC."""
    own_pid_namespace: bool
    annotations: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in type(self).__annotations__}


def check_id(text: str) -> str:
    """`text` if it can name a container. Raises StateError."""
    if not text:
        raise StateError("container id cannot be empty")
    if len(text) > ID_MAX or not ID_LETTERS.issuperset(text) or text in (".", ".."):
        raise StateError("invalid container ID format")
    return text


def start_time(pid: int) -> int | None:
    """When process `pid` started, in clock ticks since boot; None when it has ended (a zombie has)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


class Container:
    """One container's folder."""

    def __init__(self, root: str, container_id: str) -> None:
        self.id = check_id(container_id)
        self.path = os.path.join(root, self.id)

    @property
    def fifo(self) -> str:
        return os.path.join(self.path, FIFO_NAME)

    @property
    def filter(self) -> str:
        return os.path.join(self.path, "seccomp.bpf")

    # --- making ------------------------------------------------------------------------------------------------------

    def reserve(self) -> None:
        """Make the folder. Raises StateError when the id is taken, OSError."""
        os.makedirs(os.path.dirname(self.path), 0o700, exist_ok=True)
        try:
            os.mkdir(self.path, 0o711)
        except FileExistsError:
            raise StateError("container with given ID already exists") from None

    def make_fifo(self) -> None:
        os.mkfifo(self.fifo, 0o622)

    def save(self, record: Record) -> None:
        """Write state.json so that a reader sees all of it or none."""
        self._replace("state.json", json.dumps(record.to_dict(), separators=(",", ":")).encode())

    def save_spec(self, spec: dict[str, Any]) -> None:
        self._replace("config.json", json.dumps(spec, separators=(",", ":")).encode())

    def save_filter(self, bpf: bytes) -> None:
        self._replace("seccomp.bpf", bpf)

    def _replace(self, name: str, data: bytes) -> None:
        path = os.path.join(self.path, name)
        with open(f"{path}.new", "wb", opener=_private) as file:
            file.write(data)
        os.replace(f"{path}.new", path)

    # --- reading -----------------------------------------------------------------------------------------------------

    def load(self) -> Record:
        """Raises StateError for a container that is not there or whose state is damaged."""
        text = self._read("state.json")
        try:
            return Record(**json.loads(text))
        except (ValueError, TypeError) as error:
            raise StateError(f"state of container {self.id} is damaged: {error}") from None

    def load_spec(self) -> dict[str, Any]:
        """The configuration. Raises StateError as `load` does."""
        try:
            spec = json.loads(self._read("config.json"))
        except ValueError as error:
            raise StateError(f"configuration of container {self.id} is damaged: {error}") from None
        if not isinstance(spec, dict):
            raise StateError(f"configuration of container {self.id} is damaged: no object")
        return spec

    def _read(self, name: str) -> str:
        try:
            with open(os.path.join(self.path, name), encoding="utf-8") as file:
                return file.read()
        except (FileNotFoundError, NotADirectoryError):
            raise StateError("container does not exist") from None

    def alive(self, record: Record) -> bool:
        return record.pid > 0 and start_time(record.pid) == record.start_time

    def has_fifo(self) -> bool:
        return os.path.exists(self.fifo)

    # --- the end -----------------------------------------------------------------------------------------------------

    def release(self) -> None:
        """Remove the fifo: the container is no longer `created`."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.fifo)

    def remove(self) -> None:
        """Remove the folder and what is in it; gone already is well too."""
        try:
            for name in os.listdir(self.path):
                os.unlink(os.path.join(self.path, name))
            os.rmdir(self.path)
        except FileNotFoundError:
            return


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def all_ids(root: str) -> list[str]:
    """The ids of the containers below `root`, sorted; none where there is no such folder."""
    try:
        with os.scandir(root) as entries:
            return sorted(e.name for e in entries if ID_LETTERS.issuperset(e.name) and e.is_dir(follow_symlinks=False))
    except OSError as error:
        if error.errno == errno.ENOENT:
            return []
        raise
