import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from pier.state import (
    Database,
    DatabaseTooNew,
    DatabaseUnusable,
    Delete,
    MemoryStore,
    Put,
    StateNotWritten,
    Store,
)
from pier.state import database as module


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "pier.db")


async def filled(path: str, count: int = 200) -> None:
    database = await Database.open(path)
    await database.write(*(Put("container", f"{n:04}", b'{"n":%d}' % n * 20) for n in range(count)))
    await database.close()


@pytest.mark.parametrize("kind_of_store", ["database", "memory"])
async def test_a_store_keeps_records_by_kind(kind_of_store: str, path: str) -> None:
    store: Store = await Database.open(path) if kind_of_store == "database" else MemoryStore()
    await store.write(Put("container", "b", b"2"), Put("container", "a", b"1"), Put("endpoint", "a", b"e"))
    await store.write(Put("container", "a", b"one"), Delete("endpoint", "a"), Delete("endpoint", "missing"))
    assert list((await store.load("container")).items()) == [("a", b"one"), ("b", b"2")]
    assert await store.load("endpoint") == {}
    if isinstance(store, Database):
        await store.close()


async def test_records_are_there_after_a_reopen(path: str) -> None:
    await filled(path, 3)
    database = await Database.open(path)
    assert sorted(await database.load("container")) == ["0000", "0001", "0002"]
    assert database.repaired is None
    await database.close()
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert not os.path.exists(path + "-wal")


async def test_concurrent_writes_share_commits(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    commits = 0
    apply = module.apply

    def counted(connection: sqlite3.Connection, changes: object) -> None:
        nonlocal commits
        commits += 1
        apply(connection, changes)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "apply", counted)
    database = await Database.open(path)
    await asyncio.gather(*(database.write(Put("container", str(n), b"x")) for n in range(500)))
    assert len(await database.load("container")) == 500
    assert commits < 100
    await database.close()


async def test_a_write_that_fails_keeps_nothing_of_it(path: str) -> None:
    database = await Database.open(path)
    await database.write(Put("container", "a", b"before"))
    with pytest.raises(StateNotWritten, match="NOT NULL"):
        await database.write(Put("container", "a", b"after"), Put("container", None, b""))  # type: ignore[arg-type]
    assert await database.load("container") == {"a": b"before"}
    await database.close()


async def test_a_closed_database_refuses(path: str) -> None:
    database = await Database.open(path)
    await database.close()
    await database.close()
    with pytest.raises(StateNotWritten, match="closed"):
        await database.write(Put("container", "a", b""))


async def test_close_waits_for_what_was_handed_in(path: str) -> None:
    database = await Database.open(path)
    pending = asyncio.ensure_future(database.write(Put("container", "late", b"x")))
    await asyncio.sleep(0)
    await database.close()
    await pending
    reopened = await Database.open(path)
    assert await reopened.load("container") == {"late": b"x"}
    await reopened.close()


async def test_a_cancelled_caller_does_not_disturb_the_thread(path: str) -> None:
    database = await Database.open(path)
    task = asyncio.ensure_future(database.write(Put("container", "a", b"x")))
    await asyncio.sleep(0)
    task.cancel()
    await database.write(Put("container", "b", b"y"))
    assert "b" in await database.load("container")
    await database.close()


def page_of_zeros(path: str) -> None:
    """Overwrite a page in the middle of the tree."""
    with open(path, "r+b") as file:
        file.seek(file.read().index(b'{"n":100}') // 4096 * 4096)
        file.write(bytes(4096))


def header_gone(path: str) -> None:
    with open(path, "r+b") as file:
        file.write(b"not a database at all")


def flipped_byte(path: str) -> None:
    """One byte inside one value: the page structure stays right."""
    with open(path, "r+b") as file:
        at = file.read().index(b'{"n":77}')
        file.seek(at + 5)
        file.write(b"9")


def cut_short(path: str) -> None:
    os.truncate(path, os.path.getsize(path) // 2 // 4096 * 4096)


@pytest.mark.parametrize(
    ("damage", "least_kept"),
    [(page_of_zeros, 50), (header_gone, 0), (flipped_byte, 199), (cut_short, 0)],
)
async def test_trap_20_a_damaged_database_is_set_aside(path: str, damage: object, least_kept: int) -> None:
    await filled(path)
    damage(path)  # type: ignore[operator]
    database = await Database.open(path)
    assert database.repaired is not None
    assert os.path.exists(database.repaired.set_aside)
    assert database.repaired.set_aside.startswith(path + ".damaged-")
    records = await database.load("container")
    assert least_kept <= len(records) == database.repaired.kept < 200
    for key, value in records.items():
        assert value == b'{"n":%d}' % int(key) * 20
    assert "set aside" in database.repaired.describe()
    await database.write(Put("container", "new", b"1"))
    await database.close()
    again = await Database.open(path)
    assert again.repaired is None
    await again.close()


async def test_two_damages_in_one_second_keep_both_files(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.time, "strftime", lambda *_: "20260101T000000Z")
    for _ in range(2):
        await filled(path, 3)
        header_gone(path)
        await (await Database.open(path)).close()
    found = sorted(name for name in os.listdir(os.path.dirname(path)) if "damaged" in name and "-wal" not in name)
    assert found == ["pier.db.damaged-20260101T000000Z", "pier.db.damaged-20260101T000000Z-2"]


async def test_a_newer_layout_is_refused_and_left_alone(path: str) -> None:
    await filled(path, 1)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(DatabaseTooNew, match="layout 99"):
        await Database.open(path)
    assert os.path.exists(path)


async def test_the_file_and_its_side_files_are_the_owners(path: str) -> None:
    database = await Database.open(path)
    await database.write(Put("container", "a", b"1"))
    modes = {os.stat(path + suffix).st_mode & 0o777 for suffix in ("", "-wal", "-shm")}
    await database.close()
    assert modes == {0o600}


async def test_a_folder_that_is_not_there_is_no_damage(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnusable, match="No such file"):
        await Database.open(str(tmp_path / "missing" / "pier.db"))


WRITER = """
import asyncio, sys
from pier.state import Database, Put
async def main():
    database = await Database.open(sys.argv[1])
    n = 0
    while True:
        await database.write(Put("container", str(n), b"x" * 500), Put("endpoint", str(n), b"y" * 500))
        print(n, flush=True)
        n += 1
asyncio.run(main())
"""


@pytest.mark.parametrize("after", [1, 40, 300])
async def test_trap_20_transactions_survive_kill_9(path: str, after: int) -> None:
    writer = subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    last = -1
    while last < after:
        last = int(writer.stdout.readline())
    writer.send_signal(signal.SIGKILL)
    rest = writer.stdout.read().split(b"\n")[:-1]
    writer.wait()
    writer.stdout.close()
    told = int(rest[-1]) if rest else last
    database = await Database.open(path)
    assert database.repaired is None
    containers, endpoints = await database.load("container"), await database.load("endpoint")
    assert containers.keys() == endpoints.keys()
    assert {str(n) for n in range(told + 1)} <= containers.keys()
    await database.close()


def test_the_checksum_is_the_one_written_down() -> None:
    assert zlib.crc32(b"{}") == 2745614147  # the on-disk format names CRC-32 as zlib computes it


async def test_small_changes_need_no_more_space(path: str) -> None:
    """What a full disk does not give is there already: neither the file nor its log grows."""
    database = await Database.open(path)
    await database.write(*(Put("container", str(number), b"x" * 1000) for number in range(20)))
    names = (path, f"{path}-wal")
    before = [os.path.getsize(name) for name in names]
    for turn in range(200):
        await database.write(Put("container", str(turn % 20), bytes([turn]) * 1000))
    await database.write(*(Delete("container", str(number)) for number in range(20)))
    assert [os.path.getsize(name) for name in names] == before
    await database.close()
