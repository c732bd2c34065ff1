"""Log drivers and their options: what may be asked for, and what the monitor is told. Pure.

A log rotates unless it is told not to: 100 MB five times for json-file, which Docker lets grow until the disk is full,
and Docker's own 20 MB five times for local. `max-size=-1` is a log without end.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from pier.errors import InvalidParameter, NotImplementedYet
from pier.model.host_config import LogConfig
from pier.runtime.request import LogFile

ATTRIBUTES = ("labels", "labels-regex", "env", "env-regex", "tag")
ROTATION = ("max-size", "max-file", "compress")
UNLIMITED = "-1"
MAX_FILES = 10_000
COMPRESS_WARNING = "Pier does not compress rotated logs. The option compress has no effect."

_SIZE = re.compile(r"(\d+)\s*([kmgt]?)i?b?", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Driver:
    """One driver: its options, and how it rotates where none is set."""

    options: frozenset[str]
    max_size: str = UNLIMITED
    max_file: int = 1
    suffix: str = ""
    """Of the log's file, after the container's id; empty: nothing is kept."""


DRIVERS = {
    "json-file": Driver(frozenset((*ROTATION, *ATTRIBUTES)), "100m", 5, "-json.log"),
    "local": Driver(frozenset(ROTATION), "20m", 5, "-local.log"),
    "none": Driver(frozenset()),
}
LATER_DRIVERS = frozenset({"journald", "syslog", "fluentd", "gelf", "awslogs", "splunk", "gcplogs"})


@dataclass(frozen=True, slots=True)
class Rotation:
    """When a log's file is full, and how many are kept."""

    max_size_bytes: int
    """0: never."""
    max_files: int


def check(log: LogConfig) -> list[str]:
    """Driver and options, the daemon's defaults already filled in; returns warnings.

    Raises InvalidParameter, NotImplementedYet.
    """
    if log.type in LATER_DRIVERS:
        raise NotImplementedYet(what=f"the logging driver {log.type}")
    driver = DRIVERS.get(log.type)
    if driver is None:
        raise InvalidParameter(f'error looking up logging plugin {log.type}: plugin "{log.type}" not found')
    options = log.config or {}
    for name in sorted(options):
        if name not in driver.options:
            raise InvalidParameter(f"unknown log opt '{name}' for {log.type} log driver")
    for name in ATTRIBUTES:
        if options.get(name):
            raise NotImplementedYet(what=f"--log-opt {name}")
    rotation(driver, options)
    return [COMPRESS_WARNING] if _is_true(options.get("compress", "false")) else []


def rotation(driver: Driver, options: Mapping[str, str]) -> Rotation:
    """As the options ask, and the driver's own where they are silent. Raises InvalidParameter.

    `max-size` alone keeps one json-file, as with Docker, and five local ones.
    """
    size = options.get("max-size", driver.max_size)
    alone = "max-size" in options and driver is DRIVERS["json-file"]
    text = options.get("max-file", "1" if alone or size == UNLIMITED else str(driver.max_file))
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:6]) <= MAX_FILES:
        raise InvalidParameter(f"max-file cannot be less than 1: {text[:24]!r}")
    files = int(text)
    if size == UNLIMITED:
        if files > 1:
            raise InvalidParameter("max-file: a maximum size is needed too (max-size)")
        return Rotation(0, 1)
    return Rotation(size_bytes(size), files)


def log_file(log: LogConfig, folder: str, id: str) -> LogFile | None:
    """What the monitor writes for container `id`; None: nothing (`--log-driver none`). Checked before."""
    driver = DRIVERS[log.type]
    if not driver.suffix:
        return None
    wanted = rotation(driver, log.config or {})
    return LogFile(f"{folder}/{id}{driver.suffix}", wanted.max_size_bytes, wanted.max_files, log.type)


def size_bytes(text: str) -> int:
    """`10m` as bytes, units being powers of 1024. Raises InvalidParameter."""
    match = _SIZE.fullmatch(text.strip()) if len(text) <= 24 else None
    if match is None or int(match[1]) == 0:
        raise InvalidParameter(f"invalid size: '{text[:24]}'")
    return int(match[1]) << {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}[match[2].lower()]


def _is_true(text: str) -> bool:
    """Go's strconv.ParseBool. Raises InvalidParameter."""
    if text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if text in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise InvalidParameter(f"invalid value for compress: '{text[:24]}'")
