"""Units, tables, JSON, lists: what ends up on the screen."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pier.cli import jsontext, units
from pier.cli.format import ellipsis, filters_query, render
from pier.cli.table import align
from pier.cli.verbs.images import split_names
from pier.cli.verbs.ps import port_list
from pier.cli.verbs.stats import cpu_percent, memory


@pytest.mark.parametrize(
    ("size", "four", "three"),
    [(0, "0B", "0B"), (999, "999B", "999B"), (1000, "1kB", "1kB"), (1982464, "1.982MB", "1.98MB"),
     (5 * 10**9, "5GB", "5GB"), (1.5e24, "1.5YB", "1.5YB")],
)  # fmt: skip
def test_human_sizes(size: float, four: str, three: str) -> None:
    assert (units.human_size(size), units.human_size(size, 3)) == (four, three)


@pytest.mark.parametrize(("size", "text"), [(0, "0B"), (339968, "332KiB"), (25276510208, "23.54GiB")])
def test_binary_sizes(size: int, text: str) -> None:
    assert units.binary_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "Less than a second"), (0.9, "Less than a second"), (1, "1 second"), (59, "59 seconds"),
     (60, "About a minute"), (119, "About a minute"), (120, "2 minutes"), (3599, "59 minutes"), (3600, "About an hour"),
     (5399, "About an hour"), (5400, "2 hours"), (47 * 3600, "47 hours"), (48 * 3600, "2 days"),
     (13 * 86400, "13 days"), (14 * 86400, "2 weeks"), (59 * 86400, "8 weeks"), (60 * 86400, "2 months"),
     (729 * 86400, "24 months"), (730 * 86400, "2 years")],
)  # fmt: skip
def test_human_durations(seconds: float, text: str) -> None:
    assert units.human_duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [("0", 0), ("1h30m", 5400 * 10**9), ("1.5s", 1500000000), ("-2m", -120 * 10**9), ("10ms", 10**7), ("3us", 3000),
     (".5s", 5 * 10**8)],
)  # fmt: skip
def test_durations(text: str, nanoseconds: int) -> None:
    assert units.parse_duration(text) == nanoseconds


@pytest.mark.parametrize("text", ["", "5", "x", "1x", "s", "1..5s", "-"])
def test_wrong_durations(text: str) -> None:
    with pytest.raises(ValueError, match="time: "):
        units.parse_duration(text)


@pytest.mark.parametrize(
    ("text", "stamp"),
    [("10s", "990.000000000"), ("1136073845", "1136073845"), ("1136073845.5", "1136073845.5"),
     ("1970-01-01T00:00:05Z", "5.000000000"), ("1970-01-01T01:00:05.25+01:00", "5.250000000")],
)  # fmt: skip
def test_timestamps(text: str, stamp: str) -> None:
    assert units.parse_timestamp(text, 1000.0) == stamp


def test_tables_align_runs_of_lines() -> None:
    assert align("A\tB\tC\nlonger than ten\tx\ty\n") == (
        "A                 B         C\nlonger than ten   x         y\n"
    )
    assert align("one line without tabs\nA\tB\n") == "one line without tabs\nA         B\n"


FIELDS: Any = {"ID": ("CONTAINER ID", lambda row: row["id"]), "Name": ("NAMES", lambda row: row["name"])}
ROWS = [{"id": "1", "name": "<a>"}, {"id": "2", "name": "b"}]


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        ("", "CONTAINER ID   NAMES\n1              <a>\n2              b\n"),
        ("table {{.Name}}\\t{{.ID}}", "NAMES     CONTAINER ID\n<a>       1\nb         2\n"),
        ("json", '{"ID":"1","Name":"\\u003ca\\u003e"}\n{"ID":"2","Name":"b"}\n'),
        ("{{.ID}}:{{.Name}}", "1:<a>\n2:b\n"),
    ],
)
def test_layouts_of_a_list(layout: str, expected: str) -> None:
    assert render(FIELDS, ("ID", "Name"), layout, ROWS, "row") == expected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON)
def test_json_is_the_standard_librarys(value: Any) -> None:
    assert jsontext.loads(json.dumps(value)) == value
    assert json.loads(jsontext.dumps(value)) == value
    assert jsontext.loads(jsontext.dumps(value, escape_html=True)) == value
    assert json.loads(jsontext.pretty(value)) == value


@pytest.mark.parametrize("text", ["", "{", '{"a"}', "1 2", "nope"])
def test_json_that_is_none(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the words differ by where it breaks
        jsontext.loads(text)


def test_pretty_json() -> None:
    assert jsontext.pretty({"a": [], "b": {}, "c": [1, {"d": "é<"}]}) == (
        '{\n    "a": [],\n    "b": {},\n    "c": [\n        1,\n        {\n            "d": "é<"\n        }\n    ]\n}'
    )


def port(private: int, public: int = 0, address: str = "", kind: str = "tcp") -> dict[str, Any]:
    made: dict[str, Any] = {"PrivatePort": private, "Type": kind}
    return {**made, "PublicPort": public, "IP": address} if address else made


@pytest.mark.parametrize(
    ("ports", "text"),
    [
        ([], ""),
        ([port(80)], "80/tcp"),
        ([port(80, 8080, "0.0.0.0"), port(80, 8080, "::")], "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"),
        ([port(7002, 7002, "0.0.0.0"), port(7000, 7000, "0.0.0.0"), port(7001, 7001, "0.0.0.0")],
         "0.0.0.0:7000-7002->7000-7002/tcp"),
        ([port(1), port(2), port(4), port(2, kind="udp")], "1-2/tcp, 4/tcp, 2/udp"),
    ],
)  # fmt: skip
def test_port_lists(ports: list[dict[str, Any]], text: str) -> None:
    assert port_list(ports) == text


def test_image_names_become_rows() -> None:
    image = {"Id": "sha256:1", "RepoTags": ["a:1", "localhost:5000/b:2"], "RepoDigests": ["c@sha256:9"]}
    rows = [(row["Repository"], row["Tag"], row["Digest"]) for row in split_names(image, by_digest=False)]
    assert rows == [("a", "1", "<none>"), ("localhost:5000/b", "2", "<none>"), ("c", "<none>", "sha256:9")]
    bare = split_names({"Id": "x", "RepoTags": None}, by_digest=False)
    assert [(row["Repository"], row["Tag"]) for row in bare] == [("<none>", "<none>")]


def test_cpu_and_memory_of_stats() -> None:
    stats = {
        "cpu_stats": {"cpu_usage": {"total_usage": 300}, "system_cpu_usage": 2000, "online_cpus": 2},
        "precpu_stats": {"cpu_usage": {"total_usage": 100}, "system_cpu_usage": 1000},
        "memory_stats": {"usage": 500, "limit": 1000, "stats": {"inactive_file": 100}},
    }
    assert cpu_percent(stats) == 40.0
    assert memory(stats) == (400, 1000)
    assert cpu_percent({}) == 0.0
    assert memory({}) == (0, 0)


def test_small_helpers() -> None:
    assert ellipsis("abcdef", 4) == "abc…"
    assert ellipsis("abcd", 4) == "abcd"
    assert filters_query([("a", "1"), ("a", "2"), ("b", "3")]) == {"a": {"1": True, "2": True}, "b": {"3": True}}
    assert filters_query([]) is None
