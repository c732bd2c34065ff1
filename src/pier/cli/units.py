"""Sizes, durations and times as Docker's CLI shows and reads them."""

from __future__ import annotations

import time

_DECIMAL = ("B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB")
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB")
_MINUTE, _HOUR, _DAY = 60, 3600, 24


def human_size(size_bytes: float, digits: int = 4) -> str:
    """Powers of 1000 with `digits` significant digits: 1982464 -> "1.982MB" (4), "1.98MB" (3)."""
    return _scaled(size_bytes, 1000.0, _DECIMAL, digits)


def binary_size(size_bytes: float) -> str:
    """Powers of 1024 with four significant digits: 339968 -> "332KiB"."""
    return _scaled(size_bytes, 1024.0, _BINARY, 4)


def _scaled(size: float, base: float, units: tuple[str, ...], digits: int) -> str:
    power = 0
    while size >= base and power < len(units) - 1:
        size /= base
        power += 1
    return f"{size:.{digits}g}{units[power]}"


def human_duration(seconds: float) -> str:
    """Roughly how long: "Less than a second", "About a minute", "3 weeks"."""
    whole = int(seconds)
    minutes = int(seconds / _MINUTE)
    hours = int(seconds / _HOUR + 0.5)
    steps: tuple[tuple[bool, str], ...] = (
        (whole < 1, "Less than a second"),
        (whole == 1, "1 second"),
        (whole < 60, f"{whole} seconds"),
        (minutes == 1, "About a minute"),
        (minutes < 60, f"{minutes} minutes"),
        (hours == 1, "About an hour"),
        (hours < 2 * _DAY, f"{hours} hours"),
        (hours < 14 * _DAY, f"{hours // _DAY} days"),
        (hours < 60 * _DAY, f"{hours // _DAY // 7} weeks"),
        (hours < 2 * 365 * _DAY, f"{hours // _DAY // 30} months"),
    )
    for fits, text in steps:
        if fits:
            return text
    return f"{int(seconds / _HOUR) // _DAY // 365} years"


def ago(then_s: float, now_s: float) -> str:
    """Time since a Unix time: "2 minutes ago"."""
    return human_duration(now_s - then_s) + " ago"


def go_time(unix_s: int) -> str:
    """Go's Time.String() of a local time: "2026-11-21 09:01:46 +0000 UTC"."""
    local = time.localtime(unix_s)
    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", local)


def go_time_of(text: str) -> str:
    """Go's Time.String() of an RFC 3339 time in its own zone: "2026-11-21 09:01:46.592 +0000 UTC"."""
    date, _, rest = text.partition("T")
    if rest.endswith("Z"):
        return f"{date} {rest[:-1]} +0000 UTC"
    zone = rest[-6:].replace(":", "")
    return f"{date} {rest[:-6]} {zone} {zone}"


def rfc3339_nano(nanoseconds: int) -> str:
    """Local time with nine decimals: "2026-11-21T09:01:46.592233220Z" (or "+02:00" at the end)."""
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    local = time.localtime(seconds)
    zone = time.strftime("%z", local)
    zone = "Z" if zone in ("+0000", "") else f"{zone[:3]}:{zone[3:]}"
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', local)}.{fraction:09d}{zone}"


def go_duration(nanoseconds: int) -> str:
    """As the flags take it, in the largest unit that is whole: 5000000000 -> "5s", 90000000000 -> "90s"."""
    for unit in ("h", "m", "s", "ms", "us"):
        if nanoseconds % _DURATION_UNITS_NS[unit] == 0:
            return f"{nanoseconds // _DURATION_UNITS_NS[unit]}{unit}"
    return f"{nanoseconds}ns"


_DURATION_UNITS_NS = {
    "h": 3_600_000_000_000,
    "m": 60_000_000_000,
    "s": 1_000_000_000,
    "ms": 1_000_000,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ns": 1,
}


def parse_duration(text: str) -> int:
    """Go's time.ParseDuration: "1h30m", "1.5s", "-2m" -> nanoseconds. ValueError with Go's message."""
    rest = text[1:] if text[:1] in ("+", "-") else text
    if rest == "0":
        return 0
    if not rest:
        raise ValueError(f'time: invalid duration "{text}"')
    total = 0
    while rest:
        number = _leading(rest, "0123456789.")
        if not number.strip(".") or number.count(".") > 1:
            raise ValueError(f'time: invalid duration "{text}"')
        rest = rest[len(number) :]
        unit = rest[: len(rest) - len(rest.lstrip("abcdefghijklmnopqrstuvwxyzµμ"))]
        if not unit:
            raise ValueError(f'time: missing unit in duration "{text}"')
        if unit not in _DURATION_UNITS_NS:
            raise ValueError(f'time: unknown unit "{unit}" in duration "{text}"')
        rest = rest[len(unit) :]
        whole, _, fraction = number.partition(".")
        scale = _DURATION_UNITS_NS[unit]
        total += int(whole or "0") * scale
        if fraction:
            total += int(fraction) * scale // 10 ** len(fraction)
    return -total if text[0] == "-" else total


def _leading(text: str, allowed: str) -> str:
    return text[: len(text) - len(text.lstrip(allowed))]


_TIME_LAYOUTS = ("%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H", "%Y-%m-%d")


def parse_timestamp(text: str, now_s: float) -> str:
    """What `--since`/`--until` take, as the API's "seconds.nanoseconds".

    A duration counts back from now; a Unix time is itself; an RFC 3339 time may leave out the zone (then it is
    local), the seconds, minutes or the time of day. ValueError when it is none of these.
    """
    try:
        nanoseconds = parse_duration(text)
    except ValueError:
        pass
    else:
        return _seconds_text(int(now_s * 1e9) - nanoseconds)
    if text.replace(".", "", 1).lstrip("-").isdigit():
        return text
    return _seconds_text(_parse_rfc3339(text))


def _seconds_text(nanoseconds: int) -> str:
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    return f"{seconds}.{fraction:09d}"


def _parse_rfc3339(text: str) -> int:
    stem, offset_s = _split_zone(text)
    stem, _, fraction = stem.partition(".")
    if fraction and not fraction.isdigit():
        raise ValueError(text)
    for layout in _TIME_LAYOUTS:
        try:
            parts = time.strptime(stem, layout)
        except ValueError:
            continue
        if offset_s is None:
            seconds = int(time.mktime(parts))
        else:
            import calendar  # noqa: PLC0415 - only times with a zone need it

            seconds = calendar.timegm(parts) - offset_s
        return seconds * 1_000_000_000 + int((fraction + "0" * 9)[:9])
    raise ValueError(text)


def _split_zone(text: str) -> tuple[str, int | None]:
    """("2024-01-02T03:04:05", offset in seconds or None for local time)."""
    if text.endswith(("Z", "z")):
        return text[:-1], 0
    zone = text[-6:]
    if "T" in text and len(zone) == 6 and zone[0] in "+-" and zone[3] == ":" and (zone[1:3] + zone[4:]).isdigit():
        offset = int(zone[1:3]) * _HOUR + int(zone[4:]) * _MINUTE
        return text[:-6], -offset if zone[0] == "-" else offset
    return text, None


def time_flag(name: str, text: str, now_s: float) -> str:
    """The API's value of a `--since`/`--until` flag ("" stays ""); Failure in Docker's words when unreadable."""
    if not text:
        return ""
    try:
        return parse_timestamp(text, now_s)
    except ValueError:
        from pier.cli.errors import Failure  # noqa: PLC0415 - only for a wrong value

        raise Failure(f'invalid value for "{name}": failed to parse value as time or duration: "{text}"') from None
