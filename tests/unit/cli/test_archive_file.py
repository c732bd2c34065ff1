"""Where `save` and `export` write, and what `load` and `import` read."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pier.cli.archive_file import receive
from pier.cli.errors import Failure
from pier.cli.platform import platform
from pier.cli.verbs.load import open_input, read_chunks


def two() -> Iterator[bytes]:
    yield b"one, "
    yield b"two"


def broken() -> Iterator[bytes]:
    yield b"one, "
    raise Failure("error reading from the daemon: unexpected EOF")


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    file = tmp_path / "out.tar"
    receive(str(file), two, "failed")
    assert (file.read_bytes(), file.stat().st_mode & 0o777) == (b"one, two", 0o600)
    with pytest.raises(Failure, match="unexpected EOF"):
        receive(str(file), broken, "failed")
    assert file.read_bytes() == b"one, two"
    assert list(tmp_path.iterdir()) == [file]


def test_a_link_is_written_through_and_a_device_into(tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    link.symlink_to(file)
    receive(str(link), two, "failed")
    assert (link.is_symlink(), file.read_bytes()) == (True, b"one, two")
    receive("/dev/null", two, "failed")
    assert Path("/dev/null").is_char_device()


def test_what_cannot_be_written_is_known_before_anything_is_asked_for(tmp_path: Path) -> None:
    def never() -> Iterator[bytes]:
        raise AssertionError

    with pytest.raises(Failure, match=r"^failed: cannot write to a directory$"):
        receive(str(tmp_path), never, "failed")
    with pytest.raises(Failure, match=f"^failed: invalid output path: stat {tmp_path}/none: no such file"):
        receive(f"{tmp_path}/none/x", never, "failed")


def test_what_cannot_be_read_is_not_the_daemon_s_fault(tmp_path: Path) -> None:
    with pytest.raises(Failure, match=f"open {tmp_path}/x: no such file or directory"):
        open_input(f"{tmp_path}/x")
    fd = open_input(str(tmp_path))
    try:
        with pytest.raises(Failure, match=f"^read {tmp_path}: is a directory$"):
            list(read_chunks(fd, str(tmp_path)))
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("linux/amd64", {"os": "linux", "architecture": "amd64"}),
        ("linux/arm/v7", {"os": "linux", "architecture": "arm", "variant": "v7"}),
        ("arm64", {"os": "linux", "architecture": "arm64"}),
        ("linux", {"os": "linux"}),
    ],
)
def test_platforms(text: str, parsed: dict[str, str]) -> None:
    assert json.loads(platform(text)) == parsed


@pytest.mark.parametrize("text", ["a/b/c/d", "linux/", "/", "linux/amd64,linux/arm64"])
def test_no_platforms(text: str) -> None:
    with pytest.raises(Failure, match=r"^invalid platform: "):
        platform(text)
    assert platform("") == ""
