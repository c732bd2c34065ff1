"""The volume service over real folders and a store in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from pier.errors import Conflict, InvalidParameter, NotFound
from pier.events import EventBus
from pier.model.filters import Filters
from pier.state import MemoryStore
from pier.volumes import ANONYMOUS, NoSuchVolume, VolumeService, Wanted
from pier.volumes.service import NoSuchDriver, VolumeInUse


class Shop:
    """A service, and what is around it; `again` is a daemon's restart."""

    def __init__(self, top: Path) -> None:
        self.top, self.store, self.events = top / "volumes", MemoryStore(), EventBus()
        self.notes = top / "notes"
        self.used: dict[str, list[str]] = {}
        self.service = self.make()

    def make(self) -> VolumeService:
        made = VolumeService(top=str(self.top), notes=str(self.notes), store=self.store, events=self.events)
        made.users = lambda: self.used
        return made

    async def again(self) -> list[str]:
        await self.service.close()
        self.service = self.make()
        return await self.service.start()

    def data(self, name: str) -> Path:
        return self.top / name / "_data"

    def told(self) -> list[tuple[str, str]]:
        return [(event.action, event.actor.id) for event in self.events._history]

    async def names(self, **filters: Any) -> list[str]:
        terms = {name.replace("not_", "label!"): tuple(values) for name, values in filters.items()}
        return [volume.name for volume in await self.service.list(Filters(terms))]


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    made = Shop(tmp_path)
    await made.service.start()
    yield made
    await made.service.close()


async def test_a_volume_is_made_once(shop: Shop) -> None:
    first = await shop.service.create(name="data", labels={"a": "b"})
    again = await shop.service.create(name="data", labels={"other": ""}, driver_opts={"type": "tmpfs", "device": "x"})
    assert again == first, "as with Docker the volume that is there is the answer, whatever else was asked"
    assert (first.labels, first.options, first.scope, first.driver) == ({"a": "b"}, None, "local", "local")
    assert first.mountpoint == str(shop.data("data"))
    assert shop.data("data").stat().st_mode & 0o7777 == 0o755
    assert (shop.top / "data").stat().st_mode & 0o7777 == 0o700
    assert shop.told() == [("create", "data")]


async def test_a_volume_without_a_name_says_so(shop: Shop) -> None:
    made = await shop.service.create(labels={"x": "y"})
    assert len(made.name) == 64
    assert made.labels == {"x": "y", ANONYMOUS: ""}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("x", "volume name is too short, names should be at least two alphanumeric characters"),
        ("ü", "includes invalid characters for a local volume name"),
        ("../x", 'create ../x: "../x" includes invalid characters for a local volume name'),
        ("..", "includes invalid characters"),
        (".hidden", "includes invalid characters"),
        ("-rf", "includes invalid characters"),
        ("a/b", "includes invalid characters"),
        ("a\0b", "includes invalid characters"),
        ("a\n", "includes invalid characters"),
        ("ä" * 3, "includes invalid characters"),
        ("x" * 256, "volume name is too long"),
    ],
)
async def test_attack_17_names_of_volumes_are_no_paths(shop: Shop, name: str, words: str) -> None:
    with pytest.raises(InvalidParameter, match=words):
        await shop.service.create(name=name)
    with pytest.raises(NoSuchVolume):
        await shop.service.remove(name)
    assert list(shop.top.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"foo": "x"}, 'invalid option: "foo"'),
        ({"type": "tmpfs"}, 'missing required option: "device"'),
        ({"o": "bind", "device": "/x"}, 'missing required option: "type"'),
        ({"size": "bad"}, "invalid size: 'bad'"),
        ({"type": "t\0", "device": "x"}, "NUL"),
    ],
)
async def test_options_that_are_refused(shop: Shop, options: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidParameter, match=words):
        await shop.service.create(name="data", driver_opts=options)
    assert await shop.names() == []


async def test_another_driver_is_refused(shop: Shop) -> None:
    with pytest.raises(NoSuchDriver, match='create data: error looking up volume plugin foo: plugin "foo" not found'):
        await shop.service.create(name="data", driver="foo")


async def test_filters(shop: Shop) -> None:
    await shop.service.create(name="one", labels={"k": "v"})
    await shop.service.create(name="two")
    shop.used = {"two": ["f" * 64]}
    assert await shop.names() == ["one", "two"]
    assert await shop.names(dangling=["true"]) == ["one"]
    assert await shop.names(dangling=["0"]) == ["two"]
    assert await shop.names(label=["k=v"]) == ["one"]
    assert await shop.names(name=["^t"]) == ["two"]
    assert await shop.names(driver=["loc"]) == []
    with pytest.raises(InvalidParameter, match=r"invalid filter 'dangling=\[x\]'"):
        await shop.names(dangling=["x"])
    with pytest.raises(InvalidParameter, match="invalid filter 'foo'"):
        await shop.names(foo=["x"])


async def test_one_that_is_used_stays(shop: Shop) -> None:
    await shop.service.create(name="data")
    shop.used = {"data": ["a" * 64, "b" * 64]}
    with pytest.raises(VolumeInUse, match=rf"remove data: volume is in use - \[{'a' * 64}, {'b' * 64}\]"):
        await shop.service.remove("data", force=True)
    shop.used = {}
    (shop.data("data") / "file").write_text("x")
    await shop.service.remove("data")
    await shop.service.remove("data", force=True)
    with pytest.raises(NotFound, match="get data: no such volume"):
        await shop.service.remove("data")
    assert shop.store.records == {}
    await shop.service.close()
    assert list(shop.top.iterdir()) == []


async def test_prune_takes_those_without_a_name_unless_told_otherwise(shop: Shop) -> None:
    named = (await shop.service.create(name="named", labels={"k": "v"})).name
    nameless = (await shop.service.create()).name
    used = (await shop.service.create()).name
    (shop.data(nameless) / "file").write_bytes(b"x" * 5000)
    shop.used = {used: ["f" * 64]}
    answer = await shop.service.prune(Filters())
    assert (answer.volumes_deleted, answer.space_reclaimed) == ([nameless], 5000)
    assert (await shop.service.prune(Filters({"all": ("1",), "label!": ("k",)}))).volumes_deleted == []
    assert (await shop.service.prune(Filters(), every=True)).volumes_deleted == [named]
    with pytest.raises(InvalidParameter, match="invalid filter 'until'"):
        await shop.service.prune(Filters({"until": ("1h",)}))
    with pytest.raises(InvalidParameter, match=r"invalid filter 'all': strconv\.ParseBool"):
        await shop.service.prune(Filters({"all": ("zzz",)}))
    assert shop.events._history[-1].actor.attributes == {"reclaimed": "0"}


async def test_usage_counts_files_and_containers(shop: Shop) -> None:
    await shop.service.create(name="idle")
    await shop.service.create(name="used")
    await shop.service.create(name="mount", driver_opts={"type": "tmpfs", "device": "tmpfs"})
    (shop.data("idle") / "file").write_bytes(b"x" * 100)
    (shop.data("used") / "file").write_bytes(b"x" * 10)
    shop.used = {"used": ["f" * 64]}
    usage = await shop.service.usage()
    assert (usage.active_count, usage.total_count, usage.reclaimable, usage.total_size) == (1, 2, 100, 110)
    assert usage.items is not None
    assert [(item.name, item.usage_data.ref_count) for item in usage.items if item.usage_data] == [
        ("idle", 0),
        ("used", 1),
    ]
    found = await shop.service.inspect("used", size=True)
    assert found.usage_data is not None
    assert found.usage_data.size == 10
    assert (await shop.service.inspect("used")).usage_data is None


async def test_a_claim_holds_what_it_names(shop: Shop) -> None:
    await shop.service.create(name="old")
    claim = await shop.service.claim([Wanted("old"), Wanted("new"), Wanted()])
    for name in claim.names:
        with pytest.raises(Conflict):
            await shop.service.remove(name)
    assert [change.key for change in claim.changes] == claim.names[1:]
    await shop.service.give_up(claim)
    assert await shop.names() == ["old"]
    assert shop.told() == [("create", "old")], "what never was is not told of"


async def test_a_volume_of_two_claims_stays_for_the_one_that_succeeds(shop: Shop) -> None:
    first, second = await asyncio.gather(shop.service.claim([Wanted("v1")]), shop.service.claim([Wanted("v1")]))
    await shop.service.give_up(first)
    assert shop.data("v1").is_dir()
    await shop.store.write(*second.changes)
    await shop.service.settle(second)
    assert await shop.again() == []
    assert await shop.names() == ["v1"]


async def test_a_claim_that_fails_in_the_middle_leaves_nothing(shop: Shop) -> None:
    with pytest.raises(InvalidParameter):
        await shop.service.claim([Wanted("good"), Wanted("b/ad")])
    assert await shop.names() == []
    await shop.service.remove("good", force=True)


async def test_removal_that_is_not_written_did_not_happen(shop: Shop) -> None:
    await shop.service.create(name="data")
    with pytest.raises(OSError, match="disk"):
        async with shop.service.removing(["data"]):
            raise OSError("disk")
    assert await shop.names() == ["data"]
    assert await shop.again() == []


# --- the next daemon


async def test_trap_20_a_volume_is_known_again_by_its_folder(shop: Shop) -> None:
    await shop.service.create(name="data", labels={"k": "v"})
    claim = await shop.service.claim([Wanted("held"), Wanted()])
    (shop.data("data") / "file").write_text("kept")
    (shop.data("held") / "file").write_text("the image's")
    shop.store.records.clear()
    assert set(await shop.again()) == {
        "volume data: had no record, is known again by its folder",
        *(f"volume {name}: of something that was not made" for name in claim.names),
    }
    assert await shop.names() == ["data"]
    assert (await shop.service.inspect("data")).labels == {"k": "v"}
    assert (shop.data("data") / "file").read_text() == "kept"
    assert await shop.again() == []


async def test_leftovers_of_a_killed_daemon(shop: Shop) -> None:
    await shop.service.create(name="leaving")
    await shop.service.create(name="stays")
    shop.service.folders.mark_leaving("leaving")
    shop.service.folders.mark_leaving("stays")
    del shop.store.records["volume", "leaving"]
    (shop.top / ".new-1").mkdir()
    (shop.top / ".gone-1/_data").mkdir(parents=True)
    assert await shop.again() == ["volume leaving: its removal is finished"]
    assert await shop.names() == ["stays"]
    await shop.service.close()
    assert {path.name for path in shop.top.iterdir()} == {"stays"}
    assert (shop.top / "stays/volume.json").exists()


async def test_a_folder_that_is_gone_is_made_again(shop: Shop) -> None:
    await shop.service.create(name="data")
    await asyncio.to_thread(lambda: [(shop.data("data")).rmdir()])
    (shop.top / "data/volume.json").unlink()
    (shop.top / "data").rmdir()
    assert await shop.again() == ["volume data: its folder was gone, an empty one is made"]
    assert shop.data("data").is_dir()


async def test_attack_17_a_record_with_a_path_for_a_name_is_dropped(shop: Shop, tmp_path: Path) -> None:
    shop.store.records["volume", "evil"] = b'{"name": "../../evil", "created_ns": 1}'
    assert await shop.again() == ["volume evil: its record was damaged and is dropped"]
    assert not (tmp_path / "evil").exists()


async def test_a_folder_that_was_put_there_by_hand_is_not_overwritten(shop: Shop) -> None:
    (shop.top / "mine/_data").mkdir(parents=True)
    (shop.top / "mine/_data/file").write_text("kept")
    with pytest.raises(Conflict, match="is there, and is no volume that this daemon knows"):
        await shop.service.create(name="mine")
    assert await shop.again() == ["volume mine: had no record, is known again by its folder"]
    assert (shop.data("mine") / "file").read_text() == "kept"
