"""Trees shown with other ids: whether a file system can, and that what leaves a container has the container's own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pier.kernel import mounts
from pier.oci import Digest, chain_ids
from pier.runtime.request import OverlayRoot
from pier.storage import Snapshotter, choose_driver, idmapped
from pier.storage.changes import Change, Kind
from pier.storage.ids import Extent, IdMap
from pier.storage.overlay2 import Overlay2

from .archives import archive, directory, member
from .filesystems import mounted

pytestmark = pytest.mark.root

KINDS = ["overlay2", "vfs", "overlay2 on xfs", "btrfs on btrfs"]
BASE = archive([directory("./", mode=0o751, uid=3), directory("d", uid=7), member("d/a", data=b"a", uid=7)])
TOP = archive([member("b", data=b"b", uid=1000), member("plain", data=b"p")])
CHAIN = chain_ids([Digest.of(BASE), Digest.of(TOP)])
ID = "c" * 64
UID, GID = 300_000, 400_000
MAP = IdMap([Extent(0, UID, 65_536)], [Extent(0, GID, 65_536)])

AS_A_CONTAINER = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
from pier.runtime.process import idmap, remap
from pier.runtime.request import BindRoot, OverlayRoot
maps = json.loads(sys.argv[2])
user = idmap.open_namespace(maps["uidMappings"], maps["gidMappings"])
places = sys.argv[3:]
root = remap.mount_shifted(OverlayRoot(places[:-2], *places[-2:]) if len(places) > 1 else BindRoot(places[0]), user)
os.chdir(f"/proc/self/fd/{root}")
print(*(os.stat(name).st_uid for name in (".", "d", "d/a", "b")))
from pier.kernel import namespaces
namespaces.setns(user, namespaces.CLONE_NEWUSER)
os.setresgid(0, 0, 0)
os.setresuid(0, 0, 0)
os.umask(0o022)
open("new", "w").close()
os.chown("new", 1000, 1001)
open("tool", "w").close()
os.setxattr("tool", "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))
os.chown("b", 8, 9)
os.chmod("d", 0o700)
os.unlink("plain")
"""


@pytest.fixture(params=KINDS)
def driver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Snapshotter]:
    name, _, filesystem = request.param.partition(" on ")
    with contextlib.ExitStack() as stack:
        root = stack.enter_context(mounted(filesystem)) if filesystem else tmp_path
        driver = choose_driver(str(root / "data"), name)
        stack.callback(driver.close)
        driver.unpack(CHAIN[0], None, io.BytesIO(BASE))
        driver.unpack(CHAIN[1], CHAIN[0], io.BytesIO(TOP))
        yield driver


def act(driver: Snapshotter) -> str:
    """Change files as root of the container's user namespace does; the owners that the host saw there before."""
    root = driver.root(ID, CHAIN)
    places = [*root.lower, root.upper, root.work] if isinstance(root, OverlayRoot) else [root.path]
    source = str(Path(idmapped.pier.__file__).parents[1])
    done = subprocess.run(
        ["unshare", "-m", sys.executable, "-c", AS_A_CONTAINER, source, json.dumps(MAP.oci()), *places],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_what_leaves_a_container_has_the_container_s_ids(driver: Snapshotter) -> None:
    assert driver.idmap_fault() == ""
    driver.prepare(ID, CHAIN, 0, MAP)
    assert act(driver) == f"{UID + 3} {UID + 7} {UID + 7} {UID + 1000}"
    out = io.BytesIO()
    driver.diff(ID, CHAIN, out)
    out.seek(0)
    with tarfile.open(fileobj=out) as tar:
        found = {item.name: (item.uid, item.gid) for item in tar}
        tool = tar.getmember("tool").pax_headers
    assert found["new"] == (1000, 1001)
    assert found["b"] == (8, 9)
    assert found[".wh.plain"] == (0, 0)
    assert "./" not in found
    # A capability that root of the map gave is one of root's: revision 2, no longer bound to the map's root.
    assert tool["SCHILY.xattr.security.capability"].encode("utf-8", "surrogateescape")[3] == 2
    assert Change(b"/new", Kind.ADDED) in driver.changes(ID, CHAIN)
    with driver.view(ID, CHAIN) as fd:
        assert os.stat("new", dir_fd=fd).st_uid == 1000
        assert os.fstat(fd).st_uid == 3
        assert sorted(os.listdir(fd))[0] == "b"


def test_the_image_is_not_touched(driver: Snapshotter) -> None:
    driver.prepare(ID, CHAIN, 0, MAP)
    act(driver)
    with driver.layer_view(CHAIN) as fd:
        assert [os.stat(name, dir_fd=fd).st_uid for name in ("d", "d/a", "b", "plain")] == [7, 7, 1000, 0]
    driver.prepare("d" * 64, CHAIN)
    assert driver.changes("d" * 64, CHAIN) == []
    assert driver.changes(ID, CHAIN) != []


def test_a_view_on_kernels_that_take_attached_mounts_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Overlay2(str(tmp_path))
    driver.unpack(CHAIN[0], None, io.BytesIO(BASE))
    upper = Path(driver.prepare(ID, CHAIN[:1], 0, MAP).upper)
    (upper / "ours").touch()
    os.chown(upper / "ours", UID + 5, GID + 6)
    monkeypatch.setattr(mounts, "kernel_version", lambda: (6, 1))
    with driver.view(ID, CHAIN[:1]) as fd:
        assert [os.stat(name, dir_fd=fd).st_uid for name in (".", "d", "ours")] == [3, 7, 5]
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
    driver.close()


def test_where_it_works_nothing_is_said_and_nothing_left(tmp_path: Path) -> None:
    driver = Overlay2(str(tmp_path))
    before = sorted(tmp_path.rglob("*"))
    assert driver.idmap_fault() == ""
    assert sorted(tmp_path.rglob("*")) == before
    driver.close()


@pytest.mark.parametrize("overlay", [True, False])
def test_overlayfs_is_named(tmp_path: Path, overlay: bool) -> None:
    for name in ("lower", "upper", "work", "merged"):
        (tmp_path / name).mkdir()
    merged = str(tmp_path / "merged")
    options = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    mounts.mount("overlay", merged, "overlay", 0, options)
    try:
        reason = "its files cannot be shown with other ids (idmapped mounts)"
        assert idmapped.fault(merged, overlay=overlay) == f"{merged} is on overlay: {reason}"
    finally:
        mounts.umount(merged)


def test_the_owner_of_a_container_s_upper_directory(tmp_path: Path) -> None:
    driver = Overlay2(str(tmp_path))
    driver.unpack(CHAIN[0], None, io.BytesIO(BASE))
    upper = Path(driver.prepare(ID, CHAIN[:1], 0, MAP).upper)
    assert (upper.stat().st_uid, upper.stat().st_mode & 0o777) == (UID + 3, 0o751)
    assert (upper.parent.stat().st_uid, upper.parent.stat().st_mode & 0o777) == (0, 0o700)
    driver.close()


def test_ids() -> None:
    found = IdMap([Extent(0, 100, 10), Extent(10, 300, 5)], [Extent(0, 200, 10)])
    assert found.root == (100, 200)
    assert found.outside(12, 3) == (302, 203)
    assert found.outside(15, 10) == (100, 200)
    assert found.inverse().inverse() == found
    assert found.inverse().outside(302, 209) == (12, 9)
