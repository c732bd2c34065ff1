"""Forms of tar that are not everyday: sparse files as GNU tar and others write them, access control lists, xattrs."""

from __future__ import annotations

import base64
import io
import os
import shutil
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest

from pier.kernel.paths import closing
from pier.storage import acl, layer
from pier.storage.copy_tree import copy_tree
from pier.storage.errors import BadArchive, TooLarge
from pier.storage.tar import TarReader
from pier.storage.tar_header import Sparse

from .archives import archive, member

pytestmark = pytest.mark.root

MIB = 1 << 20


def unpack(data: bytes, root: Path, whiteouts: layer.Whiteouts = layer.Whiteouts.OVERLAY) -> None:
    root.mkdir(exist_ok=True, parents=True)
    with closing(os.open(root, os.O_RDONLY)) as fd:
        layer.unpack(io.BytesIO(data), fd, whiteouts=whiteouts)


def pax(records: dict[str, str], data: bytes = b"", name: str = "GNUSparseFile.0/f") -> bytes:
    info, content = member(name, data=data)
    info.pax_headers = records
    return archive([(info, content), member("after", data=b"next")])


@pytest.mark.parametrize(
    "form", ["gnu", "pax --sparse-version=0.0", "pax --sparse-version=0.1", "pax --sparse-version=1.0"]
)
@pytest.mark.parametrize(
    "pieces", [[], [(0, b"start")], [(3 * MIB, b"x")], [(n * MIB, b"%d" % n * 900) for n in range(60)]]
)
def test_sparse_files_of_gnu_tar(form: str, pieces: list[tuple[int, bytes]], tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with (source / "f").open("wb") as file:
        file.truncate(64 * MIB)
        for offset, data in pieces:
            file.seek(offset)
            file.write(data)
    (source / "z").write_bytes(b"after")
    if shutil.which("tar") is None:
        pytest.skip("no tar")
    command = ["tar", "-C", str(source), *f"--sparse --format={form}".split(), "-cf", "-", "f", "z"]
    data = subprocess.run(command, check=True, capture_output=True).stdout
    assert len(data) < 2 * MIB
    unpack(data, tmp_path / "root")
    assert (tmp_path / "root/f").read_bytes() == (source / "f").read_bytes()
    assert (tmp_path / "root/z").read_bytes() == b"after"
    assert (tmp_path / "root/f").stat().st_blocks * 512 < 2 * MIB


def test_an_empty_sparse_file_and_one_without_holes(tmp_path: Path) -> None:
    data = pax(
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "4", "GNU.sparse.name": "f"},
        b"1\n0\n4\n".ljust(512, b"\0") + b"data",
    )
    [entry, _] = list(TarReader(io.BytesIO(data)))
    assert (entry.name, entry.size, entry.sparse) == (b"f", 4, Sparse(4, ((0, 4),)))
    unpack(data, tmp_path / "root")
    assert (tmp_path / "root/f").read_bytes() == b"data"


@pytest.mark.parametrize(
    ("records", "data"),
    [
        ({"GNU.sparse.map": "0,4", "GNU.sparse.size": "2"}, b"data"),
        ({"GNU.sparse.map": "0,3,1,1", "GNU.sparse.size": "9"}, b"data"),
        ({"GNU.sparse.map": "5,2,0,2", "GNU.sparse.size": "9"}, b"data"),
        ({"GNU.sparse.map": "0,400", "GNU.sparse.size": "900"}, b"data"),
        ({"GNU.sparse.map": "0", "GNU.sparse.size": "900"}, b"data"),
        ({"GNU.sparse.map": "0,-4", "GNU.sparse.size": "900"}, b"data"),
        ({"GNU.sparse.map": "0,4", "GNU.sparse.size": "9999999999999999999999"}, b"data"),
        ({"GNU.sparse.map": "0,4", "GNU.sparse.size": ""}, b"data"),
        ({"GNU.sparse.major": "2", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9"}, b"data"),
        ({"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9"}, b"data"),
        ({"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9"}, b"9999999\n" * 64),
        (
            {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9"},
            b"3\n0\n1\n2\n".ljust(512, b"\0"),
        ),
        ({"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9"}, b"x" * 512),
    ],
)
def test_attack_12_maps_that_lie(records: dict[str, str], data: bytes) -> None:
    with pytest.raises(BadArchive):
        list(TarReader(io.BytesIO(pax(records, data))))


def test_attack_12_a_huge_sparse_file_counts_as_what_it_looks_like(tmp_path: Path) -> None:
    data = pax({"GNU.sparse.map": "0,4", "GNU.sparse.size": str(1 << 50)}, b"data")
    with pytest.raises(TooLarge, match="bytes unpacked"):
        unpack(data, tmp_path / "root")


def test_access_control_lists_as_text(tmp_path: Path) -> None:
    text = "user::rw-,user:lisbeth:r--:1234,group::r--,group:nobody-knows:rwx,mask::r--,other::---"
    info, content = member("f", data=b"x", mode=0o640)
    info.pax_headers = {"SCHILY.acl.access": text}
    unpack(archive([(info, content)]), tmp_path / "root")
    value = os.getxattr(tmp_path / "root/f", "system.posix_acl_access")
    entries = [struct.unpack_from("<HHI", value, at) for at in range(4, len(value), 8)]
    assert entries == [(1, 6, 2**32 - 1), (2, 4, 1234), (4, 4, 2**32 - 1), (16, 4, 2**32 - 1), (32, 0, 2**32 - 1)]


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        (b"", 0),
        (b"u::rwx\ng::r-x\no::r-x\n", 3),
        (b"user::rwx # owner\nuser:7:r-x:7,mask:rwx,other:r--", 4),
        (b"user:joe:rwx", 0),
    ],
)
def test_acl_texts(text: bytes, entries: int) -> None:
    assert len(acl.encode(text)) == (4 + 8 * entries if entries else 0)


@pytest.mark.parametrize("text", [b"user::rw", b"nobody::rwx", b"user", b"mask:1:rwx", b"user::rwxx", b"\xff"])
def test_acl_texts_that_are_none(text: bytes) -> None:
    with pytest.raises(BadArchive, match="access control list"):
        acl.encode(text)


def test_xattrs_as_bsdtar_writes_them(tmp_path: Path) -> None:
    info, content = member("f", data=b"x")
    info.pax_headers = {"LIBARCHIVE.xattr.user.a%20b": base64.b64encode(b"\0value").decode().rstrip("=")}
    unpack(archive([(info, content)]), tmp_path / "root")
    assert os.getxattr(tmp_path / "root/f", "user.a b") == b"\0value"
    info.pax_headers = {"LIBARCHIVE.xattr.user.x": "$$$"}
    with pytest.raises(BadArchive, match="damaged xattr"):
        unpack(archive([(info, content)]), tmp_path / "root")


def test_ustar_prefix_and_gnu_long_names(tmp_path: Path) -> None:
    long = "/".join(["directory"] * 15) + "/file"
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        unpack(
            archive([member(long, data=b"x"), member("l" * 90, kind=tarfile.SYMTYPE, link="t" * 95)], form),
            tmp_path / str(form),
        )
        assert (tmp_path / str(form) / long).read_bytes() == b"x"
    unpack(archive([member("n" * 200, kind=tarfile.SYMTYPE, link="t" * 300)], tarfile.GNU_FORMAT), tmp_path / "gnu")
    assert os.readlink(tmp_path / "gnu" / ("n" * 200)) == "t" * 300


ACCESS = struct.pack(
    "<I" + 5 * "HHI", 2, 1, 7, 2**32 - 1, 2, 4, 70_000, 4, 5, 2**32 - 1, 16, 7, 2**32 - 1, 32, 1, 2**32 - 1
)
"""POSIX ACL of version 2: owner rwx, user 70000 r, group r-x, mask rwx, others x (linux/posix_acl_xattr.h)."""
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")


def seen(path: Path) -> tuple[object, ...]:
    info = path.lstat()
    content: object = path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else b""
    xattrs = {key: os.getxattr(path, key, follow_symlinks=False) for key in os.listxattr(path, follow_symlinks=False)}
    return (info.st_mode, info.st_uid, info.st_gid, info.st_mtime_ns, info.st_nlink, info.st_rdev, content, xattrs)


@pytest.mark.parametrize("form", ["v7", "ustar", "oldgnu", "gnu", "pax"])
def test_what_gnu_tar_writes_in_each_of_its_forms(form: str, tmp_path: Path) -> None:
    if shutil.which("tar") is None:
        pytest.skip("no tar")
    source = tmp_path / "source"
    largest = {"v7": 2**21 - 1, "ustar": 2**21 - 1}.get(form, 2**32 - 2)
    longest = {"v7": 90, "ustar": 150}.get(form, 250)
    names = ["plain", "set-id", f"deep/{'n' * (longest - 60)}/{'m' * 40}", "ä ö\n"]
    for number, name in enumerate(names):
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode() * number * 300)
        os.chown(path, largest - number, number)
        path.chmod(0o6755 if name == "set-id" else 0o640)
    os.link(source / "plain", source / "second")
    (source / "link").symlink_to("t" * (200 if largest == 2**32 - 2 else 99))
    if form != "v7":
        os.mkfifo(source / "deep/pipe", 0o600)
        os.mknod(source / "node", 0o020644, os.makedev(4, 200))
    options = [f"--format={form}", "--numeric-owner"]
    if form == "pax":
        options += ["--xattrs", "--xattrs-include=*", "--acls"]
        os.setxattr(source / "plain", "user.note", bytes(range(256)))
        os.setxattr(source / "set-id", "security.capability", CAPABILITY)
        os.setxattr(source / "deep", "system.posix_acl_access", ACCESS)
        os.setxattr(source / "deep", "system.posix_acl_default", ACCESS)
    whole = 0 if form == "pax" else 999_999_999  # the others have no parts of a second
    for path in source.rglob("*"):
        os.utime(path, ns=(0, 1_700_000_000_123_456_789 - 123_456_789 * bool(whole)), follow_symlinks=False)
    command = ["tar", "-C", str(source), *options, "-cf", "-", *sorted(os.listdir(source))]
    data = subprocess.run(command, check=True, capture_output=True).stdout
    expected = {str(path.relative_to(source)): seen(path) for path in source.rglob("*")}
    for whiteouts in layer.Whiteouts:
        root, copy = tmp_path / whiteouts.value, tmp_path / f"copy-{whiteouts.value}"
        copy.mkdir()
        unpack(data, root, whiteouts)
        assert {str(path.relative_to(root)): seen(path) for path in root.rglob("*")} == expected
        with closing(os.open(root, os.O_RDONLY)) as old, closing(os.open(copy, os.O_RDONLY)) as new:
            copy_tree(old, new)
        assert {str(path.relative_to(copy)): seen(path) for path in copy.rglob("*")} == expected
