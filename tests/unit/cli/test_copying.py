"""Docker's rules of `cp`, as tables; what they come to with real files is in the integration tests."""

from __future__ import annotations

import pytest

from pier.cli.copying import End, keep_end, prepare, rebase_name, renamed, split_argument, split_entry
from pier.cli.errors import Failure


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("box:/a", ("box", "/a")),
        ("box:", ("box", "")),
        ("/a:b", ("", "/a:b")),
        ("./a:b", ("", "./a:b")),
        ("a", ("", "a")),
        ("-", ("", "-")),
        ("box:a:b", ("box", "a:b")),
    ],
)
def test_arguments(text: str, expected: tuple[str, str]) -> None:
    assert split_argument(text) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [("/a/b", ("/a", "b")), ("/a/b/", ("/a", "b")), ("/a/b/.", ("/a/b", ".")), ("/", ("/", "/")), ("a", (".", "a"))],
)
def test_split_entry(path: str, expected: tuple[str, str]) -> None:
    assert split_entry(path) == expected


@pytest.mark.parametrize(
    ("cleaned", "original", "expected"),
    [("/a", "a/", "/a/"), ("/a", "a/.", "/a/."), ("/a", "a", "/a"), ("/", "/.", "/."), ("/a", "/a/./", "/a/./")],
)
def test_keep_end(cleaned: str, original: str, expected: str) -> None:
    assert keep_end(cleaned, original) == expected


def test_rebase_name() -> None:
    assert rebase_name("/l", "/d/f") == ("/d/f", "l")
    assert rebase_name("/f", "/d/f") == ("/d/f", "")
    assert rebase_name("/l/", "/d") == ("/d/", "l")


def end(path: str, kind: str) -> End:
    return End(path, exists=kind != "none", is_dir=kind == "dir")


@pytest.mark.parametrize(
    ("source", "destination", "expected"),
    [
        (end("/s/f", "file"), end("/d", "dir"), ("/d", None)),
        (end("/s/f", "file"), end("/d/g", "file"), ("/d", ("f", "g"))),
        (end("/s/f", "file"), end("/d/g", "none"), ("/d", ("f", "g"))),
        (end("/s", "dir"), end("/d", "dir"), ("/d", None)),
        (end("/s", "dir"), end("/d/g", "none"), ("/d", ("s", "g"))),
        (end("/s/.", "dir"), end("/d/g", "none"), ("/d", (".", "g"))),
        (end("/s", "dir"), end("/d/g/", "none"), ("/d", ("s", "g"))),
        (end("/s", "dir"), end("/d", "file"), "cannot copy directory"),
        (end("/s/f", "file"), end("/d/", "none"), "no such directory"),
    ],
)
def test_prepare(source: End, destination: End, expected: tuple[str, tuple[str, str] | None] | str) -> None:
    if isinstance(expected, str):
        with pytest.raises(Failure, match=expected):
            prepare(source, destination)
    else:
        assert prepare(source, destination) == expected


@pytest.mark.parametrize(
    ("name", "rename", "expected"),
    [
        ("a/b", ("a", "c"), "c/b"),
        ("a", ("a", "c"), "c"),
        ("ab", ("a", "c"), "ab"),
        ("./b", (".", "c"), "c/b"),
        ("/etc/b", ("/", "c"), "c/etc/b"),
        ("a/b", None, "a/b"),
    ],
)
def test_renamed(name: str, rename: tuple[str, str] | None, expected: str) -> None:
    assert renamed(name, rename) == expected
