from __future__ import annotations

from typing import Any

import pytest

from pier.builder.dockerfile.git_reference import BadGitReference, parse_git_reference
from pier.builder.graph import Source


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "https://h.io/o/r.git",
            {"remote": "https://h.io/o/r.git", "host": "h.io", "path": "/o/r.git", "scheme": "https"},
        ),
        ("https://me:pw@h.io/r.git", {"remote": "https://me:pw@h.io/r.git", "host": "h.io"}),
        ("https://h.io/r.git#v1", {"ref": "v1", "subdir": ""}),
        ("https://h.io/r.git#:sub/dir", {"ref": "", "subdir": "sub/dir"}),
        ("https://h.io/r.git#a/b:c", {"ref": "a/b", "subdir": "c"}),
        ("https://h.io/r.git?ref=v1&subdir=d", {"remote": "https://h.io/r.git", "ref": "v1", "subdir": "d"}),
        ("https://h.io/r.git?tag=v1", {"ref": "refs/tags/v1"}),
        ("https://h.io/r.git?branch=refs/heads/b", {"ref": "refs/heads/b"}),
        ("https://h.io/r.git?checksum=abc", {"ref": "abc", "checksum": "abc"}),
        ("https://h.io/r.git?keep-git-dir=1&submodules=false", {"keep_git_dir": True, "submodules": False}),
        ("https://h.io/r.git?keep-git-dir", {"keep_git_dir": True}),
        ("git://h.io/r#x", {"scheme": "git", "ref": "x"}),
        ("ssh://git@h.io:22/r", {"scheme": "ssh", "host": "h.io:22"}),
        ("git@h.io:o/r.git#v1:d", {"remote": "git@h.io:o/r.git", "path": "o/r.git", "scheme": "ssh", "ref": "v1"}),
    ],
)
def test_addresses(text: str, expected: dict[str, Any]) -> None:
    found = parse_git_reference(text)
    assert found is not None
    assert {name: getattr(found, name) for name in expected} == expected


@pytest.mark.parametrize(
    "text",
    ["a", "./a.git", "/a.git", "a:b", "https://h.io/a.tar", "http://h.io/", "ftp://h/r.git", "https://[x/r.git", ""],
)
def test_what_is_no_repository(text: str) -> None:
    assert parse_git_reference(text) is None


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("what=1", 'unexpected query "what"'),
        ("ref=a&ref=b", 'query "ref" has multiple values'),
        ("ref=", 'query "ref" has no value'),
        ("ref=a&tag=b", 'ref conflicts: "a" vs "refs/tags/b"'),
        ("tag=a&branch=b", "branch conflicts with tag"),
        ("submodules=maybe", 'invalid submodules value: "maybe"'),
    ],
)
def test_bad_queries(query: str, message: str) -> None:
    with pytest.raises(BadGitReference) as raised:
        parse_git_reference(f"https://h.io/r.git?{query}")
    assert raised.value.message == message


@pytest.mark.parametrize(
    "text",
    [
        "https://h.io/r.git#--upload-pack=touch /x",
        "https://h.io/r.git?ref=--upload-pack",
        "https://h.io/r.git#v1:--work-tree",
        "https://h.io/r.git?checksum=-x",
        "ssh://-oProxyCommand=x/r",
        "ssh://-l@h.io/r",
        "-x@h.io:r.git",
        "git@-l:r.git",
        "git@h.io:-r.git",
    ],
)
def test_attack_19_words_that_would_be_options(text: str) -> None:
    with pytest.raises(BadGitReference, match="begins with a dash"):
        parse_git_reference(text)


def test_source() -> None:
    found = parse_git_reference("https://me@h.io/o/r.git?branch=b&subdir=d&submodules=0")
    assert found is not None
    assert found.source(keep_git_dir=True, checksum="abc") == Source(
        "git://h.io/o/r.git#refs/heads/b:d",
        {
            "git.fullurl": "https://me@h.io/o/r.git",
            "git.authtokensecret": "GIT_AUTH_TOKEN",
            "git.authheadersecret": "GIT_AUTH_HEADER",
            "git.keepgitdir": "true",
            "git.checksum": "abc",
            "git.skipsubmodules": "true",
        },
    )
