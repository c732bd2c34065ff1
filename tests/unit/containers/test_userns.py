"""`--userns`: its words, what it excludes, and the ids a new container gets."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from pier.containers import spec, subids, userns
from pier.containers.names import NameInUse
from pier.containers.record import Record
from pier.containers.spec_mounts import user_mounts
from pier.containers.subids import NoIdsLeft, NoSubids, Range
from pier.containers.userns import CannotRemap, Incompatible, InvalidUsernsMode, Mode, Pool
from pier.model.container import ContainerConfig
from pier.model.host_config import HostConfig
from pier.storage.ids import Extent, IdMap

from .conftest import House

MAP = IdMap([Extent(0, 100_000, 65_536)], [Extent(0, 200_000, 1_000)])
POOL = Pool("containers", [Range(1_000, 5_000)], [Range(9_000, 3_000)])


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("", Mode("")),
        ("host", Mode("host")),
        ("auto", Mode("auto", 65_536)),
        ("auto:size=1024", Mode("auto", 1024)),
        ("auto:size=4294967294", Mode("auto", 4294967294)),
    ],
)
def test_modes(text: str, mode: Mode) -> None:
    assert userns.parse_mode(text) == mode


@pytest.mark.parametrize(
    "text",
    ["private", "x", "auto:", "auto:size", "auto:size=", "auto:size=1023", "auto:size=-5", "auto:size=4294967295",
     "auto:size=٣٣٣٣", "autosize=5000", "host:", "size=5000", "auto:uidmapping=0:1:2"],
)  # fmt: skip
def test_modes_that_are_none(text: str) -> None:
    with pytest.raises(InvalidUsernsMode) as caught:
        userns.parse_mode(text)
    assert caught.value.message == f"invalid user namespace mode: {text}"
    assert "auto:size=N" in caught.value.wire


@pytest.mark.parametrize(
    ("host", "word"),
    [
        (HostConfig(privileged=True), "privileged mode is incompatible with user namespaces.  You must"),
        (HostConfig(network_mode="host"), "host's network namespace"),
        (HostConfig(pid_mode="host"), "host PID namespace"),
        (HostConfig(ipc_mode="host"), "host's IPC namespace"),
    ],
)
def test_what_a_user_namespace_excludes(host: HostConfig, word: str) -> None:
    with pytest.raises(Incompatible, match=word) as caught:
        userns.check(host)
    assert caught.value.status == 400
    userns.check(HostConfig(network_mode="bridge", uts_mode="host", cgroupns_mode="host"))


def test_idmap_takes_a_user_namespace() -> None:
    (mount,) = user_mounts(HostConfig(binds=["/a:/b:idmap,ro"]))
    assert mount.oci()["options"] == ["rbind", "rro", "rprivate", "idmap"]
    with pytest.raises(Incompatible, match="the mount at /b asks for idmap"):
        userns.check_without([mount])
    userns.check_without(user_mounts(HostConfig(binds=["/a:/b:ro"])))


def test_ranges_are_distinct_and_come_back() -> None:
    maps = []
    for _ in range(3):
        maps.append(userns.allocate(1_000, POOL, maps))
    assert [found.root for found in maps] == [(1_000, 9_000), (2_000, 10_000), (3_000, 11_000)]
    with pytest.raises(NoIdsLeft, match=r'no 1000 consecutive subordinate group ids .* user "containers"'):
        userns.allocate(1_000, POOL, maps)
    del maps[1]
    assert userns.allocate(1_000, POOL, maps).root == (2_000, 10_000)


async def test_choose(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    world = house.service._world
    monkeypatch.setattr(userns, "read_pool", lambda: POOL)
    assert await userns.choose(world, "h", Mode("host")) is None
    assert await userns.choose(world, "n", Mode("")) is None
    found = await asyncio.gather(*(userns.choose(world, id, Mode("auto", 1_024)) for id in "ab"))
    assert {item.root for item in found} == {(1_000, 9_000), (2_024, 10_024)}
    assert set(world.id_maps) == {"a", "b"}
    world.snapshots.fault = "/d is on odd"
    with pytest.raises(CannotRemap, match="cannot have a user namespace: /d is on odd"):
        await userns.choose(world, "c", Mode("auto", 1_024))
    world.config = replace(world.config, id_map=MAP)
    assert await userns.choose(world, "d", Mode("")) == MAP


async def test_the_daemons_map_reaches_layer_files_and_runtime(house: House) -> None:
    await house.service.close()
    house.config = replace(house.config, id_map=MAP)
    house.service = house.make()
    await house.service.start()
    id = await house.create("mapped")
    other = await house.create("plain", userns_mode="host", privileged=True)
    assert house.snapshots.id_maps == {id: MAP, other: None}
    with pytest.raises(Incompatible):
        await house.create("refused", privileged=True)
    await house.again()
    assert set(house.service._world.id_maps) == {id}, "remembered across a restart of the daemon"
    await house.service.remove(id, force=False, volumes=False, link=False)
    assert house.service._world.id_maps == {}


async def test_a_name_in_use_takes_no_ids(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(userns, "read_pool", lambda: POOL)
    first = await house.create("same", userns_mode="auto:size=1024")
    with pytest.raises(NameInUse):
        await house.create("same", security_opt=["userns=auto:size=1024"])
    assert set(house.service._world.id_maps) == {first}


def test_the_pool_is_podmans_user_else_dockers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SUBUID", "SUBGID"):
        monkeypatch.setattr(subids, name, str(tmp_path / name))
    with pytest.raises(NoSubids, match='for user "containers"'):
        userns.read_pool()
    for name in ("SUBUID", "SUBGID"):
        (tmp_path / name).write_text("dockremap:5:6\n")
    assert userns.read_pool() == Pool("dockremap", [Range(5, 6)], [Range(5, 6)])
    (tmp_path / "SUBUID").write_text("containers:7:8\n")
    (tmp_path / "SUBGID").write_text("containers:9:8\n")
    assert userns.read_pool() == Pool("containers", [Range(7, 8)], [Range(9, 8)])


def record(id: str, id_map: IdMap | None, **host: str) -> Record:
    return Record(
        id=id,
        name=f"name-{id}",
        created_ns=0,
        image_id="",
        layers=[],
        path="true",
        args=[],
        driver="",
        config=ContainerConfig(),
        host_config=HostConfig(**host),
        id_map=id_map,
    )


def test_a_shared_namespace_is_a_shared_user_namespace() -> None:
    one, two = record("1", MAP), record("2", MAP)
    assert userns.shared_with(record("3", MAP), {"network": one, "pid": one}) is one
    with pytest.raises(Incompatible, match="of one container, not of two"):
        userns.shared_with(record("3", MAP), {"network": one, "pid": two})
    with pytest.raises(Incompatible, match=r"cannot join the network namespace of container name-4: .* other ids"):
        userns.shared_with(record("3", MAP), {"network": record("4", None)})


def test_the_map_survives_the_database() -> None:
    kept = record("1", MAP)
    assert Record.decode(kept.put().value).id_map == MAP
    assert Record.decode(record("1", None).put().value).id_map is None


def test_in_the_runtimes_configuration() -> None:
    facts = spec.Facts(capabilities=(), host_name="h", cgroups_path="/x", etc={})
    linux = spec.linux(record("1", MAP, network_mode="bridge"), facts)
    assert linux["namespaces"][1] == {"type": "user"}
    assert linux["uidMappings"] == [{"containerID": 0, "hostID": 100_000, "size": 65_536}]
    assert linux["sysctl"]["net.ipv4.ping_group_range"] == "0 999"
    joined = spec.Facts(capabilities=(), host_name="h", cgroups_path="/x", etc={}, joined={"user": "/proc/5/ns/user"})
    assert spec.linux(record("1", MAP), joined)["namespaces"][1]["path"] == "/proc/5/ns/user"
    without = spec.linux(record("1", None, network_mode="bridge"), facts)
    assert "uidMappings" not in without
    assert all(item["type"] != "user" for item in without["namespaces"])
    assert without["sysctl"]["net.ipv4.ping_group_range"] == "0 2147483647"
