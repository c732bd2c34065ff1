"""A client's files come over, and later only what has changed of them; hostile clients get nothing outside the tree."""

import itertools
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pier.builder.cache import Cache
from pier.builder.contexts import Context, Contexts
from pier.builder.entries import BadEntry
from pier.buildkit import filesync
from pier.buildkit.grpc import Call
from pier.buildkit.pb.session_pb2 import DATA, ERR, FIN, STAT, Packet, Stat
from pier.buildkit.stat import entry_of
from pier.errors import PierError
from pier.state.memory import MemoryStore
from pier.storage.go_mode import go_mode, unix_mode

from .client_files import OfferedFolder
from .conftest import connected


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    root = tmp_path / "origin"
    (root / "dir/sub").mkdir(parents=True)
    (root / "dir/a").write_text("a")
    (root / "dir/sub/big").write_bytes(bytes(range(256)) * 1000)
    (root / "empty").touch()
    (root / "run").write_text("#!/bin/sh\n")
    (root / "run").chmod(0o4755)
    (root / "link").symlink_to("dir/a")
    os.link(root / "dir/a", root / "z-same")
    os.mkfifo(root / "fifo")
    return root


@pytest.fixture
async def cache() -> AsyncIterator[Cache]:
    made = Cache(MemoryStore(), None, None, clock_ns=itertools.count(1).__next__)  # type: ignore[arg-type]
    yield made
    await made.close()


@pytest.fixture
def contexts(tmp_path: Path, cache: Cache) -> Contexts:
    return Contexts(str(tmp_path / "contexts"), cache)


async def fetch(offered: OfferedFolder, contexts: Contexts, origin: str = "x") -> Context:
    """The offered folder as a context that has been given back."""
    context = await contexts.take(origin)
    try:
        async with connected(offered.methods) as client:
            await filesync.receive(client, filesync.metadata_of("context", {}), context, lambda _: None)
    finally:
        await contexts.give_back(context)
    return context


def seen(root: Path) -> dict[str, tuple[int, int, bytes | str]]:
    """Path -> (mode, time, content) of all that is in a folder."""
    found: dict[str, tuple[int, int, bytes | str]] = {}
    for path in sorted(root.rglob("*")):
        info = path.lstat()
        content: bytes | str = ""
        if path.is_symlink():
            content = os.readlink(path)
        elif stat.S_ISREG(info.st_mode):
            content = path.read_bytes()
        found[str(path.relative_to(root))] = (info.st_mode, info.st_mtime_ns, content)
    return found


async def test_all_kinds_of_files_come_over(origin: Path, contexts: Contexts) -> None:
    offered = OfferedFolder(origin)
    context = await fetch(offered, contexts)
    assert seen(Path(context.tree)) == seen(origin)
    assert os.path.samefile(f"{context.tree}/dir/a", f"{context.tree}/z-same")
    assert sorted(offered.asked) == ["dir/a", "dir/sub/big", "empty", "run"]


async def test_nothing_is_sent_twice(origin: Path, contexts: Contexts) -> None:
    offered = OfferedFolder(origin)
    first = (await fetch(offered, contexts)).key
    offered.asked.clear()
    assert (await fetch(offered, contexts)).key == first
    assert offered.asked == []


async def test_where_nothing_has_changed_nothing_is_written(origin: Path, contexts: Contexts) -> None:
    offered = OfferedFolder(origin)
    index = Path((await fetch(offered, contexts)).folder, "index")
    before = index.stat()
    context = await fetch(offered, contexts)
    assert (index.stat().st_ino, index.stat().st_ctime_ns) == (before.st_ino, before.st_ctime_ns)
    (origin / "run").unlink()
    assert "run" not in (await fetch(offered, contexts)).index
    assert seen(Path(context.tree)) == seen(origin)


async def test_a_file_that_is_sent_anew_has_its_other_names_still(origin: Path, contexts: Contexts) -> None:
    offered = OfferedFolder(origin)
    await fetch(offered, contexts)
    (origin / "dir/a").write_text("other")  # z-same is the same file
    context = await fetch(offered, contexts)
    assert seen(Path(context.tree)) == seen(origin)
    assert os.path.samefile(f"{context.tree}/dir/a", f"{context.tree}/z-same")


async def test_only_the_one_file_that_has_changed_is_sent(origin: Path, contexts: Contexts) -> None:
    offered = OfferedFolder(origin)
    first = (await fetch(offered, contexts)).key
    offered.asked.clear()
    (origin / "empty").write_text("no more")
    context = await fetch(offered, contexts)
    assert offered.asked == ["empty"]
    assert context.key != first
    assert seen(Path(context.tree)) == seen(origin)


async def test_what_is_gone_goes_and_kinds_change(origin: Path, contexts: Contexts) -> None:
    offered = OfferedFolder(origin)
    await fetch(offered, contexts)
    (origin / "dir/sub/big").unlink()
    (origin / "dir/sub").rmdir()
    (origin / "dir/sub").write_text("a file now")
    (origin / "empty").unlink()
    (origin / "empty").mkdir()
    (origin / "empty/x").touch()
    (origin / "link").unlink()
    context = await fetch(offered, contexts)
    assert seen(Path(context.tree)) == seen(origin)


async def test_the_key_is_the_contents_not_the_times(origin: Path, contexts: Contexts) -> None:
    offered = OfferedFolder(origin)
    first = (await fetch(offered, contexts)).key
    os.utime(origin / "run", ns=(1, 1))
    context = await fetch(offered, contexts)
    assert context.key == first
    assert Path(context.tree, "run").stat().st_mtime_ns == 1


async def test_a_transfer_that_was_cut_off_is_made_whole_by_the_next(origin: Path, contexts: Contexts) -> None:
    offered = OfferedFolder(origin)
    await fetch(offered, contexts)

    class Cut(OfferedFolder):
        async def send(self, call: Call) -> None:
            await call.send(Packet(type=STAT, stat=self.stats()[0]))
            await call.send(Packet(type=ERR, data=b"disk on fire"))

    with pytest.raises(filesync.TransferFailed, match="disk on fire"):
        await fetch(Cut(origin), contexts)
    context = await fetch(offered, contexts)
    assert seen(Path(context.tree)) == seen(origin)


async def test_two_builds_at_once_have_a_tree_each(origin: Path, contexts: Contexts) -> None:
    one, other = await contexts.take("x"), await contexts.take("x")
    assert one.folder != other.folder
    await contexts.give_back(other)
    await contexts.give_back(one)
    assert os.path.isdir(one.folder)
    assert not os.path.exists(other.folder)


async def test_idle_trees_are_few(
    origin: Path, contexts: Contexts, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pier.builder.contexts.IDLE_MAX", 2)
    first, *others = [await fetch(OfferedFolder(origin), contexts, name) for name in "abc"]
    assert not os.path.exists(first.folder)
    assert all(os.path.isdir(each.folder) for each in others)
    assert [record.id for record in cache.records.values()] == [each.record.id for each in others if each.record]


async def test_trees_are_records_of_the_cache(origin: Path, contexts: Contexts, cache: Cache) -> None:
    context = await contexts.take("x", "dockerfile")
    [record] = cache.records.values()
    assert (record.type, record.description, record.uses) == ("source.local", "local source for dockerfile", 0)
    assert record.id in cache.in_use, "no prune takes it now"
    await contexts.give_back(context)
    assert not cache.in_use
    again = await fetch(OfferedFolder(origin), contexts)
    assert (again.folder, list(cache.records.values())) == (context.folder, [record])
    assert (record.uses, record.size_bytes) == (2, sum(each.size for each in OfferedFolder(origin).stats()))


async def test_a_tree_whose_record_was_pruned_is_begun_anew(origin: Path, contexts: Contexts, cache: Cache) -> None:
    first = await fetch(OfferedFolder(origin), contexts)
    assert first.record is not None
    cache.drop(first.record.id)
    offered = OfferedFolder(origin)
    second = await fetch(offered, contexts)
    assert second.folder != first.folder
    assert seen(Path(second.tree)) == seen(origin)


REGULAR = go_mode(stat.S_IFREG | 0o644)
DIR = go_mode(stat.S_IFDIR | 0o755)
HOSTILE = {
    "parent": [Stat(path="../x", mode=REGULAR)],
    "absolute": [Stat(path="/etc/x", mode=REGULAR)],
    "root": [Stat(path=".", mode=DIR)],
    "empty": [Stat(path="", mode=REGULAR)],
    "inner": [Stat(path="a/../../x", mode=REGULAR)],
    "nul": [Stat(path="a\0b", mode=REGULAR)],
    "orphan": [Stat(path="a/b", mode=REGULAR)],
    "twice": [Stat(path="a", mode=DIR), Stat(path="a", mode=DIR)],
    "through a link": [Stat(path="a", mode=go_mode(stat.S_IFLNK | 0o777), linkname="/etc"), Stat(path="a/x", mode=DIR)],
    "through a file": [Stat(path="a", mode=REGULAR), Stat(path="a/x", mode=DIR)],
    "hard link out": [Stat(path="a", mode=REGULAR, linkname="../../etc/passwd")],
    "hard link to nothing": [Stat(path="a", mode=REGULAR, linkname="b")],
}


@pytest.mark.parametrize("stats", HOSTILE.values(), ids=HOSTILE)
async def test_attack_19_a_hostile_client_stays_in_its_tree(
    stats: list[Stat], tmp_path: Path, contexts: Contexts
) -> None:
    class Hostile(OfferedFolder):
        async def send(self, call: Call) -> None:
            await self.say(call, stats)

    outside = seen(tmp_path)
    with pytest.raises(BadEntry):
        await fetch(Hostile(tmp_path), contexts)
    assert {path: what for path, what in seen(tmp_path).items() if not path.startswith("contexts")} == outside


@pytest.mark.parametrize(
    "packets",
    [
        [Packet(type=DATA, id=5, data=b"x")],
        [Packet(type=FIN)],
        [],
        [Packet(type=STAT, stat=Stat(path="a", mode=REGULAR)), Packet(type=STAT)],
    ],
    ids=["content nobody asked for", "early end", "nothing", "no content"],
)
async def test_a_client_that_breaks_the_rules(packets: list[Packet], tmp_path: Path, contexts: Contexts) -> None:
    class Odd(OfferedFolder):
        async def send(self, call: Call) -> None:
            for packet in packets:
                await call.send(packet)

    with pytest.raises(filesync.TransferFailed):
        await fetch(Odd(tmp_path), contexts)


async def test_a_folder_that_is_not_offered(origin: Path, contexts: Contexts) -> None:
    with pytest.raises(filesync.TransferFailed, match='no access allowed to dir "context"'):
        await fetch(OfferedFolder(origin, name="other"), contexts)


def test_headers_of_a_request() -> None:
    attrs = {"local.includepattern": '["a", "b"]', "local.followpaths": '["\\u00fc b"]', "local.session": "x"}
    assert filesync.metadata_of("context", attrs) == [
        ("dir-name", "context"),
        ("include-patterns", "a"),
        ("include-patterns", "b"),
        ("followpaths-encoded", "1"),
        ("followpaths", "%C3%BC+b"),
    ]


@pytest.mark.parametrize(
    "mode",
    [
        stat.S_IFDIR | 0o1777,
        stat.S_IFREG | 0o4755,
        stat.S_IFREG | 0o2640,
        stat.S_IFLNK | 0o777,
        stat.S_IFCHR | 0o600,
        stat.S_IFBLK | 0o660,
        stat.S_IFIFO | 0o644,
        stat.S_IFSOCK | 0o755,
    ],
)
def test_modes_there_and_back(mode: int) -> None:
    assert unix_mode(go_mode(mode)) == mode


@settings(max_examples=100)
@given(st.text(max_size=30), st.integers(0, 2**32 - 1), st.text(max_size=20))
def test_any_file_is_taken_or_refused(path: str, mode: int, link: str) -> None:
    try:
        found, _ = entry_of(Stat(path=path, mode=mode, linkname=link))
    except PierError:
        return
    assert found == path
    assert not os.path.isabs(found)
    assert ".." not in found.split("/")
