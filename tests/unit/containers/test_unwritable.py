from __future__ import annotations

import os
from pathlib import Path

import pytest

from pier.containers import unwritable
from pier.containers.record import Record
from pier.containers.spec_mounts import parse_bind
from pier.containers.unwritable import Folder, can_write
from pier.model.container import ContainerConfig
from pier.model.host_config import HostConfig
from pier.runtime.process.users import Identity
from pier.runtime.request import BindRoot
from pier.storage.ids import Extent, IdMap

ID_MAP = IdMap([Extent(0, 100_000, 65_536)], [Extent(0, 200_000, 65_536)])
ANA = Identity(1000, 100, [7], "/home")
ROOT = Identity(0, 0, [], "/root")


@pytest.mark.parametrize(
    ("identity", "folder", "id_map", "mighty", "expected"),
    [
        (ANA, Folder(1000, 0, 0o700), None, True, True),
        (ANA, Folder(1000, 100, 0o577), None, True, False),  # the owner's own bits count, whatever others may
        (ANA, Folder(0, 0, 0o755), None, True, False),
        (ANA, Folder(0, 0, 0o777), None, True, True),
        (ANA, Folder(0, 0, 0o776), None, True, False),  # no file is made where one may not search
        (ANA, Folder(0, 100, 0o770), None, True, True),
        (ANA, Folder(0, 7, 0o770), None, True, True),
        (ANA, Folder(0, 7, 0o707), None, True, False),
        (ROOT, Folder(5, 5, 0o700), None, True, True),
        (ROOT, Folder(5, 5, 0o700), None, False, False),
        (ROOT, Folder(0, 0, 0o755), ID_MAP, True, False),
        (ROOT, Folder(100_005, 200_005, 0o700), ID_MAP, True, True),
        (ROOT, Folder(100_005, 5, 0o700), ID_MAP, True, False),
        (ANA, Folder(101_000, 0, 0o700), ID_MAP, True, True),
        (ANA, Folder(0, 200_007, 0o770), ID_MAP, True, True),
    ],
)
def test_who_can_write(identity: Identity, folder: Folder, id_map: IdMap | None, mighty: bool, expected: bool) -> None:
    assert can_write(identity, folder, id_map, mighty=mighty) is expected


@pytest.fixture
def rootfs(tmp_path: Path) -> BindRoot:
    (tmp_path / "rootfs/etc").mkdir(parents=True)
    (tmp_path / "rootfs/etc/passwd").write_text("ana:x:1000:100::/home:/bin/sh\n")
    return BindRoot(str(tmp_path / "rootfs"))


def said(tmp_path: Path, rootfs: BindRoot, bind: str, *, user: str = "ana", id_map: IdMap | None = None) -> list[str]:
    host = HostConfig(binds=[f"{tmp_path}/{bind}"])
    record = Record(
        id="1" * 64, name="one", created_ns=0, image_id="", layers=[], path="sh", args=[], driver="overlay2",
        config=ContainerConfig(user=user), host_config=host, id_map=id_map,
    )  # fmt: skip
    return unwritable.warnings(record, [parse_bind(host.binds[0])], rootfs, str(tmp_path))  # type: ignore[index]


@pytest.mark.root
def test_what_is_said(tmp_path: Path, rootfs: BindRoot) -> None:
    (tmp_path / "the data").mkdir(mode=0o755)
    os.chown(tmp_path / "the data", 33, 34)
    (text,) = said(tmp_path, rootfs, "the data:/data")
    assert text == (
        f"The container's user 1000:100 cannot write to /data: {tmp_path}/the data belongs to 33:34, mode 0755. "
        f"Give it to that user: `chown 1000:100 '{tmp_path}/the data'`; or show what is its owner's as the user's: "
        f"`-v '{tmp_path}/the data:/data:idmap=uids=33-1000-1;gids=34-100-1'`. If it need not write, say `:ro`."
    )
    (text,) = said(tmp_path, rootfs, "the data:/data", id_map=ID_MAP, user="")
    assert "user 0:0 (100000:200000 on the host) cannot write" in text
    assert "chown 100000:200000" in text
    assert "idmap=uids=@33-0-1;gids=@34-0-1" in text


@pytest.mark.root
def test_what_is_passed_over_in_silence(tmp_path: Path, rootfs: BindRoot) -> None:
    (tmp_path / "data").mkdir(mode=0o755)
    (tmp_path / "file").write_text("")
    (tmp_path / "read").mkdir(mode=0o555)
    for bind in ("data:/d:ro", "file:/d", "read:/d", "none:/d", "data:/d:idmap=uids=0-1000-1"):
        assert said(tmp_path, rootfs, bind) == []
    assert said(tmp_path, rootfs, "data:/d", user="nobody-knows") == []
    assert said(tmp_path, rootfs, "data:/d", user="") == []
