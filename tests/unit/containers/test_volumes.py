"""The volumes of containers: made, filled, shared, told of and removed with them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from pier.errors import Conflict, InvalidParameter
from pier.model.container import ContainerCreateRequest, MountPoint
from pier.model.filters import Filters
from pier.model.host_config import Driver, HostConfig, Mount, VolumeOptions
from pier.oci.image_config import RunConfig
from pier.runtime.client import StartFailed


async def mounts(house: Any, ref: str = "web") -> dict[str, MountPoint]:
    found = await house.service.inspect(ref, size=False)
    return {mount.destination: mount for mount in found.mounts}


async def names(house: Any) -> list[str]:
    return [volume.name for volume in await house.volumes.list(Filters())]


def told(house: Any) -> list[str]:
    return [f"{event.type} {event.action}" for event in house.events._history if event.type in ("volume", "container")]


async def declare(house: Any, *paths: str, name: str = "web", **host: Any) -> str:
    """A container of an image that declares these places as data."""
    run = RunConfig(cmd=["web"], volumes={path: {} for path in paths})
    house.images.known["db"] = type(house.images.known["bb"])(run)
    body = ContainerCreateRequest(image="db", host_config=HostConfig(**host))
    id: str = (await house.service.create(body, name=name, platform="")).id
    return id


async def test_every_way_to_ask_for_a_volume(house: Any) -> None:
    mount = Mount(type="volume", source="mounted", target="/m", read_only=True)
    nameless = Mount(type="volume", target="/n")
    await declare(house, "/data/", "/bound", binds=["named:/x:ro", "/tmp:/bound", "/y"], mounts=[mount, nameless])
    found = await mounts(house)
    shown = {path: (one.type, one.mode, one.rw, one.driver, one.propagation) for path, one in found.items()}
    assert shown == {
        "/bound": ("bind", "", True, "", "rprivate"),
        "/data": ("volume", "", True, "local", ""),
        "/m": ("volume", "z", False, "local", ""),
        "/n": ("volume", "z", True, "local", ""),
        "/x": ("volume", "ro", False, "local", ""),
        "/y": ("volume", "", True, "local", ""),
    }
    assert found["/x"].name == "named"
    assert found["/x"].source == house.volumes.mountpoint("named")
    assert len({found[path].name for path in ("/data", "/n", "/y")}) == 3
    assert all(len(found[path].name) == 64 for path in ("/data", "/n", "/y"))


async def test_options_labels_and_driver(house: Any) -> None:
    options = VolumeOptions(
        labels={"a": "b"}, driver_config=Driver(name="local", options={"type": "tmpfs", "device": "tmpfs"})
    )
    await house.create(mounts=[Mount(type="volume", source="data", target="/x/", volume_options=options)])
    record = house.volumes.get("data")
    assert (record.labels, record.options) == ({"a": "b"}, {"type": "tmpfs", "device": "tmpfs"})
    with pytest.raises(InvalidParameter, match='error looking up volume plugin foo: plugin "foo" not found'):
        await house.create("other", binds=["new:/x"], volume_driver="foo")
    assert await names(house) == ["data"]


async def test_a_create_that_fails_leaves_no_volume(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    await house.create("first", binds=["old:/x"])

    def full(*_: object) -> None:
        raise OSError(28, "disk")

    monkeypatch.setattr(house.snapshots, "prepare", full)
    with pytest.raises(OSError, match="disk"):
        await house.create(binds=["old:/x", "new:/y"])
    assert await names(house) == ["old"]
    assert ("volume", "new") not in house.store.records


async def test_record_and_volumes_are_written_at_once(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[list[str]] = []
    write = house.store.write

    async def spy(*changes: Any) -> None:
        written.append(sorted({change.kind for change in changes}))
        await write(*changes)

    monkeypatch.setattr(house.store, "write", spy)
    await declare(house, "/data")
    assert written == [["container", "volume"]]
    written.clear()
    await house.service.remove("web", force=False, volumes=True, link=False)
    assert written == [["container"], ["container", "volume"]]


async def test_copy_up_of_what_the_image_has(house: Any, tmp_path: Path) -> None:
    image = tmp_path / "image"
    (image / "data/sub").mkdir(parents=True)
    (image / "data/file").write_text("image's")
    house.snapshots.trees = (image, image)
    await declare(house, "/data", "/none", binds=["named:/data/sub", "bare:/data2:nocopy"])
    found = await mounts(house)
    assert sorted(path.name for path in Path(found["/data"].source).iterdir()) == ["file", "sub"]
    assert list(Path(found["/none"].source).iterdir()) == []
    (image / "file").write_text("x")
    with pytest.raises(InvalidParameter, match="cannot mount volume over existing file, file exists /file"):
        await declare(house, "/file", name="other")


async def test_volumes_from(house: Any, tmp_path: Path) -> None:
    image = tmp_path / "image"
    (image / "data").mkdir(parents=True)
    (image / "data/file").write_text("x")
    await declare(house, "/data", name="donor", binds=["named:/x"])
    house.snapshots.trees = (image, image)
    await house.create("heir", volumes_from=["donor:ro"])
    donor, heir = await mounts(house, "donor"), await mounts(house, "heir")
    assert {path: one.name for path, one in heir.items()} == {path: one.name for path, one in donor.items()}
    assert {one.rw for one in heir.values()} == {False}
    assert list(Path(heir["/data"].source).iterdir()) == [], "nothing is copied into another's volume"
    await house.service.remove("donor", force=False, volumes=True, link=False)
    assert len(await names(house)) == 2, "the heir has it still"
    await house.service.remove("heir", force=False, volumes=True, link=False)
    assert await names(house) == ["named"]


async def test_in_use_as_long_as_a_container_has_it(house: Any) -> None:
    id = await house.create(binds=["named:/x"])
    with pytest.raises(Conflict, match=rf"remove named: volume is in use - \[{id}\]"):
        await house.volumes.remove("named")
    assert house.service.by_volume() == {"named": [id]}
    await house.service.remove("web", force=False, volumes=True, link=False)
    await house.volumes.remove("named")


@pytest.mark.parametrize("volumes", [True, False])
async def test_rm_takes_those_without_a_name_if_asked(house: Any, volumes: bool) -> None:
    await declare(house, "/data", binds=["named:/x"])
    await house.service.remove("web", force=False, volumes=volumes, link=False)
    assert len(await names(house)) == (1 if volumes else 2)
    assert told(house)[-2:] == (
        ["volume destroy", "container destroy"] if volumes else ["container create", "container destroy"]
    )


async def test_a_run_is_told_of(house: Any) -> None:
    monitor = await house.run(binds=["named:/x:ro"], auto_remove=True)
    [event] = [event for event in house.events._history if event.action == "mount"]
    assert event.actor.attributes == {
        "container": house.runtime.requests[0].id,
        "destination": "/x",
        "driver": "local",
        "propagation": "",
        "read/write": "false",
    }
    removed = asyncio.ensure_future(house.service.wait("web", "removed"))
    monitor.end(0)
    await removed
    assert told(house) == [
        *("volume create", "container create", "volume mount", "container start"),
        *("volume unmount", "container die", "container destroy"),
    ]


async def test_the_spec_has_the_folder(house: Any) -> None:
    await house.run(binds=["named:/x:ro"])
    [mount] = [one for one in house.runtime.requests[0].spec["mounts"] if one["destination"] == "/x"]
    assert mount["type"] == "bind"
    assert mount["source"] == house.volumes.mountpoint("named")
    assert mount["options"] == ["rbind", "rro", "rprivate"]


async def test_a_start_that_fails_lets_go(house: Any) -> None:
    house.runtime.fail = StartFailed("no", 126)
    await house.create(binds=["named:/x"])
    with pytest.raises(StartFailed):
        await house.service.start_container("web")
    assert told(house)[-2:] == ["volume mount", "volume unmount"]


async def test_auto_remove_over_a_daemons_restart(house: Any) -> None:
    monitor = await house.run(volumes_from=None, auto_remove=True, binds=["/anonymous"])
    assert len(await names(house)) == 1
    await house.service.close()
    monitor.end(0)
    await house.again()
    assert await names(house) == []
    assert house.store.records == {}


async def test_a_removal_that_was_interrupted_takes_the_volumes_along(house: Any) -> None:
    id = await declare(house, "/data")
    record = json.loads(house.store.records["container", id])
    record["state"]["status"], record["removes_volumes"] = "removing", True
    house.store.records["container", id] = json.dumps(record).encode()
    await house.again()
    assert house.store.records == {}
    assert await names(house) == []
