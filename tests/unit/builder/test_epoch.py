"""What may be said as SOURCE_DATE_EPOCH."""

from __future__ import annotations

import pytest

from pier.builder.epoch import BadEpoch, parse_epoch


@pytest.mark.parametrize(("text", "expected"), [("", None), ("0", 0), ("00017", 17), ("1700000000", 1_700_000_000)])
def test_seconds(text: str, expected: int | None) -> None:
    assert parse_epoch(text) == expected


@pytest.mark.parametrize("text", ["abc", "1.5", "-5", " 5", "12345678901234", "\u0661"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(BadEpoch) as refused:
        parse_epoch(text, "source-date-epoch")
    assert refused.value.message == f"invalid source-date-epoch: {text}: seconds since 1970 are wanted"
