from __future__ import annotations

from typing import Any

import pytest

from pier.containers import mount_ids
from pier.containers.mount_ids import InvalidIdMap, MountIds, Piece
from pier.containers.spec_mounts import InvalidBindMode, UserMount, parse_bind, parse_mount
from pier.model.host_config import BindOptions, Mount
from pier.storage.ids import Extent, IdMap

ID_MAP = IdMap([Extent(0, 100_000, 1000), Extent(1000, 5, 1)], [Extent(0, 200_000, 65_536)])
EVERYTHING = [{"containerID": 0, "hostID": 0, "size": 2**32 - 1}]


def piece(disk: int, host: int, count: int) -> dict[str, int]:
    return {"containerID": disk, "hostID": host, "size": count}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("true", MountIds()),
        ("1", MountIds()),
        ("false", None),
        ("uids=0-1000-1", MountIds(uids=(Piece(0, 1000, 1, False),))),
        ("gids=0-7-2;uids=@5-0-1", MountIds((Piece(5, 0, 1, True),), (Piece(0, 7, 2, False),))),
        ("uids=0-1-10#10-11-10", MountIds(uids=(Piece(0, 1, 10, False), Piece(10, 11, 10, False)))),
    ],
)
def test_parse(text: str, expected: MountIds | None) -> None:
    assert mount_ids.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "'' is neither uids=… nor gids=…"),
        ("yes", "'yes' is neither"),
        ("uids=0-1-1;uids=2-3-1", "'uids=2-3-1' is neither"),
        ("uids=", "'' is not three numbers"),
        ("uids=0-1", "'0-1' is not three numbers"),
        ("uids=a-1-1", "is not three numbers"),
        ("uids=٣-1-1", "is not three numbers"),
        ("uids=0-1-0", "has no ids"),
        ("uids=0-4294967295-1", "such as do not exist"),
        ("uids=0-5-2#1-9-1", "'1-9-1' says again"),
        ("uids=0-5-2#9-6-1", "'9-6-1' says again"),
        ("uids=" + "#".join(f"{number}-{number}-1" for number in range(341)), "341 pieces, the kernel takes 340"),
    ],
)
def test_what_is_no_map(text: str, reason: str) -> None:
    with pytest.raises(InvalidIdMap) as caught:
        mount_ids.parse(text)
    assert reason in caught.value.message
    assert "idmap=uids=DISK-SHOWN-COUNT" in caught.value.wire


@pytest.mark.parametrize(
    ("text", "id_map", "expected"),
    [
        ("true", ID_MAP, {}),
        ("uids=0-1000-1", None, {"uidMappings": [piece(0, 1000, 1)], "gidMappings": EVERYTHING}),
        ("gids=@3-4-1", None, {"uidMappings": EVERYTHING, "gidMappings": [piece(3, 4, 1)]}),
        (
            "uids=@7-10-2",
            ID_MAP,
            {"uidMappings": [piece(7, 100_010, 2)], "gidMappings": [piece(0, 200_000, 65_536)]},
        ),
        ("uids=@7-1000-1;gids=7-8-1", ID_MAP, {"uidMappings": [piece(7, 5, 1)], "gidMappings": [piece(7, 8, 1)]}),
    ],
)
def test_as_oci_has_it(text: str, id_map: IdMap | None, expected: dict[str, Any]) -> None:
    ids = mount_ids.parse(text)
    assert ids is not None
    assert ids.oci(id_map) == expected


@pytest.mark.parametrize("text", ["uids=@7-999-2", "uids=@7-2000-1"])
def test_ids_that_the_container_does_not_have(text: str) -> None:
    ids = mount_ids.parse(text)
    assert ids is not None
    with pytest.raises(InvalidIdMap, match="has no such ids in one piece"):
        ids.oci(ID_MAP)


@pytest.mark.parametrize(
    "mount",
    [
        parse_bind("/a:/b:ro,idmap=uids=0-1000-1"),
        parse_mount(
            Mount(type="bind", source="/a", target="/b", read_only=True,
                  bind_options=BindOptions(id_map="uids=0-1000-1"))
        ),
    ],
    ids=["-v", "--mount"],
)  # fmt: skip
def test_a_mount_with_a_map(mount: UserMount) -> None:
    assert mount.oci() == {
        "destination": "/b",
        "type": "bind",
        "source": "/a",
        "options": ["rbind", "rro", "rprivate", "idmap"],
        "uidMappings": [piece(0, 1000, 1)],
        "gidMappings": EVERYTHING,
    }


def test_the_hosts_root_can_make_files_where_the_map_has_nobody_for_it() -> None:
    last = Extent(2**32 - 2, 0, 1)
    assert mount_ids.with_room_for_root(ID_MAP) == IdMap([*ID_MAP.uids, last], [*ID_MAP.gids, last])
    whole = MountIds().on_disk(None)
    assert mount_ids.with_room_for_root(whole) == whole


def test_two_maps_are_none() -> None:
    assert parse_bind("/a:/b:idmap=false").ids is None
    with pytest.raises(InvalidBindMode):
        parse_bind("/a:/b:idmap,idmap=uids=0-1-1")
