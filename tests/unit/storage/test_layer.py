"""The layer extractor: what it makes, and what hostile archives do not get it to do (attack 10)."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pier.kernel import paths
from pier.storage import layer
from pier.storage.errors import BadArchive, HostileEntry, TooLarge
from pier.storage.layer import LayerLimits, Unpacked
from pier.storage.tar import TarLimits

from .archives import archive, directory, hard_link, member, symlink

pytestmark = pytest.mark.root

FIFO, CHAR, BLOCK = tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE


def unpack(root: Path, *members: tuple[tarfile.TarInfo, bytes], limits: LayerLimits | None = None) -> Unpacked:
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return layer.unpack(io.BytesIO(archive(members)), fd, limits or LayerLimits())
    finally:
        os.close(fd)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root"
    path.mkdir()
    return path


# --- what it makes


def test_files_have_content_owner_mode_and_time_to_the_nanosecond(root: Path) -> None:
    result = unpack(
        root, member("a/b", data=b"hello", mode=0o4751, uid=70000, gid=2**32 - 2, mtime=1234567890.123456789)
    )
    info = (root / "a/b").stat()
    assert (root / "a/b").read_bytes() == b"hello"
    assert (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid) == (0o4751, 70000, 2**32 - 2)
    assert abs(info.st_mtime_ns - 1234567890_123456789) < 200  # the writer's float, not ours
    assert stat.S_IMODE((root / "a").stat().st_mode) == 0o755
    assert result == Unpacked(5, 1, frozenset([b"a"]))


def test_directory_times_survive_what_is_made_in_them(root: Path) -> None:
    unpack(root, directory("d", mtime=1000), directory("d/e", mtime=2000), member("d/e/f", data=b"x"), member("d/g"))
    assert (root / "d").stat().st_mtime == 1000
    assert (root / "d/e").stat().st_mtime == 2000


def test_links_devices_and_fifos(root: Path) -> None:
    unpack(
        root,
        member("file", data=b"x"),
        symlink("soft", "/etc/passwd"),
        hard_link("hard", "file"),
        hard_link("soft2", "soft"),
        member("fifo", kind=FIFO, mode=0o622),
        member("null", kind=CHAR, device=(1, 3), mode=0o666),
        member("disk", kind=BLOCK, device=(300, 70000)),
    )
    assert os.readlink(root / "soft") == "/etc/passwd"
    assert (root / "hard").stat().st_ino == (root / "file").stat().st_ino
    assert os.readlink(root / "soft2") == "/etc/passwd"
    assert stat.S_ISFIFO((root / "fifo").stat().st_mode)
    assert stat.S_IMODE((root / "fifo").stat().st_mode) == 0o622
    assert (root / "null").stat().st_rdev == os.makedev(1, 3)
    disk = (root / "disk").stat()
    assert stat.S_ISBLK(disk.st_mode)
    assert (os.major(disk.st_rdev), os.minor(disk.st_rdev)) == (300, 70000)


def test_extended_attributes_but_for_overlayfs_own_orders(root: Path) -> None:
    capability = b"\x01\x00\x00\x02\x00\x04\x00\x00" + bytes(12)  # VFS_CAP_REVISION_2 | effective, CAP_NET_BIND_SERVICE
    attributes = {
        "security.capability": capability.decode("latin-1"),
        "user.note": "kept",
        "trusted.overlay.redirect": "/etc",
        "trusted.overlay.metacopy": "",
    }
    unpack(
        root,
        member("bin", data=b"x", uid=5, xattrs=attributes),
        directory("dir", xattrs={"trusted.overlay.opaque": "y"}),
    )
    assert os.getxattr(root / "bin", "security.capability") == capability
    assert os.getxattr(root / "bin", "user.note") == b"kept"
    assert not [name for path in ("bin", "dir") for name in os.listxattr(root / path) if "overlay" in name]


def test_root_entry_sets_the_root_s_own_attributes(root: Path) -> None:
    unpack(root, directory("./", mode=0o1777, uid=3, mtime=77))
    assert (stat.S_IMODE(root.stat().st_mode), root.stat().st_uid, root.stat().st_mtime) == (0o1777, 3, 77)


def test_later_entries_replace_earlier_ones(root: Path) -> None:
    unpack(
        root,
        directory("d"),
        member("d/old", data=b"old"),
        member("d", data=b"now a file"),
        member("f", data=b"1"),
        directory("f"),
        member("f/in", data=b"2"),
        symlink("l", "f"),
        member("l", data=b"3"),
    )
    assert (root / "d").read_bytes() == b"now a file"
    assert (root / "f/in").read_bytes() == b"2"
    assert (root / "l").read_bytes() == b"3"
    assert sorted(os.listdir(root / "f")) == ["in"]


def test_a_directory_that_is_replaced_is_not_written_to_any_more(root: Path) -> None:
    """The descriptor of `d` is kept open between entries: it must not outlive the directory's name."""
    unpack(
        root,
        directory("d"),
        member("d/1"),
        symlink("d", "e"),
        directory("e"),
        member("d/2", data=b"in e"),
        member("e/3"),
    )
    assert os.readlink(root / "d") == "e"
    assert sorted(os.listdir(root / "e")) == ["2", "3"]


# --- whiteouts


def is_whiteout(path: Path) -> bool:
    info = path.lstat()
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0


def is_opaque(path: Path) -> bool:
    return "trusted.overlay.opaque" in os.listxattr(path)


def test_whiteouts_and_opaque_directories_in_overlayfs_form(root: Path) -> None:
    unpack(
        root, member("a/.wh.gone"), directory("b"), member("b/.wh..wh..opq"), member("b/kept"), member("b/.wh..wh.plnk")
    )
    assert is_whiteout(root / "a/gone")
    assert is_opaque(root / "b")
    assert not is_opaque(root / "a")
    assert sorted(os.listdir(root / "b")) == ["kept"]


@pytest.mark.parametrize("whiteout_first", [True, False])
def test_a_whiteout_hides_lower_layers_only(root: Path, whiteout_first: bool) -> None:
    made = [directory("d"), member("d/new"), member("f", data=b"new")]
    hidden = [member(".wh.d"), member(".wh.f")]
    unpack(root, *(hidden + made if whiteout_first else made + hidden))
    assert is_opaque(root / "d")
    assert (root / "d/new").exists()
    assert (root / "f").read_bytes() == b"new"


# --- attack 10

HOSTILE: dict[str, list[tuple[tarfile.TarInfo, bytes]]] = {
    "parent in front": [member("../canary/file", data=b"owned")],
    "parent in the middle": [directory("a"), member("a/../../canary/file", data=b"owned")],
    "parent at the end": [directory("a/..")],
    "absolute and parent": [member("/../../../../etc/pier-canary", data=b"owned")],
    "whiteout of the parent": [member(".wh...")],
    "whiteout of the directory": [directory("a"), member("a/.wh..")],
    "whiteout of nothing": [member(".wh.")],
    "opaque marker above": [member("../canary/.wh..wh..opq")],
    "whiteout above": [member("../canary/.wh.file")],
    "hard link to a parent": [hard_link("h", "../canary/file")],
    "hard link to an absolute host file": [hard_link("h", "{canary}/file"), member("h", data=b"owned")],
    "hard link through a link": [symlink("s", "{canary}"), hard_link("h", "s/file")],
    "hard link through a relative link": [symlink("s", "../canary"), hard_link("h", "s/file")],
    "hard link to nothing": [hard_link("h", "missing")],
    "hard link to the root": [hard_link("h", "/")],
    "hard link to a directory": [directory("d"), hard_link("h", "d")],
    "file as a directory": [member("f"), member("f/x")],
    "link to itself": [symlink("s", "s"), member("s/x")],
    "the root as a file": [member("./", kind=tarfile.SYMTYPE, link="/etc")],
    "a name of 300 bytes": [member("n" * 300)],
    "a thousand directories": [member("d/" * 1500 + "f")],
}
CONFINED: dict[str, list[tuple[tarfile.TarInfo, bytes]]] = {
    "absolute name": [member("{canary}/file", data=b"owned")],
    "through an absolute link": [symlink("s", "{canary}"), member("s/file", data=b"owned")],
    "through a relative link": [symlink("s", "../canary"), member("s/file", data=b"owned")],
    "through a chain of links": [symlink("a", "/"), symlink("b", "a/../.."), member("b/{canary}/file", data=b"owned")],
    "through a link to proc": [symlink("s", "/proc/self/root/{canary}"), member("s/file", data=b"owned")],
    "link replaced by a file": [symlink("s", "{canary}/file"), member("s", data=b"owned")],
    "mode of a link's target": [symlink("s", "{canary}/file"), member("s", mode=0o6777, data=b"x")],
    "directory over a link": [symlink("s", "{canary}"), directory("s", mode=0o777, uid=9), member("s/file", data=b"o")],
    "whiteout through a link": [symlink("s", "{canary}"), member("s/.wh.file")],
    "opaque through a link": [symlink("s", "{canary}"), member("s/.wh..wh..opq")],
    "hard link to a link": [symlink("s", "{canary}/file"), hard_link("h", "s"), member("h", data=b"owned")],
    "device over a link": [symlink("s", "{canary}/file"), member("s", kind=CHAR, device=(1, 3), mode=0o777)],
    "fifo through a link": [symlink("s", "{canary}"), member("s/file", kind=FIFO)],
    "set-id through a link": [symlink("s", "{canary}"), member("s/su", data=b"x", mode=0o4755)],
    "xattr on a link": [member("s", kind=tarfile.SYMTYPE, link="{canary}/file", xattrs={"user.owned": "1"})],
}


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """A tree beside the root that must be the same afterwards, to the last attribute."""
    path = tmp_path / "canary"
    path.mkdir(mode=0o750)
    (path / "file").write_bytes(b"untouched")
    os.chmod(path / "file", 0o640)
    before = picture(path)
    yield path
    assert picture(path) == before
    assert not os.path.exists("/etc/pier-canary")


def picture(path: Path) -> list[object]:
    found: list[object] = []
    for item in (path, *sorted(path.rglob("*"))):
        info = item.lstat()
        identity = (str(item), info.st_mode, info.st_uid, info.st_gid, info.st_nlink, info.st_ino, info.st_mtime_ns)
        found.append((identity, os.listxattr(item), item.read_bytes() if item.is_file() else b""))
    return found


def aimed(members: list[tuple[tarfile.TarInfo, bytes]], canary: Path) -> list[tuple[tarfile.TarInfo, bytes]]:
    """The entries with `{canary}` filled in; fresh headers, since writing an archive changes them."""
    found = []
    for info, data in members:
        copy = tarfile.TarInfo(info.name.replace("{canary}", str(canary)))
        for field in ("type", "size", "mode", "uid", "mtime", "devmajor", "devminor", "pax_headers"):
            setattr(copy, field, getattr(info, field))
        copy.linkname = info.linkname.replace("{canary}", str(canary))
        found.append((copy, data))
    return found


@pytest.mark.parametrize("members", HOSTILE.values(), ids=HOSTILE)
def test_attack_10_hostile_entries_are_refused(
    members: list[tuple[tarfile.TarInfo, bytes]], root: Path, canary: Path
) -> None:
    with pytest.raises((HostileEntry, BadArchive)):
        unpack(root, *aimed(members, canary))


@pytest.mark.parametrize("members", CONFINED.values(), ids=CONFINED)
def test_attack_10_entries_that_aim_outside_stay_inside(
    members: list[tuple[tarfile.TarInfo, bytes]], root: Path, canary: Path
) -> None:
    with contextlib.suppress(BadArchive):  # an entry may be refused too; that the canary lives is what counts
        unpack(root, *aimed(members, canary))


def test_attack_10_without_openat2(root: Path, canary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fallback for old kernels is confined as well."""

    def missing(*_: object) -> int:
        raise OSError(errno.ENOSYS, "openat2")

    monkeypatch.setattr(paths, "openat2", missing)
    for number, members in enumerate([*HOSTILE.values(), *CONFINED.values()]):
        place = root / str(number)
        place.mkdir()
        with contextlib.suppress(BadArchive):
            unpack(place, *aimed(members, canary))


# --- attack 12


def test_attack_12_more_bytes_than_allowed(root: Path) -> None:
    with pytest.raises(TooLarge):
        unpack(root, member("a", data=bytes(600)), member("b", data=bytes(600)), limits=LayerLimits(content_bytes=1000))


def test_attack_12_more_entries_than_allowed(root: Path) -> None:
    with pytest.raises(TooLarge):
        unpack(root, *(member(str(n)) for n in range(11)), limits=LayerLimits(tar=TarLimits(entries=10)))
