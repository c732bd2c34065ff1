"""Files in volumes: archives out and in again, listings, clones; and many who make and remove at once."""

from __future__ import annotations

import asyncio
import io
import json
import os
import random
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pier.errors import Conflict, InvalidParameter, NotFound, PierError
from pier.events import EventBus
from pier.model.filters import Filters
from pier.state import MemoryStore
from pier.volumes import VolumeFiles, VolumeService, Wanted
from pier.volumes.service import VolumeInUse

ACL = (
    b"\x02\x00\x00\x00\x01\x00\x07\x00\xff\xff\xff\xff\x02\x00\x07\x00\xe8\x03\x00\x00\x04\x00\x05\x00\xff\xff\xff\xff"
)
ACL += b"\x10\x00\x07\x00\xff\xff\xff\xff \x00\x05\x00\xff\xff\xff\xff"
"""u::rwx, u:1000:rwx, g::r-x, m::rwx, o::r-x (xattr(7), system.posix_acl_access)."""


class Shop:
    def __init__(self, top: Path) -> None:
        self.top, self.store = top / "volumes", MemoryStore()
        self.service = VolumeService(top=str(self.top), notes=str(top / "notes"), store=self.store, events=EventBus())
        self.files = VolumeFiles(self.service)

    def data(self, name: str) -> Path:
        return self.top / name / "_data"

    async def export(self, name: str, path: str = "/") -> bytes:
        async with self.files.archive(name, path) as archive:
            return b"".join([chunk async for chunk in archive.chunks])

    async def lines(self, name: str, path: str = "/", *, recursive: bool = False) -> list[dict[str, object]]:
        async with self.files.listing(name, path, recursive=recursive) as chunks:
            text = b"".join([chunk async for chunk in chunks])
        return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    made = Shop(tmp_path)
    await made.service.start()
    yield made
    await made.files.close()
    await made.service.close()


async def stream(data: bytes) -> AsyncIterator[bytes]:
    for begin in range(0, len(data), 1000):
        yield data[begin : begin + 1000]


def furnish(place: Path) -> None:
    (place / "deep/er").mkdir(parents=True)
    (place / "deep/er/file").write_text("text")
    os.link(place / "deep/er/file", place / "twin")
    (place / "link").symlink_to("/etc/passwd")
    os.mkfifo(place / "pipe")
    os.chmod(place / "deep/er/file", 0o4640)
    os.setxattr(place / "deep/er/file", "user.note", b"kept")
    os.setxattr(place / "deep", "system.posix_acl_access", ACL)
    os.utime(place / "deep", ns=(1, 1_500_000_000_123_000_000))
    os.chmod(place, 0o2770)


async def test_wish_16_what_is_exported_is_imported_again(shop: Shop) -> None:
    await shop.service.create(name="from")
    await shop.service.create(name="to")
    furnish(shop.data("from"))
    archive = await shop.export("from")
    await shop.files.extract("to", "/", stream(archive), root_too=True)
    place = shop.data("to")
    assert place.stat().st_mode & 0o7777 == 0o2770
    assert (place / "twin").stat().st_ino == (place / "deep/er/file").stat().st_ino
    assert (place / "twin").stat().st_mode & 0o7777 == 0o4640
    assert os.readlink(place / "link") == "/etc/passwd"
    assert os.getxattr(place / "twin", "user.note") == b"kept"
    assert os.getxattr(place / "deep", "system.posix_acl_access") == ACL
    assert (place / "deep").stat().st_mtime_ns == 1_500_000_000_123_000_000
    assert await shop.export("to") == archive, "equal trees give equal archives"


async def test_wish_16_parts(shop: Shop) -> None:
    await shop.service.create(name="data")
    furnish(shop.data("data"))
    with tarfile.open(fileobj=io.BytesIO(await shop.export("data", "/deep"))) as tar:
        assert tar.getnames() == ["deep", "deep/er", "deep/er/file"]
    with tarfile.open(fileobj=io.BytesIO(await shop.export("data", "/deep/er/file"))) as tar:
        assert tar.getnames() == ["file"]
    assert [line["Path"] for line in await shop.lines("data")] == ["deep", "link", "pipe", "twin"]
    everything = {line["Path"]: line for line in await shop.lines("data", recursive=True)}
    assert everything["deep/er/file"]["Mode"] == "-rwSr-----"
    assert everything["link"]["LinkTarget"] == "/etc/passwd"
    assert [line["Path"] for line in await shop.lines("data", "/deep/er")] == ["deep/er/file"]
    assert [line["Path"] for line in await shop.lines("data", "/twin")] == ["twin"]
    found = await shop.files.stat("data", "/link")
    assert (found.name, found.link_target) == ("link", "/etc/passwd")


@pytest.mark.parametrize("path", ["/nosuch", "/out/passwd", "/out/", "/twin/below"])
async def test_attack_20_what_is_not_in_the_volume_is_not_found(shop: Shop, path: str) -> None:
    await shop.service.create(name="data")
    furnish(shop.data("data"))
    (shop.data("data") / "out").symlink_to("../../../../../../../../../../etc")
    with pytest.raises(NotFound, match="Could not find the file"):
        await shop.export("data", path)
    with pytest.raises(NotFound, match="Could not find the file"):
        await shop.lines("data", path)
    with pytest.raises(NotFound, match="Could not find the file"):
        await shop.files.extract("data", path, stream(b"\0" * 1024))


async def test_what_is_no_archive_or_no_place_for_one(shop: Shop) -> None:
    await shop.service.create(name="data")
    furnish(shop.data("data"))
    with pytest.raises(InvalidParameter, match="is not a directory"):
        await shop.files.extract("data", "/twin", stream(b"\0" * 1024))
    with pytest.raises(PierError):
        await shop.files.extract("data", "/", stream(b"no archive" * 100))


async def test_wish_16_a_clone_is_there_whole_or_not_at_all(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    await shop.service.create(name="data", labels={"a": "b"})
    furnish(shop.data("data"))
    made = await shop.files.clone("data", "twin", {"c": "d"})
    assert made.labels == {"a": "b", "c": "d"}
    assert (shop.data("twin") / "deep/er/file").read_text() == "text"
    with pytest.raises(Conflict, match="volume twin exists already"):
        await shop.files.clone("data", "twin")
    with pytest.raises(InvalidParameter, match="invalid characters"):
        await shop.files.clone("data", "../x")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pier.volumes.files.copy_tree", full)
    with pytest.raises(OSError, match="No space"):
        await shop.files.clone("data", "half")
    assert [volume.name for volume in await shop.service.list(Filters())] == ["data", "twin"]
    assert {path.name for path in shop.top.iterdir()} == {"data", "twin"}


async def test_a_volume_that_is_read_is_not_removed(shop: Shop) -> None:
    await shop.service.create(name="data")
    async with shop.files.archive("data", "/"):
        with pytest.raises(VolumeInUse):
            await shop.service.remove("data")
    await shop.service.remove("data")


@pytest.mark.parametrize("seed", range(3))
async def test_many_at_once(shop: Shop, seed: int) -> None:
    """Whoever wins: a record has its folder, a folder has its record, and nobody loses what he holds."""
    choose = random.Random(seed)
    names = ["one", "two", "three"]

    async def deed() -> None:
        name = choose.choice(names)
        try:
            match choose.randrange(4):
                case 0:
                    await shop.service.create(name=name)
                case 1:
                    await shop.service.remove(name)
                case 2:
                    claim = await shop.service.claim([Wanted(name), Wanted(choose.choice(names))])
                    await asyncio.sleep(0)
                    assert all(shop.data(held).is_dir() for held in claim.names)
                    if choose.randrange(2):
                        await shop.store.write(*claim.changes)
                        await shop.service.settle(claim)
                    else:
                        await shop.service.give_up(claim)
                case _:
                    await shop.files.clone(name, choose.choice(names))
        except (NotFound, Conflict):
            pass

    await asyncio.gather(*(deed() for _ in range(60)))
    known = {volume.name for volume in await shop.service.list(Filters())}
    assert {path.name for path in shop.top.iterdir() if not path.name.startswith(".")} == known
    assert {key for _, key in shop.store.records} == known
    assert all((shop.top / name / "volume.json").exists() for name in known)
