from __future__ import annotations

import json
from pathlib import Path

import pytest

from pier.builder.dockerfile.ignore import BadIgnoreFile, ignore_files, keep_for_daemon, read_ignore_file
from pier.builder.patterns import PatternMatcher

RECORDED = json.loads((Path(__file__).parents[3] / "fixtures" / "dockerignore.json").read_text())
"""Files of a context, and for many `.dockerignore` which of them Docker 28.5 has kept."""


@pytest.mark.parametrize(("text", "kept"), RECORDED["kept"])
def test_what_docker_keeps(text: str, kept: list[int]) -> None:
    matcher = PatternMatcher(read_ignore_file(text.encode()))
    found = [number for number, path in enumerate(RECORDED["paths"]) if not matcher.matches(path)]
    assert found == sorted(kept)


@pytest.mark.parametrize(
    ("data", "patterns"),
    [
        (b"", []),
        (b"\xef\xbb\xbf# comment\n\na\r\n  b  \n", ["a", "b"]),
        (b"  # no comment\n", ["# no comment"]),
        (b"/a\n./b\nc/\n//d\n/\n", ["a", "b", "c", "d", "/"]),
        (b"! a\n!/b/\n", ["!a", "!b"]),
        (b"a/../b\n../c\n", ["b", "../c"]),
        (b"a\\ b\n", ["a\\ b"]),
    ],
)
def test_lines(data: bytes, patterns: list[str]) -> None:
    assert read_ignore_file(data) == patterns


@pytest.mark.parametrize(("data", "line"), [(b"a\n!\n", 2), (b"[", 1), (b"a\n\nb\\", 3)])
def test_a_bad_line_is_named(data: bytes, line: int) -> None:
    with pytest.raises(BadIgnoreFile) as raised:
        read_ignore_file(data, "x.dockerignore")
    assert raised.value.message.startswith(f"x.dockerignore:{line}: ")


def test_the_file_beside_the_dockerfile_goes_first() -> None:
    assert ignore_files("sub/app.Dockerfile") == ("sub/app.Dockerfile.dockerignore", ".dockerignore")


def test_the_daemon_gets_the_files_that_it_reads() -> None:
    assert keep_for_daemon(["*"], "Dockerfile") == ["*", "!.dockerignore", "!Dockerfile"]
    assert keep_for_daemon(["docs"], "Dockerfile") == ["docs"]
