"""Subordinate ids: files as subuid(5) has them, maps, and ranges handed out."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pier.containers import subids
from pier.containers.subids import BadSubids, NoSubids, Range
from pier.storage.ids import Extent, IdMap

ranges = st.builds(Range, st.integers(0, 5_000), st.integers(1, 700))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("ana:100000:65536\n", [Range(100000, 65536)]),
        ("# ana:1:1\n\n  ana:100000:65536  ", [Range(100000, 65536)]),
        ("bob:1:5\n1000:300:7\nana:200:10\nana:100:10", [Range(100, 10), Range(200, 10), Range(300, 7)]),
        ("ana:5:0", []),
        ("anabel:5:9", []),
    ],
)
def test_parse(text: str, expected: list[Range]) -> None:
    assert subids.parse(text, ["ana", "1000"], path="/etc/subuid") == expected


@pytest.mark.parametrize(
    "line", ["ana:1", "ana:1:2:3", "ana:x:5", "ana:-1:5", "ana:1:", "bob:٣:5", "ana:4294967290:10", "ana:1:99999999999"]
)
def test_a_bad_line_is_refused_whosever_it_is(line: str) -> None:
    with pytest.raises(BadSubids, match=r"Format not correct for /etc/subuid file \(line 2"):
        subids.parse(f"bob:1:5\n{line}\n", ["ana"], path="/etc/subuid")


@given(st.lists(ranges, max_size=8))
def test_parse_reads_what_was_written(written: list[Range]) -> None:
    text = "".join(f"ana:{item.first}:{item.size}\nbob:{item.size}:1\n" for item in written)
    assert subids.parse(text, ["ana"], path="x") == sorted(written)


@given(st.lists(ranges, min_size=1, max_size=400))
def test_extents_lie_side_by_side_from_zero(found: list[Range]) -> None:
    made = subids.extents(found)
    assert len(made) == min(len(found), subids.EXTENTS_MAX)
    assert made[0].inside == 0
    assert all(one.inside + one.size == two.inside for one, two in pairwise(made))
    assert [(item.outside, item.size) for item in made] == found[: len(made)]


@given(st.integers(1, 900), st.lists(ranges, min_size=1, max_size=4), st.lists(ranges, max_size=12))
def test_take_finds_room_exactly_where_there_is_some(size: int, pool: list[Range], used: list[Range]) -> None:
    taken = {number for item in used for number in range(item.first, item.end)}

    def free(start: int) -> bool:
        return not any(number in taken for number in range(start, start + size))

    expected = next(
        (
            Range(start, size)
            for whole in pool
            for start in range(whole.first, whole.end - size + 1)
            if start - 1 < whole.first or start - 1 in taken
            if free(start)
        ),
        None,
    )
    assert subids.take(size, pool, used) == expected


def test_read_names_whose_ranges_are_missing(tmp_path: Path) -> None:
    path = tmp_path / "subuid"
    with pytest.raises(NoSubids, match='no subuid ranges found for user "ana"'):
        subids.read(str(path), ["ana", "1000"], kind="subuid")
    path.write_text("1000:5:6\n")
    assert subids.read(str(path), ["ana", "1000"], kind="subuid") == [Range(5, 6)]


def test_a_map_in_ocis_words() -> None:
    found = IdMap([Extent(0, 100, 10), Extent(10, 300, 5)], [Extent(0, 200, 10)])
    assert found.root == (100, 200)
    assert found.oci() == {
        "uidMappings": [
            {"containerID": 0, "hostID": 100, "size": 10},
            {"containerID": 10, "hostID": 300, "size": 5},
        ],
        "gidMappings": [{"containerID": 0, "hostID": 200, "size": 10}],
    }
