"""Paths and modes of the archive operations."""

from __future__ import annotations

import base64
import json
import os
import stat
from pathlib import Path

import pytest

from pier.kernel.paths import closing
from pier.storage.archive_paths import base_name, clean, link_target, path_stat
from pier.storage.go_mode import go_mode


@pytest.mark.parametrize(
    ("path", "expected", "base"),
    [
        ("/", "/", "/"),
        ("a", "/a", "a"),
        ("/a/", "/a/", "a"),
        ("/a/.", "/a/.", "."),
        ("/a/./", "/a/./", "."),
        (".", "/.", "."),
        ("..", "/", "/"),
        ("/a/../../b", "/b", "b"),
        ("//a//b", "/a/b", "b"),
        ("/a/..", "/", "/"),
    ],
)
def test_clean_paths(path: str, expected: str, base: str) -> None:
    assert clean(path) == expected
    assert base_name(expected) == base


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (stat.S_IFDIR | 0o755, 2147484141),
        (stat.S_IFREG | 0o4755, 8389101),
        (stat.S_IFLNK | 0o777, 134218239),
        (stat.S_IFIFO | 0o644, 33554852),
        (stat.S_IFDIR | 0o1777, 1 << 31 | 1 << 20 | 0o777),
        (stat.S_IFCHR | 0o666, 1 << 26 | 1 << 21 | 0o666),
        (stat.S_IFREG | 0o2644, 1 << 22 | 0o644),
    ],
)
def test_modes_as_go_has_them(mode: int, expected: int) -> None:
    assert go_mode(mode) == expected


def test_the_header(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    os.utime(tmp_path / "file", ns=(5, 1_000_000_000_500_000_000))
    (tmp_path / "file").chmod(0o640)
    header = path_stat("/x/file", (tmp_path / "file").stat(), "/there").header()
    assert json.loads(base64.b64decode(header)) == {
        "name": "file",
        "size": 3,
        "mode": 0o640,
        "mtime": "2001-09-09T01:46:40.5Z",
        "linkTarget": "/there",
    }


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/plain", "/dir/file"),
        ("/absolute", "/dir/file"),
        ("/up", "/dir/file"),
        ("/chain", "/dir/file"),
        ("/broken", "/nothing/at/all"),
        ("/folder/back", "/dir/file"),
        ("/loop", "/loop"),
    ],
)
def test_where_links_lead(tmp_path: Path, path: str, expected: str) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir/file").touch()
    links = {
        "plain": "dir/file",
        "absolute": "/dir/file",
        "up": "../../../dir/./file",
        "chain": "plain",
        "broken": "nothing/at/all",
        "folder": "dir",
        "dir/back": "../plain",
        "loop": "loop",
    }
    for name, target in links.items():
        (tmp_path / name).symlink_to(target)
    with closing(os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)) as root_fd:
        assert link_target(root_fd, path) == expected
