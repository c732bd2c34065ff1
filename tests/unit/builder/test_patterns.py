"""Docker's path patterns: tables, and the quick matcher against the slow and plain one."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pier.builder.patterns import ROOT, BadPattern, Pattern, PatternMatcher, regex_of


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("**", "file", True),
        ("**", "dir/file", True),
        ("**/", "dir/file", True),
        ("**/**", "dir/file", True),
        ("dir/**", "dir/dir2/file", True),
        ("dir/**", "dir", False),
        ("**/dir", "dir", True),
        ("**/dir", "dir/file", True),
        ("**/dir", "a/dir", True),
        ("**/dir", "adir", False),
        ("**/dir2/*", "dir/dir2/file", True),
        ("**/dir2/*", "dir/dir2", False),
        ("**/dir2/**", "dir/dir2/dir3/file", True),
        ("**file", "dir/file", True),
        ("**file", "dir/afile", True),
        ("**/file", "dir/dir/file", True),
        ("**/file*", "dir/dir/file.txt", True),
        ("**/file*txt", "dir/dir/file.txt", True),
        ("**/*.txt", "file.txt", True),
        ("**/*.txt", "a/.txt", True),
        ("**/*.txt", "a/file.txt/b", True),
        ("**/*.txt", "a/file.txt2", False),
        ("**/**/*.txt", "dir/dir/file.txt", True),
        ("a**/*.txt", "a/dir/dir/file.txt", True),
        ("a/*.txt", "a/dir/file.txt", False),
        ("a/*.txt", "a/file.txt", True),
        ("a/*.txt**", "a/file.txt", True),
        ("a/**/b", "a/b", True),
        ("a/**/b", "a/c/d/b", True),
        ("a/**/b", "ab", False),
        ("*", "a", True),
        ("*", "a/b", True),
        ("*/b", "a/b", True),
        ("*/b", "b", False),
        ("a[b-d]e", "ace", True),
        ("a[b-d]e", "aae", False),
        ("a[^b-d]e", "aze", True),
        ("[\\]a]", "]", True),
        ("[\\-x]", "-", True),
        ("[a-ü]*", "é", True),
        ("[*]", "*", True),
        ("[[]", "[", True),
        ("[z-a]", "b", False),
        (".*", ".foo", True),
        (".*", "foo", False),
        ("abc.def", "abcZdef", False),
        ("abc?def", "abcZdef", True),
        ("a?b", "a/b", False),
        ("a?b", "a☺b", True),
        ("**/foo/bar", "dir/dir2/foo/bar", True),
        ("a(b)c/def", "a(b)c/def", True),
        ("a.|)$(}+{bc", "a.|)$(}+{bc", True),
        ("a\\\\", "a\\", True),
        ("a\\*b", "a*b", True),
        ("a\\*b", "axb", False),
        ("a", "a/b/c", True),
        ("a", "b/a", False),
        ("a/", "a/b", True),
        ("./a//b/../c", "a/c", True),
        (".", "a", False),
        ("a]", "a]", True),
    ],
)
def test_one_pattern(pattern: str, path: str, matches: bool) -> None:
    assert PatternMatcher([pattern]).matches(path) is matches


@pytest.mark.parametrize(
    ("patterns", "path", "matches"),
    [
        (["*.go", "!a.go"], "a.go", False),
        (["!a.go", "*.go"], "a.go", True),
        (["docs", "!docs/README.md"], "docs/README.md", False),
        (["docs/", "!docs/README.md"], "docs/a", True),
        (["docs/*", "!docs/README.md"], "docs/README.md", False),
        (["**", "!util/docker/web"], "util/docker/web/foo", False),
        (["**", "!util/docker/web", "util/docker/web/foo"], "util/docker/web/foo", True),
        (["**", "!dist/*.whl"], "dist/a.whl", False),
        (["a", "!a/b", "*"], "a/b", False),
        (["**/*", "!**/*.md", "**/SECRET.md"], "x/SECRET.md", True),
        (["  a  ", "", " !a/b "], "a/b", False),
        ([], "a", False),
    ],
)
def test_order_and_taking_back(patterns: list[str], path: str, matches: bool) -> None:
    assert PatternMatcher(patterns).matches(path) is matches


@pytest.mark.parametrize(
    "pattern", ["[", "a[", "[^", "[^bc", "[]a]", "[-]", "[x-]", "[-x]", "[a-b-c]", "\\", "a\\", "!"]
)
def test_bad_patterns(pattern: str) -> None:
    with pytest.raises(BadPattern):
        PatternMatcher([pattern])


@pytest.mark.parametrize(
    ("folder", "may"),
    [("a", True), ("a/b", True), ("a/b/c", False), ("x", False), ("node_modules", False), ("d", True), ("d/e", True)],
)
def test_folders_that_have_to_be_looked_into(folder: str, may: bool) -> None:
    assert PatternMatcher(["**", "!a/b/c", "!d/**/e"]).may_take_back_below(folder) is may


def slowly(patterns: list[Pattern], path: str) -> bool:
    """The definition: a walk from the top that remembers per pattern what it has matched."""
    parts = path.split("/")
    above = [False] * len(patterns)
    matched = False
    for depth in range(1, len(parts) + 1):
        matched, found = False, []
        for known, pattern in zip(above, patterns, strict=True):
            here = known
            if not known and pattern.negated == matched:
                here = re.fullmatch(regex_of(pattern.tokens), "/".join(parts[:depth])) is not None
            found.append(here)
            if here:
                matched = not pattern.negated
        above = found
    return matched


_NAME = st.sampled_from(["a", "b", "ab", ".x", "c.d", "*"])
_PART = st.sampled_from(["a", "b", "*", "**", "?", "a*", "*.d", "[ab]", "**b", ".x", "\\*", "c.d", "*a*b*", "*[^a]*?*"])
_PATTERN = st.builds(
    lambda no, parts: no + "/".join(parts), st.sampled_from(["", "", "!"]), st.lists(_PART, min_size=1, max_size=3)
)


@settings(max_examples=300, deadline=None)
@given(st.lists(_PATTERN, max_size=6), st.lists(_NAME, min_size=1, max_size=4))
def test_groups_answer_as_single_patterns_do(patterns: list[str], parts: list[str]) -> None:
    matcher = PatternMatcher(patterns)
    assert matcher.matches("/".join(parts)) is slowly(matcher.patterns, "/".join(parts))


@settings(max_examples=200, deadline=None)
@given(st.lists(_PATTERN, max_size=5), st.lists(_NAME, min_size=2, max_size=4))
def test_a_folder_that_nothing_reaches_below_can_be_left_out(patterns: list[str], parts: list[str]) -> None:
    matcher = PatternMatcher(patterns)
    folder = "/".join(parts[:-1])
    if matcher.matches(folder) and not matcher.may_take_back_below(folder):
        assert matcher.matches("/".join(parts))


def test_a_walk_carries_its_verdicts_down() -> None:
    matcher = PatternMatcher(["a", "!a/b", "**/c"])
    matched, a = matcher.folder("a", ROOT)
    assert matched
    assert matcher.file("a/x", a)
    assert not matcher.file("a/b", a)
    matched, b = matcher.folder("a/b", a)
    assert not matched
    assert not matcher.file("a/b/x", b)
    assert matcher.file("a/b/c", b)


@pytest.mark.parametrize(
    "pattern", ["*a*a*a*a*a*a*b", "**a**a**a**a**a**b", "**/a*/**/a*/**/a*/**/a*/**/b", "*" + "?*" * 50 + "b"]
)
def test_a_pattern_of_many_stars_takes_no_long_time(pattern: str) -> None:
    matcher = PatternMatcher([pattern])
    assert not matcher.matches("a" * 255)
    assert not matcher.file("a/" * 200 + "a")
