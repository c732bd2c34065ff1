"""Removing and measuring trees that a container made as nasty as it could."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from pier.storage import trees
from pier.storage.trees import (
    FS_IMMUTABLE_FL,
    FS_IOC_GETFLAGS,
    FS_IOC_SETFLAGS,
    FS_TOPDIR_FL,
    remove_tree,
    spread,
    tree_size,
)


def remove(path: Path) -> None:
    fd = os.open(path.parent, os.O_RDONLY)
    try:
        remove_tree(fd, os.fsencode(path.name))
    finally:
        os.close(fd)


def nest(path: Path, depth: int) -> None:
    """Directories far deeper than PATH_MAX, each with a file."""
    fd = os.open(path, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("deeper", dir_fd=fd)
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        fd, old = os.open("deeper", os.O_RDONLY, dir_fd=fd), fd
        os.close(old)
    os.close(fd)


def test_everything_goes_and_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").write_bytes(b"x")
    tree = tmp_path / "tree"
    (tree / "a/b").mkdir(parents=True)
    (tree / "a/b/up").symlink_to(tmp_path / "kept")
    (tree / "a/dir-link").symlink_to("../../kept", target_is_directory=True)
    os.mkfifo(tree / "fifo")
    os.link(tmp_path / "kept/file", tree / "hard")
    remove(tree)
    assert sorted(os.listdir(tmp_path)) == ["kept"]
    assert (tmp_path / "kept/file").read_bytes() == b"x"


def test_missing_and_not_a_directory(tmp_path: Path) -> None:
    remove(tmp_path / "nothing")
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to("file")
    remove(tmp_path / "link")
    remove(tmp_path / "file")
    assert os.listdir(tmp_path) == []


def test_deeper_than_any_path_or_stack(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    nest(tree, 3000)
    assert tree_size(str(tree)) == 0
    remove(tree)
    assert os.listdir(tmp_path) == []


@pytest.mark.root
def test_files_made_immutable(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "dir").mkdir(parents=True)
    (tree / "dir/file").write_bytes(b"x")
    for path in (tree / "dir/file", tree / "dir"):
        fd = os.open(path, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, FS_IOC_SETFLAGS, FS_IMMUTABLE_FL.to_bytes(8, "little"))
        except OSError as error:
            pytest.skip(f"no immutable files here: {error}")
        finally:
            os.close(fd)
    with pytest.raises(PermissionError):
        (tree / "dir/file").unlink()
    remove(tree)
    assert os.listdir(tmp_path) == []


def test_size_counts_files_and_targets_once(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/one").write_bytes(b"x" * 1000)
    (tmp_path / "a/b/two").write_bytes(b"x" * 10)
    os.link(tmp_path / "a/one", tmp_path / "a/b/again")
    (tmp_path / "link").symlink_to("seven77")
    assert tree_size(str(tmp_path)) == 1017
    assert tree_size(str(tmp_path / "missing")) == 0


@pytest.mark.parametrize("without_journal", [True, False])
def test_trees_are_spread_where_that_saves_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without_journal: bool
) -> None:
    monkeypatch.setattr(trees, "_is_without_journal", lambda _: without_journal)
    fd = os.open(tmp_path, os.O_RDONLY)
    flags = bytearray(8)
    try:
        fcntl.ioctl(fd, FS_IOC_GETFLAGS, flags)
        fcntl.ioctl(fd, FS_IOC_SETFLAGS, bytes(flags))
        spread(str(tmp_path))
        fcntl.ioctl(fd, FS_IOC_GETFLAGS, flags)
    except OSError:
        pytest.skip("this file system has no such flags")
    finally:
        os.close(fd)
    is_spread = bool(int.from_bytes(flags[:4], "little") & FS_TOPDIR_FL)
    if without_journal and not is_spread:
        pytest.skip("this file system does not know the flag")
    assert is_spread == without_journal
