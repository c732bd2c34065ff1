from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pier.api.detach import DetachFilter, InvalidDetachKeys, parse_keys


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("", b"\x10\x11"),
        ("ctrl-p,ctrl-q", b"\x10\x11"),
        ("a", b"a"),
        ("ctrl-@,ctrl-a,ctrl-z,ctrl-[,ctrl-\\,ctrl-],ctrl-^,ctrl-_", bytes([0, 1, 26, 27, 28, 29, 30, 31])),
        ("DEL,x", b"\x7fx"),
    ],
)
def test_parse_keys(text: str, keys: bytes) -> None:
    assert parse_keys(text) == keys


@pytest.mark.parametrize("text", ["foo", "ctrl-", "ctrl-A", "a,", ",", "é", "a," * 40 + "a", "ctrl-p ctrl-q"])
def test_keys_that_are_none(text: str) -> None:
    with pytest.raises(InvalidDetachKeys):
        parse_keys(text)


@pytest.mark.parametrize(
    ("keys", "pieces", "passed", "detached"),
    [
        (b"\x10\x11", [b"ls\n"], b"ls\n", False),
        (b"\x10\x11", [b"\x10\x11"], b"", True),
        (b"\x10\x11", [b"a\x10", b"\x11b"], b"a", True),
        (b"\x10\x11", [b"\x10", b"\x10", b"\x11"], b"\x10", True),
        (b"\x10\x11", [b"\x10", b"x"], b"\x10x", False),
        (b"aab", [b"aaab"], b"a", True),
        (b"abab", [b"aba", b"ac"], b"abaac", False),
    ],
)
def test_filter(keys: bytes, pieces: list[bytes], passed: bytes, detached: bool) -> None:
    filter_ = DetachFilter(keys)
    assert b"".join(map(filter_.feed, pieces)) + (b"" if detached else filter_.finish()) == passed
    assert filter_.detached is detached


@given(
    st.lists(st.binary(max_size=6).map(lambda b: bytes(97 + x % 3 for x in b)), max_size=8),
    st.sampled_from([b"ab", b"aab", b"abab"]),
)
def test_filter_agrees_with_a_search(pieces: list[bytes], keys: bytes) -> None:
    filter_, whole, passed = DetachFilter(keys), b"".join(pieces), b""
    for piece in pieces:
        passed += filter_.feed(piece)
        if filter_.detached:
            break
    before, found, _ = whole.partition(keys)
    assert filter_.detached is bool(found)
    assert passed + (b"" if found else filter_.finish()) == before
