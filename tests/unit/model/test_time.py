from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pier.model.time import (
    NEVER,
    SECOND_NS,
    BadDuration,
    BadTime,
    format_duration,
    parse_duration,
    parse_moment,
    parse_rfc3339,
    rfc3339_nano,
    rfc3339_nano_fixed,
)

NOW_NS = 1_700_000_000 * SECOND_NS


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, NEVER),
        (1_795_251_894_877_256_766, "2026-11-21T09:04:54.877256766Z"),
        (1_795_251_894_877_256_700, "2026-11-21T09:04:54.8772567Z"),
        (1_795_251_894_000_000_000, "2026-11-21T09:04:54Z"),
        (1, "1970-01-01T00:00:00.000000001Z"),
        (-1, "1969-12-31T23:59:59.999999999Z"),
    ],
)
def test_rfc3339_nano(ns: int, text: str) -> None:
    assert rfc3339_nano(ns) == text
    assert parse_rfc3339(text) == ns


def test_log_stamps_have_nine_digits() -> None:
    assert rfc3339_nano_fixed(1_795_251_894_000_000_000) == "2026-11-21T09:04:54.000000000Z"


@given(st.integers(min_value=1, max_value=4_000_000_000 * SECOND_NS))
def test_rfc3339_round_trip(ns: int) -> None:
    assert parse_rfc3339(rfc3339_nano(ns)) == ns


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1700000000", NOW_NS),
        ("1700000000.5", NOW_NS + 500_000_000),
        ("1700000000.000000001", NOW_NS + 1),
        ("1700000000.0000000019", NOW_NS + 1),
        ("0", 0),
        ("-1.5", -1_500_000_000),
        ("10m", NOW_NS - 600 * SECOND_NS),
        ("1h30m", NOW_NS - 5400 * SECOND_NS),
        ("1.5s", NOW_NS - 1_500_000_000),
        ("-5s", NOW_NS + 5 * SECOND_NS),
        ("2023-11-14T22:13:20Z", NOW_NS),
        ("2023-11-14T23:13:20+01:00", NOW_NS),
        ("2023-11-14T22:13:20.25", NOW_NS + 250_000_000),
        ("2023-11-14T22:13", NOW_NS - 20 * SECOND_NS),
        ("2023-11-14", 1_699_920_000 * SECOND_NS),
    ],
)
def test_parse_moment(text: str, ns: int) -> None:
    assert parse_moment(text, now_ns=NOW_NS) == ns


@pytest.mark.parametrize(
    "text", ["abc", "12:00", "2023-13-01", "2023-11-14T25:00", "1e9", "٣", "1 h", "99999999999999h", "1" * 500]
)
def test_moments_that_are_none(text: str) -> None:
    with pytest.raises(BadTime):
        parse_moment(text, now_ns=NOW_NS)


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("0", 0),
        ("1ns", 1),
        ("1us", 1_000),
        ("1µs", 1_000),
        ("300ms", 300_000_000),
        ("-1.5h", -5400 * SECOND_NS),
        ("1h2m3s4ms", 3_723_004_000_000),
        (".5s", 500_000_000),
        ("1.s", SECOND_NS),
    ],
)
def test_parse_duration(text: str, ns: int) -> None:
    assert parse_duration(text) == ns


@pytest.mark.parametrize("text", ["", "1", "s", "1 s", "1d", ".s", "-", "9999999999h", "1h-1m"])
def test_durations_that_are_none(text: str) -> None:
    with pytest.raises(BadDuration):
        parse_duration(text)


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0s"),
        (1, "1ns"),
        (1_500, "1.5µs"),
        (500_000_000, "500ms"),
        (1_000_000_000, "1s"),
        (1_500_000_000, "1.5s"),
        (90_000_000_000, "1m30s"),
        (3_600_000_000_000, "1h0m0s"),
        (-61_010_000_000, "-1m1.01s"),
    ],
)
def test_format_duration(ns: int, text: str) -> None:
    assert format_duration(ns) == text
    assert parse_duration(text) == ns
