"""One suite over every snapshot driver: layers, containers, differences, views, quotas."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import io
import os
import socket
import stat
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pier.errors import PierError
from pier.kernel import mounts, namespaces
from pier.kernel.mounts import mount_overlay
from pier.kernel.paths import closing
from pier.oci import Digest, chain_ids
from pier.runtime.request import OverlayRoot, StartRequest
from pier.storage import Setup, Snapshotter, choose_driver, copy_tree, folder_driver, overlay_view, project_quota
from pier.storage.changes import Kind
from pier.storage.errors import BadArchive, ContentMismatch
from pier.storage.folder_driver import LayerNotFound, SnapshotExists, SnapshotNotFound
from pier.storage.snapshots import DRIVERS
from pier.storage.tar_writer import TarWriter
from pier.storage.tree_tar import write_tree

from .archives import archive, directory, hard_link, member, symlink
from .filesystems import mounted

pytestmark = pytest.mark.root

KINDS = ["overlay2", "vfs", "overlay2 on xfs", "vfs on xfs", "btrfs on btrfs"]
BASE = archive(
    [
        directory("./", mode=0o751, uid=3),
        directory("etc"),
        member("etc/a", data=b"base", xattrs={"user.colour": "red"}),
        member("etc/b", data=b"below"),
        hard_link("etc/c", "etc/b"),
        directory("gone"),
        member("gone/inner", data=b"x"),
        directory("emptied"),
        member("emptied/one", data=b"1"),
        symlink("link", "etc/a"),
    ]
)
TOP = archive(
    [member("etc/a", data=b"on top"), member(".wh.gone"), member("emptied/.wh..wh..opq"), member("emptied/two")]
)
CHAIN = chain_ids([Digest.of(BASE), Digest.of(TOP)])
ID = "c" * 64


@dataclasses.dataclass
class House:
    """A driver, and a way to write into its containers as they would."""

    driver: Snapshotter
    root: Path

    def unpack(self) -> None:
        assert self.driver.unpack(CHAIN[0], None, io.BytesIO(BASE)) == Digest.of(BASE)
        assert self.driver.unpack(CHAIN[1], CHAIN[0], io.BytesIO(gzip.compress(TOP))) == Digest.of(TOP)

    @contextlib.contextmanager
    def inside(self, layers: list[Digest], id: str = ID) -> Iterator[Path]:
        """The container's root as the container has it."""
        root = self.driver.root(id, layers)
        if not isinstance(root, OverlayRoot):
            yield Path(root.path)
            return
        with closing(mount_overlay(root.lower, root.upper, root.work)) as fd:
            yield Path(f"/proc/self/fd/{fd}")


@pytest.fixture(params=KINDS)
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[House]:
    name, _, filesystem = request.param.partition(" on ")
    with contextlib.ExitStack() as stack:
        root = stack.enter_context(mounted(filesystem)) if filesystem else tmp_path
        driver = choose_driver(str(root / "data"), name)
        stack.callback(driver.close)
        assert driver.name == name
        yield House(driver, root / "data")


def tree(path: Path | str) -> dict[str, Any]:
    """Everything below a directory that matters to a program."""
    found = {}
    for folder, dirs, files in os.walk(path):
        for name in dirs + files:
            where = os.path.join(folder, name)
            info = os.lstat(where)
            kind = stat.S_IFMT(info.st_mode)
            content: Any = ""
            if kind == stat.S_IFREG:
                content = Path(where).read_bytes()
            elif kind == stat.S_IFLNK:
                content = os.readlink(where)
            xattrs = {
                key: os.getxattr(where, key, follow_symlinks=False)
                for key in os.listxattr(where, follow_symlinks=False)
            }
            times = info.st_mtime_ns if kind == stat.S_IFREG else 0
            found[os.path.relpath(where, path)] = (oct(info.st_mode), info.st_uid, info.st_gid, times, content, xattrs)
    return found


def folders(house: House) -> dict[str, list[str]]:
    house.driver.close()
    return {name: os.listdir(house.root / "snapshots" / house.driver.name / name) for name in folder_driver.FOLDERS}


def written(house: House, layers: list[Digest]) -> bytes:
    out = io.BytesIO()
    house.driver.diff(ID, layers, out)
    return out.getvalue()


def names(data: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return tar.getnames()


def test_layers_make_one_tree(house: House) -> None:
    house.unpack()
    house.driver.prepare(ID, CHAIN)
    with house.inside(CHAIN) as root:
        assert sorted(os.listdir(root)) == ["emptied", "etc", "link"]
        assert (root / "etc/a").read_bytes() == b"on top"
        assert os.listdir(root / "emptied") == ["two"]
        assert (root / "etc/b").stat().st_nlink == 2
        assert (stat.S_IMODE(root.stat().st_mode), root.stat().st_uid) == (0o751, 3)
        expected = tree(root)
    with house.driver.layer_view(CHAIN) as fd:
        assert tree(f"/proc/self/fd/{fd}") == expected
    with house.driver.view(ID, CHAIN) as fd:
        assert tree(f"/proc/self/fd/{fd}") == expected
    assert [house.driver.layer_size(chain) for chain in CHAIN] == [len("base" + "below" + "x" + "1" + "etc/a"), 6]
    assert all(house.driver.layer_data(CHAIN).values())
    assert all(
        os.path.exists(path)
        for path in house.driver.container_data(ID, CHAIN)[
            "LowerDir" if house.driver.name == "overlay2" else "dir"
        ].split(":")
    )


def test_a_tree_of_layers_can_be_attached_whole_or_in_part(house: House, tmp_path: Path) -> None:
    house.unpack()
    for subpath, expected in (("", ["emptied", "etc", "link"]), ("etc", ["a", "b", "c"]), ("link", b"on top")):
        with closing(house.driver.layer_mount(CHAIN, subpath)) as mount, ThreadPoolExecutor(1) as aside:
            # A thread's own mount namespace goes with it.
            assert aside.submit(attached, mount, tmp_path / f"at-{subpath}").result() == expected
    with pytest.raises(FileNotFoundError):
        house.driver.layer_mount(CHAIN, "etc/nosuch")


def attached(mount: int, place: Path) -> list[str] | bytes:
    """What is seen at `place` once the mount is there."""
    namespaces.unshare(namespaces.CLONE_NEWNS)
    mounts.mount(None, "/", None, mounts.MS_PRIVATE | mounts.MS_REC)
    folder = stat.S_ISDIR(os.fstat(mount).st_mode)
    place.mkdir() if folder else place.touch()
    with closing(os.open(place, os.O_PATH)) as at:
        mounts.move_mount(mount, at)
    return sorted(os.listdir(place)) if folder else place.read_bytes()


def edit(root: Path) -> None:
    """What a busy container does."""
    (root / "etc/a").write_bytes(b"mine")
    (root / "etc/b").unlink()
    (root / "new").mkdir(mode=0o700)
    (root / "new/deep").mkdir()
    (root / "new/deep/file").write_bytes(b"fresh")
    os.link(root / "new/deep/file", root / "new/twin")
    os.symlink("nowhere", root / "new/sym")
    os.mkfifo(root / "new/fifo")
    os.mknod(root / "new/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.chmod(root / "emptied", 0o1777)
    os.setxattr(root / "new/deep/file", "user.x", b"\0y")
    os.chown(root / "new/deep/file", 4_000_000_000, 1000)
    os.utime(root / "new/deep/file", ns=(1, -1_500_000_001))
    (root / "emptied/two").unlink()
    (root / "link").unlink()
    (root / "link").mkdir()
    with socket.socket(socket.AF_UNIX) as sock:
        here = os.open(root / "new", os.O_RDONLY)
        sock.bind(f"/proc/self/fd/{here}/sock")
        os.close(here)


def test_a_diff_on_its_layers_is_the_container(house: House) -> None:
    house.unpack()
    house.driver.prepare(ID, CHAIN)
    with house.inside(CHAIN) as root:
        edit(root)
        expected = tree(root)
    assert expected.pop("new/sock")
    out = io.BytesIO()
    diffed = house.driver.diff(ID, CHAIN, out)
    assert diffed.skipped == (b"new/sock",)
    assert out.getvalue() == written(house, CHAIN)
    data = out.getvalue()
    assert {"etc/a", "etc/.wh.b", "new/deep/file", "emptied/.wh.two"} <= set(names(data))
    assert "etc/c" not in names(data)
    chain = chain_ids([Digest.of(BASE), Digest.of(TOP), Digest.of(data)])
    house.driver.unpack(chain[-1], CHAIN[-1], io.BytesIO(data))
    other = "d" * 64
    house.driver.prepare(other, chain)
    with house.inside(chain, other) as root:
        found = tree(root)
        assert (root / "new/twin").stat().st_ino == (root / "new/deep/file").stat().st_ino
    assert found == expected


def test_changes_are_those_that_docker_lists(house: House) -> None:
    house.unpack()
    house.driver.prepare(ID, CHAIN)
    with house.inside(CHAIN) as root:
        (root / "etc/a").write_bytes(b"mine")
        (root / "etc/b").unlink()
        (root / "new").write_bytes(b"")
        (root / "emptied/two").unlink()
    assert [(change.path, change.kind) for change in house.driver.changes(ID, CHAIN)] == [
        (b"/emptied", Kind.MODIFIED),
        (b"/emptied/two", Kind.DELETED),
        (b"/etc", Kind.MODIFIED),
        (b"/etc/a", Kind.MODIFIED),
        (b"/etc/b", Kind.DELETED),
        (b"/new", Kind.ADDED),
    ]


def test_a_directory_replaced_by_another_hides_the_old_one(house: House) -> None:
    house.unpack()
    house.driver.prepare(ID, CHAIN[:1])
    with house.inside(CHAIN[:1]) as root:
        (root / "gone/inner").unlink()
        (root / "gone").rmdir()
        (root / "gone").mkdir()
        (root / "gone/other").write_bytes(b"o")
    data = written(house, CHAIN[:1])
    chain = chain_ids([Digest.of(BASE), Digest.of(data)])
    house.driver.unpack(chain[1], chain[0], io.BytesIO(data))
    with house.driver.layer_view(chain) as fd:
        assert os.listdir(f"/proc/self/fd/{fd}/gone") == ["other"]


def test_nothing_changed_is_an_empty_layer(house: House) -> None:
    house.unpack()
    house.driver.prepare(ID, CHAIN)
    assert names(written(house, CHAIN)) == []
    assert house.driver.changes(ID, CHAIN) == []
    assert house.driver.usage(ID, CHAIN) == 0


def test_a_changed_root_directory_is_in_the_layer(house: House) -> None:
    house.driver.prepare(ID, [])
    with house.inside([]) as root:
        os.chmod(root, 0o711)
    data = written(house, []) if house.driver.name != "overlay2" else None
    house.unpack()
    other = "e" * 64
    house.driver.prepare(other, CHAIN[:1])
    with house.inside(CHAIN[:1], other) as root:
        os.chmod(root, 0o711)
    out = io.BytesIO()
    house.driver.diff(other, CHAIN[:1], out)
    assert names(out.getvalue()) == ["."]
    assert data is None or names(data) == ["."]


def test_trap_13_usage_counts_blocks_not_lengths(house: House) -> None:
    house.driver.prepare(ID, [])
    with house.inside([]) as root:
        (root / "f").write_bytes(b"x" * 12345)
        with (root / "sparse").open("wb") as file:
            file.truncate(1 << 30)
            file.write(b"y")
    os.sync()
    used = house.driver.usage(ID, [])
    assert 12345 < used <= 12345 + (1 << 17)


def test_bad_layers_leave_nothing(house: House) -> None:
    for data in (BASE[:700], BASE[:3000]):
        with pytest.raises((BadArchive, ContentMismatch)):
            house.driver.unpack(CHAIN[0], None, io.BytesIO(data))
    with pytest.raises(ContentMismatch):
        house.driver.unpack(CHAIN[1], None, io.BytesIO(TOP))
    with pytest.raises(LayerNotFound):
        house.driver.unpack(CHAIN[1], CHAIN[0], io.BytesIO(TOP))
    with pytest.raises(LayerNotFound):
        house.driver.prepare(ID, CHAIN)
    assert all(not found for found in folders(house).values())


def test_containers_once_and_gone(house: House) -> None:
    house.unpack()
    with pytest.raises(SnapshotNotFound):
        house.driver.root(ID, CHAIN)
    house.driver.prepare(ID, CHAIN)
    with pytest.raises(SnapshotExists):
        house.driver.prepare(ID, CHAIN)
    assert house.driver.claims() == {ID: CHAIN}
    assert house.driver.sweep_layers([]) == set()
    house.driver.remove(ID)
    house.driver.remove(ID)
    assert house.driver.sweep_layers([CHAIN[0]]) == {CHAIN[1]}
    assert (house.driver.has_layer(CHAIN[0]), house.driver.has_layer(CHAIN[1])) == (True, False)
    found = folders(house)
    assert (found["layers"], found["containers"], found["partial"], found["trash"]) == ([CHAIN[0].hex], [], [], [])


def test_attack_23_nobody_else_can_look_in(house: House) -> None:
    house.unpack()
    house.driver.prepare(ID, CHAIN)
    for path in ("snapshots", f"snapshots/{house.driver.name}", f"snapshots/{house.driver.name}/layers"):
        assert stat.S_IMODE((house.root / path).stat().st_mode) == 0o700, path


def test_a_root_travels_to_the_runtime(house: House) -> None:
    root = house.driver.prepare(ID, [])
    request = StartRequest(id=ID, spec={}, root=root, exec_dir="/x", exit_file="/y")
    assert StartRequest.from_json(request.to_json()).root == root


def test_attack_10_whiteouts_reach_nothing_outside(house: House) -> None:
    canary = house.root / "canary"
    canary.mkdir(parents=True)
    (canary / "file").write_bytes(b"untouched")
    hostile = [
        archive([symlink("out", str(canary)), member("out/.wh.file")]),
        archive([symlink("out", "../../../../../../canary"), member("out/.wh..wh..opq")]),
        archive([member("../.wh.canary")]),
        archive([symlink("out", str(canary)), directory("out/x"), member("out/x/.wh..wh..opq")]),
    ]
    for data in hostile:
        with contextlib.suppress(PierError):
            house.driver.unpack(Digest.of(data), None, io.BytesIO(data))
    assert (canary / "file").read_bytes() == b"untouched"
    assert os.listdir(canary) == ["file"]


def test_export_is_the_whole_tree_and_comes_back(house: House) -> None:
    house.unpack()
    house.driver.prepare(ID, CHAIN)
    with house.inside(CHAIN) as root:
        edit(root)
        (root / "new/sock").unlink()
        expected = tree(root)
    out = io.BytesIO()
    with house.driver.view(ID, CHAIN) as fd:
        write_tree(fd, TarWriter(out))
    layer = out.getvalue()
    house.driver.unpack(Digest.of(layer), None, io.BytesIO(layer))
    with house.driver.layer_view([Digest.of(layer)]) as fd:
        assert tree(f"/proc/self/fd/{fd}") == expected


# --- one driver's own


@pytest.mark.parametrize("count", [1, 2, 500])
def test_overlay2_stacks_five_hundred_layers(tmp_path: Path, count: int) -> None:
    driver = choose_driver(str(tmp_path), "overlay2")
    layers = [
        archive([member(f"f{number}", data=b"%d" % number), member("same", data=b"%d" % number)])
        for number in range(count)
    ]
    chain = chain_ids([Digest.of(layer) for layer in layers])
    for number, layer in enumerate(layers):
        driver.unpack(chain[number], chain[number - 1] if number else None, io.BytesIO(layer))
    root = driver.prepare(ID, chain)
    assert isinstance(root, OverlayRoot)
    with closing(mount_overlay(root.lower, root.upper, root.work)) as fd:
        assert len(os.listdir(f"/proc/self/fd/{fd}")) == count + 1
        assert Path(f"/proc/self/fd/{fd}/same").read_text() == str(count - 1)
        Path(f"/proc/self/fd/{fd}/f0").unlink()
    with driver.view(ID, chain) as view_fd:  # one directory more than an overlay takes
        assert len(os.listdir(view_fd)) == count
    assert [change.path for change in driver.changes(ID, chain)] == [b"/f0"]
    driver.close()


def test_overlay2_refuses_more_layers_than_the_kernel_stacks(tmp_path: Path) -> None:
    driver = choose_driver(str(tmp_path), "overlay2")
    data = archive([member("f")])
    driver.unpack(Digest.of(data), None, io.BytesIO(data))
    with pytest.raises(PierError, match="501 layers, and overlayfs takes 500"):
        driver.prepare(ID, [Digest.of(data)] * 501)
    driver.close()


def test_a_view_on_a_kernel_before_6_7(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pier.kernel.mounts.kernel_version", lambda: (6, 1))
    for name in ("a", "b", "empty"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text(name)
    before = Path("/proc/self/mountinfo").read_text()
    with overlay_view.view([str(tmp_path / "a"), str(tmp_path / "b")], str(tmp_path / "empty")) as fd:
        assert sorted(os.listdir(fd)) == ["a", "b"]
        assert Path("/proc/self/mountinfo").read_text() == before


def test_renamed_directories_and_metadata_copies_are_taken_whole(tmp_path: Path) -> None:
    driver = choose_driver(str(tmp_path), "overlay2")
    driver.unpack(CHAIN[0], None, io.BytesIO(BASE))
    root = driver.prepare(ID, CHAIN[:1])
    assert isinstance(root, OverlayRoot)
    extra: list[tuple[str, str | None]] = [("redirect_dir", "on"), ("metacopy", "on")]
    with closing(mount_overlay(root.lower, root.upper, root.work, extra)) as fd:
        inside = Path(f"/proc/self/fd/{fd}")
        (inside / "gone").rename(inside / "moved")
        os.chmod(inside / "etc/a", 0o600)
        expected = tree(inside)
    assert b"trusted.overlay.redirect" in map(os.fsencode, os.listxattr(os.path.join(root.upper, "moved")))
    assert b"trusted.overlay.metacopy" in map(os.fsencode, os.listxattr(os.path.join(root.upper, "etc/a")))
    out = io.BytesIO()
    driver.diff(ID, CHAIN[:1], out)
    chain = chain_ids([Digest.of(BASE), Digest.of(out.getvalue())])
    driver.unpack(chain[1], chain[0], io.BytesIO(out.getvalue()))
    with driver.layer_view(chain) as view_fd:
        assert tree(f"/proc/self/fd/{view_fd}") == expected
    driver.close()


@pytest.mark.parametrize(("filesystem", "shares"), [("xfs", True), ("btrfs", True), ("ext4", False)])
def test_vfs_copies_share_their_data_where_the_file_system_can(filesystem: str, shares: bool) -> None:
    with mounted(filesystem) as root:
        assert copy_tree.can_clone(str(root)) is shares
        driver = choose_driver(str(root / "data"), "vfs")
        data = archive([member("big", data=os.urandom(8 << 20))])
        driver.unpack(Digest.of(data), None, io.BytesIO(data))
        os.sync()
        before = os.statvfs(root).f_bavail * os.statvfs(root).f_bsize
        driver.prepare(ID, [Digest.of(data)])
        os.sync()
        taken = before - os.statvfs(root).f_bavail * os.statvfs(root).f_bsize
        assert (taken < 4 << 20) is shares
        driver.close()


FULL = "No space left|Disk quota exceeded"


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        for _ in range(20):
            file.write(bytes(1 << 20))
            os.fsync(file.fileno())


@pytest.mark.parametrize(
    "kind", ["overlay2 on xfs with quotas", "overlay2 on ext4 with quotas", "vfs on xfs with quotas", "btrfs on btrfs"]
)
def test_a_size_is_a_bound(kind: str) -> None:
    name, _, filesystem = kind.partition(" on ")
    with mounted(filesystem) as root, contextlib.ExitStack() as stack:
        driver = choose_driver(str(root / "data"), name)
        stack.callback(driver.close)
        house = House(driver, root / "data")
        house.unpack()
        driver.prepare(ID, CHAIN, 4 << 20)
        driver.prepare("f" * 64, CHAIN, 8 << 20)
        with house.inside(CHAIN) as inside, pytest.raises(OSError, match=FULL):
            fill(inside / "big")
        with house.inside(CHAIN, "f" * 64) as inside:
            (inside / "fits").write_bytes(bytes(5 << 20))


@pytest.mark.parametrize("kind", ["overlay2 on xfs", "vfs on ext4"])
def test_a_size_is_refused_where_it_cannot_be_kept(kind: str) -> None:
    name, _, filesystem = kind.partition(" on ")
    with mounted(filesystem) as root, contextlib.closing(choose_driver(str(root / "data"), name)) as driver:
        with pytest.raises(project_quota.QuotaUnavailable) as caught:
            driver.prepare(ID, [], 4 << 20)
        assert "--storage-opt is supported only for overlay over xfs with 'pquota' mount option" in str(caught.value)
        assert "no project quotas switched on" in str(caught.value)
        assert driver.claims() == {}


def test_a_size_for_every_container_and_unknown_options(tmp_path: Path) -> None:
    with mounted("xfs with quotas") as root:
        setup = Setup(options=("overlay2.size=4M",))
        with contextlib.closing(choose_driver(str(root / "data"), "overlay2", setup=setup)) as driver:
            house = House(driver, root / "data")
            house.unpack()
            driver.prepare(ID, CHAIN)
            with house.inside(CHAIN) as inside, pytest.raises(OSError, match=FULL):
                (inside / "big").write_bytes(bytes(8 << 20))
    with pytest.raises(PierError, match=r"unknown option 'dm.basesize=20G'"):
        choose_driver(str(tmp_path), "overlay2", setup=Setup(options=("dm.basesize=20G",)))


def test_trap_01_every_driver_says_where_it_works(tmp_path: Path) -> None:
    assert {name: bool(driver.probe(str(tmp_path))) for name, driver in DRIVERS.items()} == {
        "overlay2": False,
        "btrfs": True,
        "vfs": False,
    }
    with pytest.raises(PierError, match=r"the data root is not on btrfs. Available here: overlay2, vfs. Not available"):
        choose_driver(str(tmp_path), "btrfs")


def test_the_driver_that_holds_layers_is_chosen_again(tmp_path: Path) -> None:
    choices: list[Callable[[], Snapshotter]] = [
        lambda: choose_driver(str(tmp_path), "vfs"),
        lambda: choose_driver(str(tmp_path)),
    ]
    data = archive([member("f")])
    for choice in choices:
        driver = choice()
        assert driver.name == "vfs"
        driver.unpack(Digest.of(data), None, io.BytesIO(data))
        driver.close()


def test_what_the_engine_mounts_on_is_no_change(house: House) -> None:
    house.unpack()
    house.driver.prepare(ID, CHAIN)
    with house.inside(CHAIN) as root:
        for name in ("etc/hosts", "etc/hostname", "etc/resolv.conf"):
            (root / name).write_bytes(b"")
        for name in ("dev", "proc", "sys"):
            (root / name).mkdir()
    assert house.driver.changes(ID, CHAIN) == []
    assert names(written(house, CHAIN)) == []
    with house.inside(CHAIN) as root:
        (root / "etc/hosts").write_bytes(b"127.0.0.1 a")
        (root / "proc/mine").write_bytes(b"")
    assert [change.path for change in house.driver.changes(ID, CHAIN)] == [
        b"/etc",
        b"/etc/hosts",
        b"/proc",
        b"/proc/mine",
    ]
    assert names(written(house, CHAIN)) == ["etc", "etc/hosts", "proc", "proc/mine"]


def test_mount_points_hide_no_change_of_their_folder(house: House) -> None:
    house.unpack()
    house.driver.prepare(ID, CHAIN)
    with house.inside(CHAIN) as root:
        (root / "etc").chmod(0o700)
        (root / "etc/hosts").write_bytes(b"")
    assert [change.path for change in house.driver.changes(ID, CHAIN)] == [b"/etc"]
    assert names(written(house, CHAIN)) == ["etc"]


def test_a_folder_made_for_mount_points_is_no_change_either(house: House) -> None:
    house.driver.prepare(ID, [])
    with house.inside([]) as root:
        (root / "etc").mkdir(0o755)
        (root / "etc").chmod(0o755)
        (root / "etc/hosts").write_bytes(b"")
    assert house.driver.changes(ID, []) == []
