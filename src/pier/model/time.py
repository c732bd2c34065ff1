"""Moments and durations as Docker writes them: RFC 3339 with nanoseconds, Unix seconds with a fraction, Go durations.

A moment is an int, nanoseconds since 1970; 0 stands for Go's zero time, "never".
"""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta

from pier.errors import InvalidParameter

NEVER = "0001-01-01T00:00:00Z"
SECOND_NS = 1_000_000_000

_RFC3339 = re.compile(
    r"(?P<date>\d{4}-\d\d-\d\d)"
    r"(?:[Tt ](?P<hour>\d\d)(?::(?P<minute>\d\d)(?::(?P<second>\d\d)(?:\.(?P<fraction>\d{1,18}))?)?)?)?"
    r"(?P<zone>[Zz]|[+-]\d\d:\d\d)?",
    re.ASCII,
)
_UNIX = re.compile(r"(?P<sign>-?)(?P<seconds>\d{1,12})(?:\.(?P<fraction>\d{0,18}))?", re.ASCII)
_DURATION = re.compile(r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+", re.ASCII)
_DURATION_PART = re.compile(r"(\d*)\.?(\d*)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_UNIT_NS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": SECOND_NS,
    "m": 60 * SECOND_NS,
    "h": 3600 * SECOND_NS,
}
_MAX_TEXT = 64
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class BadTime(InvalidParameter):
    """failed to parse value as time or duration: "{text}\""""

    remedy = "use Unix seconds (1700000000.5), RFC 3339 (2023-11-14T22:13:20Z) or an age (10m)"


class BadDuration(InvalidParameter):
    """time: invalid duration "{text}\""""

    remedy = "a number and a unit, such as 300ms, 10s or 1h30m"


def rfc3339_nano(ns: int) -> str:
    """Go's time.RFC3339Nano in UTC: as many digits after the point as needed, none for a whole second; 0 is NEVER."""
    if ns == 0:
        return NEVER
    seconds, fraction = divmod(ns, SECOND_NS)
    moment = (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")
    if len(moment) < 19:  # strftime does not pad years
        moment = moment.rjust(19, "0")
    digits = f".{fraction:09d}".rstrip("0") if fraction else ""
    return f"{moment}{digits}Z"


def rfc3339_nano_fixed(ns: int) -> str:
    """The same with nine digits always: the prefix of `docker logs --timestamps`."""
    seconds, fraction = divmod(ns, SECOND_NS)
    return f"{(_EPOCH + timedelta(seconds=seconds)).strftime('%Y-%m-%dT%H:%M:%S')}.{fraction:09d}Z"


def parse_rfc3339(text: str) -> int:
    """Nanoseconds since 1970; seconds, minutes and the whole time of day may be missing, no zone means UTC.

    Raises BadTime. NEVER is 0.
    """
    match = _RFC3339.fullmatch(text) if len(text) <= _MAX_TEXT else None
    if match is None:
        raise BadTime(text=text[:_MAX_TEXT])
    clock = ":".join(match[part] or "00" for part in ("hour", "minute", "second"))
    zone = (match["zone"] or "Z").upper().replace("Z", "+00:00")
    try:
        moment = datetime.fromisoformat(f"{match['date']}T{clock}{zone}")
    except ValueError as error:
        raise BadTime(text=text) from error
    if moment.year == 1:
        return 0
    delta = moment - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * SECOND_NS + _fraction_ns(match["fraction"])


def parse_unix(text: str) -> int | None:
    """`seconds[.fraction]` as nanoseconds; None: not of this form."""
    match = _UNIX.fullmatch(text)
    if match is None:
        return None
    ns = int(match["seconds"]) * SECOND_NS + _fraction_ns(match["fraction"])
    return -ns if match["sign"] else ns


def parse_duration(text: str) -> int:
    """Go's time.ParseDuration in nanoseconds: `1h30m`, `-1.5s`, `300ms`, `0`. Raises BadDuration."""
    if text in {"0", "+0", "-0"}:
        return 0
    if len(text) > _MAX_TEXT or not _DURATION.fullmatch(text):
        raise BadDuration(text=text[:_MAX_TEXT])
    total = 0
    for whole, fraction, unit in _DURATION_PART.findall(text):
        total += int(whole or 0) * _UNIT_NS[unit]
        total += int(fraction or 0) * _UNIT_NS[unit] // 10 ** len(fraction)
    if total >= 2**63:
        raise BadDuration(text=text)
    return -total if text.startswith("-") else total


def format_duration(duration_ns: int) -> str:
    """Nanoseconds as Go prints a time.Duration: `1h2m3.5s`, `1.5s`, `500ms`, `0s`."""
    if duration_ns < 0:
        return "-" + format_duration(-duration_ns)
    if duration_ns < SECOND_NS:
        unit = next((unit for unit in ("ms", "µs", "ns") if duration_ns >= _UNIT_NS[unit]), "s")
        return _decimal(duration_ns, _UNIT_NS[unit]) + unit
    minutes, rest_ns = divmod(duration_ns, 60 * SECOND_NS)
    text = _decimal(rest_ns, SECOND_NS) + "s"
    if minutes:
        text = f"{minutes % 60}m{text}"
    return f"{minutes // 60}h{text}" if minutes >= 60 else text


def _decimal(number: int, unit: int) -> str:
    whole, rest = divmod(number, unit)
    digits = len(str(unit)) - 1
    return f"{whole}.{rest:0{digits}}".rstrip("0") if rest else str(whole)


def parse_moment(text: str, *, now_ns: int | None = None) -> int:
    """A `since` or `until`: Unix seconds, RFC 3339, or a Go duration before now, as nanoseconds since 1970.

    Raises BadTime.
    """
    unix = parse_unix(text)
    if unix is not None:
        return unix
    try:
        age_ns = parse_duration(text)
    except BadDuration:
        return parse_rfc3339(text)
    return (time.time_ns() if now_ns is None else now_ns) - age_ns


def _fraction_ns(digits: str | None) -> int:
    return int((digits or "0")[:9].ljust(9, "0"))
