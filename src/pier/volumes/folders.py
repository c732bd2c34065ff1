"""The volumes' folder on disk. All of it blocks.

    volumes/<name>/_data          the volume's files
    volumes/<name>/volume.json    a copy of its record
    volumes/<name>/coming.json, leaving.json   the same, while the record is not written yet, or about to be deleted
    volumes/<name>/.filling, .filled   what is copied from an image (`fill`)
    volumes/.new-…, .gone-…       being made, being deleted; at the start: deleted

A volume appears and vanishes by one rename. Its record in the database decides whether it exists; a folder that has
none is a volume all the same (trap 20), unless it says that it is coming or leaving: then nobody was told of it, or
somebody wants it gone.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import msgspec

from pier.errors import Conflict
from pier.kernel.paths import closing
from pier.storage import project_quota
from pier.storage.faults import point
from pier.storage.trees import remove_tree, tree_size
from pier.volumes.record import Record, decode, is_name

log = logging.getLogger("pier.volumes")

DATA: Final = "_data"
MODE: Final = 0o700
"""Of everything above a volume's own root: nobody but root looks in (attack 23)."""
DATA_MODE: Final = 0o755
_RECORD, _COMING, _LEAVING = "volume.json", "coming.json", "leaving.json"
_NEW, _GONE = ".new-", ".gone-"
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class InTheWay(Conflict):
    """create {name}: {path} is there, and is no volume that this daemon knows"""

    remedy = "move it away; or restart the daemon, which takes up what it finds there as a volume"


class Folders:
    """One per daemon. A `name` has been checked (`record.check_name`) before it comes here."""

    def __init__(self, top: str) -> None:
        self.top = top
        self._deleter = ThreadPoolExecutor(1, thread_name_prefix="delete-volumes")

    def folder(self, name: str) -> str:
        return f"{self.top}/{name}"

    def data(self, name: str) -> str:
        return f"{self.top}/{name}/{DATA}"

    def open_data(self, name: str) -> int:
        """A descriptor of a volume's own root; the caller closes it. Raises OSError."""
        return os.open(self.data(name), _DIRECTORY)

    def open_folder(self, name: str) -> int:
        return os.open(self.folder(name), _DIRECTORY)

    def make(
        self, record: Record, owner: tuple[int, int], size_bytes: int = 0, content: Callable[[int], None] | None = None
    ) -> None:
        """Make a volume, whole or not at all; `content` fills its root, given as a descriptor.

        It is to be confirmed when its record is written. Raises InTheWay, QuotaUnavailable, OSError, and what `content`
        raises.
        """
        fresh = f"{self.top}/{_NEW}{secrets.token_hex(8)}"
        try:
            os.mkdir(fresh, MODE)
            point("volume-begun")
            if size_bytes:
                project_quota.limit(fresh, size_bytes)
            os.mkdir(f"{fresh}/{DATA}", DATA_MODE)
            if owner != (0, 0):
                os.chown(f"{fresh}/{DATA}", *owner)
            if content is not None:
                with closing(os.open(f"{fresh}/{DATA}", _DIRECTORY)) as fd:
                    content(fd)
            self._write(fresh, record)
            try:
                os.rename(fresh, self.folder(record.name))
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                    raise InTheWay(name=record.name, path=self.folder(record.name)) from error
                raise
            point("volume-made")
        except BaseException:
            self._delete(os.path.basename(fresh))
            raise

    @staticmethod
    def _write(folder: str, record: Record) -> None:
        with closing(os.open(f"{folder}/{_COMING}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)) as fd:
            os.write(fd, record.encode())

    def mark_leaving(self, name: str) -> None:
        """Its record is about to be deleted: from then on the folder is no volume any more."""
        with contextlib.suppress(FileNotFoundError):
            os.rename(f"{self.folder(name)}/{_RECORD}", f"{self.folder(name)}/{_LEAVING}")
        point("volume-leaving")

    def confirm(self, *names: str) -> None:
        """They have records, and are to stay."""
        for name in names:
            for mark in (_COMING, _LEAVING):
                with contextlib.suppress(FileNotFoundError):
                    os.rename(f"{self.folder(name)}/{mark}", f"{self.folder(name)}/{_RECORD}")

    def throw_away(self, name: str) -> None:
        """Move a volume out of the way, to be deleted in the background; one that is not there is no error."""
        gone = f"{_GONE}{secrets.token_hex(8)}"
        with contextlib.suppress(FileNotFoundError):
            os.rename(self.folder(name), f"{self.top}/{gone}")
            point("volume-gone")
            self._deleter.submit(self._delete, gone)

    def _delete(self, name: str) -> None:
        """Delete a tree; one that cannot be deleted stays for the next start."""
        try:
            with closing(os.open(self.top, _DIRECTORY)) as fd:
                remove_tree(fd, os.fsencode(name))
        except OSError as error:
            log.warning("%s/%s cannot be deleted: %s", self.top, name, error.strerror)

    def size_bytes(self, name: str) -> int:
        """What a volume's files take, holes counted as nothing."""
        return tree_size(self.data(name))

    # --- the start of the daemon

    def begin(self, known: dict[str, Record], owner: tuple[int, int]) -> tuple[list[Record], list[str]]:
        """Hold the folders against the records; returns the volumes that have no record, and what was repaired."""
        os.makedirs(self.top, mode=MODE, exist_ok=True)
        repaired: list[str] = []
        adopted: list[Record] = []
        present = set()
        for entry in sorted(os.listdir(self.top)):
            if entry.startswith((_NEW, _GONE)):
                self._deleter.submit(self._delete, entry)
            elif entry in known:
                present.add(entry)
                self.confirm(entry)
            elif is_name(entry) and os.path.isdir(self.data(entry)):
                if mark := self._mark(entry):
                    self.throw_away(entry)
                    repaired.append(f"volume {entry}: {mark}")
                else:
                    adopted.append(self._read(entry))
        for name in known.keys() - present:
            self.make(known[name], owner)
            self.confirm(name)
            repaired.append(f"volume {name}: its folder was gone, an empty one is made")
        return adopted, repaired

    def _mark(self, name: str) -> str:
        """Why a folder without a record is no volume; empty where it is one."""
        if os.path.exists(f"{self.folder(name)}/{_LEAVING}"):
            return "its removal is finished"
        return "of something that was not made" if os.path.exists(f"{self.folder(name)}/{_COMING}") else ""

    def _read(self, name: str) -> Record:
        """The record beside a volume's files, or one that says what can be known without."""
        try:
            with open(f"{self.folder(name)}/{_RECORD}", "rb") as file:
                return decode(file.read(1 << 20), name)
        except (OSError, msgspec.MsgspecError):
            return Record(name=name, created_ns=os.stat(self.data(name)).st_mtime_ns)

    def close(self) -> None:
        self._deleter.shutdown(wait=True)
