"""Checksums of files: what is known of a client's files is not read again, and comes to the same."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from pier.builder.checksum import Contents, digest_of
from pier.builder.entries import Entry
from pier.builder.keys import Selection
from pier.kernel.paths import closing

FILES = ("a", "dir/b", "dir/sub/c")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in FILES:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "link").symlink_to("dir")
    return tmp_path


def known(root: Path) -> dict[str, tuple[Entry, str]]:
    found = {}
    for name in FILES:
        info = (root / name).stat()
        entry = Entry(info.st_mode, size_bytes=info.st_size, mtime_ns=info.st_mtime_ns)
        found[name] = entry, hashlib.sha256((root / name).read_bytes()).hexdigest()
    return found


def digest(root: Path, path: str, contents: Contents) -> str:
    with closing(os.open(root, os.O_RDONLY | os.O_DIRECTORY)) as fd:
        return digest_of(fd, (Selection(path, wildcards=True, exclude=("none",)),), contents)


@pytest.mark.parametrize("path", ["/", "/a", "/dir", "/link", "/link/sub", "/d*/sub/c", "/none"])
def test_known_files_come_to_the_same_and_are_not_read(root: Path, path: str) -> None:
    contents, expected = known(root), digest(root, path, {})
    assert digest(root, path, contents) == expected
    for name in FILES:
        info = (root / name).stat()
        (root / name).write_text(name.upper())
        os.utime(root / name, ns=(info.st_atime_ns, info.st_mtime_ns))
    assert digest(root, path, contents) == expected
    assert path == "/none" or digest(root, path, {}) != expected


def test_a_file_that_is_not_as_it_is_known_is_read(root: Path) -> None:
    contents = known(root)
    (root / "dir/b").write_text("B" * 5)
    os.utime(root / "dir/b", ns=(0, 5))
    assert digest(root, "/", contents) == digest(root, "/", {})
