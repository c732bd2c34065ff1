"""Trees to archives and back: the same tree, the same bytes, and what other readers make of them."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import stat
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pier.kernel.paths import closing
from pier.storage import layer
from pier.storage.copy_tree import copy_tree
from pier.storage.tar import TarReader
from pier.storage.tar_header import DIRECTORY, FIFO, NS, REGULAR, SYMLINK, Entry
from pier.storage.tar_writer import RECORD, TarWriter, encode_header
from pier.storage.tree_diff import compare, write_layer
from pier.storage.tree_tar import DEPTH_MAX, TreeTooDeep, write_tree

pytestmark = pytest.mark.root
BOUNDED = settings(max_examples=60, deadline=None, database=None)

names = st.binary(min_size=1, max_size=120).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..") and not name.startswith(b".wh.")
)
ids = st.one_of(st.integers(0, 2**21 + 5), st.just(2**32 - 2))
times = st.one_of(st.integers(-(2**31) * NS, 2**33 * NS), st.just(-1), st.just(0))
values = st.binary(max_size=200)
keys = st.sampled_from([b"user.a", b"user.\xc3\xa4 =", b"trusted.t", b"security.capability"])
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")
attributes = st.fixed_dictionaries(
    {
        "mode": st.integers(0, 0o7777),
        "uid": ids,
        "gid": ids,
        "time": times,
        "xattrs": st.dictionaries(keys, values, max_size=2),
    }
)
files = st.tuples(st.just("file"), attributes, st.binary(max_size=2000))
leaves = st.one_of(
    files,
    st.tuples(st.just("link"), attributes, st.binary(min_size=1, max_size=300).filter(lambda text: b"\0" not in text)),
    st.tuples(st.sampled_from(["fifo", "device"]), attributes, st.just(b"")),
)
trees = st.recursive(
    st.dictionaries(names, leaves, max_size=4),
    lambda inner: st.dictionaries(names, st.one_of(leaves, st.tuples(st.just("dir"), attributes, inner)), max_size=4),
    max_leaves=10,
)


def grow(tree: dict[bytes, Any], where: bytes) -> None:
    """Make what a strategy drew."""
    for name, (kind, given_, content) in tree.items():
        path = where + b"/" + name
        if kind == "dir":
            os.mkdir(path)
            grow(content, path)
        elif kind == "file":
            Path(os.fsdecode(path)).write_bytes(content)
        elif kind == "link":
            os.symlink(content, path)
        else:
            device = os.makedev(7, 255) if kind == "device" else 0
            os.mknod(path, stat.S_IFCHR if kind == "device" else stat.S_IFIFO, device)
        os.chown(path, given_["uid"], given_["gid"], follow_symlinks=False)
        if kind != "link":
            os.chmod(path, given_["mode"])
        for key, value in given_["xattrs"].items():
            with contextlib.suppress(OSError):  # user.* on special files
                fit = CAPABILITY if key == b"security.capability" else value
                os.setxattr(path, key, fit, follow_symlinks=False)
        os.utime(path, ns=(0, given_["time"]), follow_symlinks=False)


def picture(root: Path) -> dict[bytes, Any]:
    """Everything that can be seen of a tree."""
    found: dict[bytes, Any] = {}
    for folder, dirs, files_ in os.walk(os.fsencode(root)):
        for name in dirs + files_:
            path = os.path.join(folder, name)
            info = os.lstat(path)
            kind = stat.S_IFMT(info.st_mode)
            content: Any = b""
            if kind == stat.S_IFREG:
                content = Path(os.fsdecode(path)).read_bytes()
            elif kind == stat.S_IFLNK:
                content = os.readlink(path)
            xattrs = {
                key: os.getxattr(path, key, follow_symlinks=False) for key in os.listxattr(path, follow_symlinks=False)
            }
            shown = (
                info.st_mode,
                info.st_uid,
                info.st_gid,
                info.st_mtime_ns,
                info.st_rdev,
                info.st_nlink if kind == stat.S_IFREG else 0,
            )
            found[os.path.relpath(path, os.fsencode(root))] = (shown, content, xattrs)
    return found


@contextlib.contextmanager
def folders(*wanted: str) -> Iterator[list[Path]]:
    base = Path(tempfile.mkdtemp(prefix="pier-tree-", dir="/var/tmp"))
    try:
        made = [base / name for name in wanted]
        for path in made:
            path.mkdir()
        yield made
    finally:
        shutil.rmtree(base)


def packed(root: Path) -> bytes:
    out = io.BytesIO()
    with closing(os.open(root, os.O_RDONLY)) as fd:
        write_tree(fd, TarWriter(out))
    return out.getvalue()


def unpack(data: bytes, root: Path, **how: Any) -> None:
    with closing(os.open(root, os.O_RDONLY)) as fd:
        layer.unpack(io.BytesIO(data), fd, **how)


@BOUNDED
@given(trees)
def test_tree_to_archive_to_tree(tree: dict[bytes, Any]) -> None:
    with folders("one", "two") as (one, two):
        grow(tree, os.fsencode(one))
        data = packed(one)
        assert len(data) % RECORD == 0
        unpack(data, two)
        assert picture(two) == picture(one)
        assert packed(two) == data
        with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape", encoding="utf-8") as tar:
            assert len(tar.getmembers()) == len(picture(one))


@BOUNDED
@given(trees)
def test_a_copy_is_the_same(tree: dict[bytes, Any]) -> None:
    with folders("one", "two") as (one, two):
        grow(tree, os.fsencode(one))
        with closing(os.open(one, os.O_RDONLY)) as source, closing(os.open(two, os.O_RDONLY)) as target:
            copy_tree(source, target)
            assert picture(two) == picture(one)
            assert list(compare(source, target)) == []


@BOUNDED
@given(trees, trees)
def test_a_diff_leads_from_one_tree_to_the_other(before: dict[bytes, Any], after: dict[bytes, Any]) -> None:
    with folders("before", "after", "result") as (old, new, result):
        grow(before, os.fsencode(old))
        grow(after, os.fsencode(new))
        out = io.BytesIO()
        with (
            closing(os.open(old, os.O_RDONLY)) as old_fd,
            closing(os.open(new, os.O_RDONLY)) as new_fd,
            closing(os.open(result, os.O_RDONLY)) as result_fd,
        ):
            write_layer(old_fd, new_fd, TarWriter(out))
            copy_tree(old_fd, result_fd)
        unpack(out.getvalue(), result, whiteouts=layer.Whiteouts.APPLIED)
        expected = picture(new)
        found = picture(result)
        for path, (shown, _, _) in expected.items():
            if stat.S_ISDIR(shown[0]) and path in picture(old):  # an unchanged directory keeps the time it had
                found[path] = ((*found[path][0][:3], shown[3], *found[path][0][4:]), *found[path][1:])
        assert found == expected


def test_hard_links_sockets_and_order(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        (tmp_path / name).mkdir()
    (tmp_path / "c/first").write_bytes(b"x" * 10)
    os.link(tmp_path / "c/first", tmp_path / "a/second")
    os.mknod(tmp_path / "b/sock", stat.S_IFSOCK)
    out = io.BytesIO()
    with closing(os.open(tmp_path, os.O_RDONLY)) as fd:
        done = write_tree(fd, TarWriter(out))
    assert (done.skipped, done.size_bytes) == ([b"b/sock"], 10)
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as tar:
        assert [(member.name, member.type, member.linkname) for member in tar] == [
            ("a", b"5", ""),
            ("a/second", b"0", ""),
            ("b", b"5", ""),
            ("c", b"5", ""),
            ("c/first", b"1", "a/second"),
        ]


@pytest.mark.parametrize(
    "entry",
    [
        Entry(b"f", REGULAR, 0o644, 0, 0, 0, 0),
        Entry(b"n" * 101, REGULAR, 0o7777, 2**32 - 2, 2**21, 8**11, 1_500_000_001),
        Entry(b"d/" * 300, DIRECTORY, 0o755, 1, 2, 0, -1),
        Entry(b"\xff\xfe", SYMLINK, 0o777, 0, 0, 0, -3 * NS, linkname=b"\xc3\xa4" * 80),
        Entry(b"fifo", FIFO, 0, 0, 0, 0, 8**11 * NS, xattrs={b"user.x": b"\n=\0", b"user.empty": b""}),
    ],
)
def test_a_header_says_what_the_entry_says(entry: Entry) -> None:
    data = encode_header(entry) + bytes(min(entry.size, 1024)) + bytes(1024)
    read = next(iter(TarReader(io.BytesIO(data))))
    assert read == entry


def test_docker_and_gnu_tar_read_it(tmp_path: Path) -> None:
    root, other = tmp_path / "root", tmp_path / "other"
    other.mkdir()
    (root / ("long" * 40)).mkdir(parents=True)
    (root / ("long" * 40) / "file").write_bytes(b"x" * 1000)
    os.utime(root / ("long" * 40) / "file", ns=(0, 1_000_000_000_123_456_789))
    os.chown(root / ("long" * 40) / "file", 3_000_000, 5)
    done = subprocess.run(
        ["tar", "-C", str(other), "--numeric-owner", "-xpf", "-"], input=packed(root), check=True, capture_output=True
    )
    assert done.stderr == b""
    assert picture(other) == picture(root)


def test_nesting_has_a_bound(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(DEPTH_MAX + 1):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    with pytest.raises(TreeTooDeep, match="nested more than 256 deep"):
        packed(tmp_path)
    with closing(os.open(tmp_path, os.O_RDONLY)) as fd, pytest.raises(TreeTooDeep):
        list(compare(None, fd))
