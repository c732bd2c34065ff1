"""The state database: one SQLite file, one thread that touches it.

On disk (`PRAGMA user_version` is the layout's number, 1):

    record(kind TEXT, key TEXT, value BLOB, crc INTEGER, PRIMARY KEY (kind, key)) WITHOUT ROWID

`value` is the JSON a service wrote, `crc` its CRC-32: SQLite's own check finds a damaged page structure, the
CRC finds a flipped byte inside a value. Journal mode is WAL with `synchronous=FULL`: a commit is on the disk when
it returns, so records survive `kill -9` and power loss. Writes that wait while a commit is under way share the
next one.

Space for changes is taken in advance, in the write-ahead log and as free pages of the file, so that on a full disk
containers can still be stopped and removed.
"""

from __future__ import annotations

import asyncio
import os
import queue
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pier.errors import PierError
from pier.state.store import Delete, Put

LAYOUT = 1
APPLICATION_ID = 0x50696572  # "Pier"
SIDE_FILES = ("-wal", "-shm")
DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
MAX_BATCH = 256
"""Writes that share one commit, at most: bounds how long the first of them waits."""

PAGE_BYTES = 4096
LOG_BYTES = 1 << 20
"""Of the write-ahead log, taken when the database is opened."""
CHECKPOINT_PAGES = 200
"""The log is folded into the file when it has these, so it is not outgrown by small transactions."""
SPARE_PAGES = 64
"""Of the file."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS record(
    kind TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, crc INTEGER NOT NULL, PRIMARY KEY (kind, key)
) WITHOUT ROWID
"""
PUT = "INSERT OR REPLACE INTO record(kind, key, value, crc) VALUES (?, ?, ?, ?)"
DELETE = "DELETE FROM record WHERE kind = ? AND key = ?"
SELECT = "SELECT key, value FROM record WHERE kind = ? ORDER BY key"
SALVAGE = (
    "SELECT kind, key, value, crc FROM record",
    "SELECT kind, key, value, crc FROM record ORDER BY kind DESC, key DESC",
)
"""Read from both ends: what lies before the damaged page and what lies behind it."""


class DatabaseUnusable(PierError):
    """cannot open the state database {path}: {reason}"""

    remedy = "check the owner, the permissions and the free space of the data root"


class DatabaseTooNew(PierError):
    """the state database {path} has layout {found}, this Pier knows layouts up to {known}"""

    remedy = "start the newer Pier that wrote it, or choose another --data-root"


class StateNotWritten(PierError):
    """cannot write the state database {path}: {reason}"""

    remedy = "free some space under the data root; nothing of this request was kept"


@dataclass(frozen=True, slots=True)
class Repair:
    """A damaged database was set aside and a fresh one made (T20)."""

    set_aside: str
    """Path of the damaged file."""
    reason: str
    kept: int
    """Records that were still whole and are in the fresh database."""

    def describe(self) -> str:
        return (
            f"the state database was damaged ({self.reason}); it was set aside as {self.set_aside} and "
            f"a fresh one was made with the {self.kept} records that could still be read"
        )


@dataclass(slots=True)
class _Job:
    """One caller that waits: changes to commit, or a question to answer."""

    changes: tuple[Put | Delete, ...]
    question: Callable[[sqlite3.Connection], Any] | None
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[Any]

    def resolve(self, value: Any, error: Exception | None) -> None:
        """Hand the outcome to the caller's loop; one whose loop has closed waits no more."""
        try:
            self.loop.call_soon_threadsafe(_settle, self.answer, value, error)
        except RuntimeError:
            return


class Database:
    """The `Store` on disk. Made by `open`; `close` waits for what was handed in."""

    def __init__(self, path: str, connection: sqlite3.Connection, repaired: Repair | None) -> None:
        self.path = path
        self.repaired = repaired
        self._connection = connection
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="pier-state", daemon=True)
        self._closed = False
        self._thread.start()

    @classmethod
    async def open(cls, path: str) -> Database:
        """Open or make the database at `path`.

        A damaged one is renamed to `<path>.damaged-<UTC time>` and `repaired` tells what was kept.
        Raises DatabaseTooNew, DatabaseUnusable.
        """
        connection, repaired = await asyncio.to_thread(_open_or_repair, path)
        return cls(path, connection, repaired)

    async def load(self, kind: str) -> dict[str, bytes]:
        records: dict[str, bytes] = await self._submit(question=lambda db: dict(db.execute(SELECT, (kind,))))
        return records

    async def write(self, *changes: Put | Delete) -> None:
        """Apply the changes in one transaction; durable on return. A cancelled call may still be written.

        Raises StateNotWritten: then nothing of it was kept.
        """
        if changes:
            await self._submit(changes=changes)

    async def close(self) -> None:
        """Commit what waits, fold the write-ahead log into the file and close it."""
        if self._closed:
            return
        self._closed = True
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)

    async def _submit(
        self,
        *,
        changes: tuple[Put | Delete, ...] = (),
        question: Callable[[sqlite3.Connection], Any] | None = None,
    ) -> Any:
        if self._closed:
            raise StateNotWritten(path=self.path, reason="it is closed")
        loop = asyncio.get_running_loop()
        job = _Job(changes, question, loop, loop.create_future())
        self._jobs.put(job)
        return await job.answer

    def _serve(self) -> None:
        """The thread: take all that waits, answer in order, commit neighbouring writes as one."""
        for batch in _batches(self._jobs):
            writes: list[_Job] = []
            for job in batch:
                if job.question is None:
                    writes.append(job)
                    continue
                self._commit(writes)
                writes = []
                self._ask(job, job.question)
            self._commit(writes)
        self._connection.close()

    def _ask(self, job: _Job, question: Callable[[sqlite3.Connection], Any]) -> None:
        try:
            job.resolve(question(self._connection), None)
        except sqlite3.Error as error:
            job.resolve(None, DatabaseUnusable(path=self.path, reason=str(error)))

    def _commit(self, jobs: list[_Job]) -> None:
        if not jobs:
            return
        failure: Exception | None = None
        try:
            apply(self._connection, (change for job in jobs for change in job.changes))
        except sqlite3.Error as error:
            failure = StateNotWritten(path=self.path, reason=str(error))
        for job in jobs:
            job.resolve(None, failure)


def apply(connection: sqlite3.Connection, changes: Iterable[Put | Delete]) -> None:
    """Write the changes in one transaction, or none of them."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        for change in changes:
            match change:
                case Put(kind, key, value):
                    connection.execute(PUT, (kind, key, value, zlib.crc32(value)))
                case Delete(kind, key):
                    connection.execute(DELETE, (kind, key))
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # a full disk has rolled it back already
            connection.execute("ROLLBACK")
        raise


def _batches(jobs: queue.SimpleQueue[_Job | None]) -> Iterator[list[_Job]]:
    """Wait for a job, then take those that wait with it; ends at None."""
    while (first := jobs.get()) is not None:
        batch = [first]
        while len(batch) < MAX_BATCH and not jobs.empty():
            following = jobs.get_nowait()
            if following is None:
                yield batch
                return
            batch.append(following)
        yield batch


def _settle(answer: asyncio.Future[Any], value: Any, error: Exception | None) -> None:
    if answer.done():  # its caller was cancelled
        return
    if error is None:
        answer.set_result(value)
    else:
        answer.set_exception(error)


def _open_or_repair(path: str) -> tuple[sqlite3.Connection, Repair | None]:
    try:
        try:
            return _open(path), None
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise
            reason = str(error)
        set_aside = _set_aside(path)
        kept = _salvage(set_aside)
        connection = _open(path)
        apply(connection, kept)
        return connection, Repair(set_aside, reason, len(kept))
    except (sqlite3.Error, OSError) as error:
        raise DatabaseUnusable(path=path, reason=str(error)) from error


def _open(path: str) -> sqlite3.Connection:
    """Open, check and lay out the file. Raises sqlite3.DatabaseError; see `_is_damage`."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # SQLite gives its side files the same mode
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        _check(connection)
        layout = connection.execute("PRAGMA user_version").fetchone()[0]
        if layout > LAYOUT:
            raise DatabaseTooNew(path=path, found=layout, known=LAYOUT)
        if layout == 0:
            connection.execute(SCHEMA)
            connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version={LAYOUT}")
        _check_values(connection)
        _take_space(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _take_space(connection: sqlite3.Connection, path: str) -> None:
    """Make the file and its log as large as small changes need; where the disk is full already, go on without."""
    connection.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
    try:
        if connection.execute("PRAGMA freelist_count").fetchone()[0] < SPARE_PAGES:
            apply(connection, [Put("spare", "", bytes(SPARE_PAGES * PAGE_BYTES))])
            apply(connection, [Delete("spare", "")])
            connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
        with open(path + SIDE_FILES[0], "r+b") as log:
            os.posix_fallocate(log.fileno(), 0, LOG_BYTES)
    except (sqlite3.OperationalError, OSError):
        return


def _check(connection: sqlite3.Connection) -> None:
    """SQLite's own look at every page and index."""
    findings = [row[0] for row in connection.execute("PRAGMA integrity_check(3)")]
    if findings != ["ok"]:
        raise _damage("; ".join(findings))


def _check_values(connection: sqlite3.Connection) -> None:
    """Compare every value with the checksum written beside it."""
    for kind, key, value, crc in connection.execute(SALVAGE[0]):
        if not isinstance(value, bytes) or zlib.crc32(value) != crc:
            raise _damage(f"the checksum of {kind} {key} is wrong")


def _damage(reason: str) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError(reason)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    """Is the file itself broken (rather than locked, unreadable, or the disk full)?"""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in DAMAGE  # the low byte of an extended code


def _set_aside(path: str) -> str:
    """Rename the damaged file and its write-ahead log; returns the new path."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    target = next(name for name in _names(f"{path}.damaged-{stamp}") if not os.path.lexists(name))
    os.rename(path, target)
    for suffix in SIDE_FILES:
        if os.path.lexists(path + suffix):
            os.rename(path + suffix, target + suffix)
    folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return target


def _names(stem: str) -> Iterator[str]:
    yield stem
    number = 1
    while True:
        number += 1
        yield f"{stem}-{number}"


def _salvage(path: str) -> list[Put]:
    """The records of a damaged database that can be read and whose checksum is right."""
    kept: dict[tuple[str, str], Put] = {}
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        for query in SALVAGE:
            try:
                for kind, key, value, crc in connection.execute(query):
                    if isinstance(value, bytes) and zlib.crc32(value) == crc:
                        kept[kind, key] = Put(kind, key, value)
            except (sqlite3.DatabaseError, UnicodeDecodeError):
                continue
    finally:
        connection.close()
    return list(kept.values())
