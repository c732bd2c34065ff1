"""Log drivers and their options: what may be asked for, and what the monitor is told. Pure.

A log rotates unless it is told not to: 100 MB five times for json-file, which Docker lets grow until the disk is full,
and Docker's own 20 MB five times for local. `max-size=-1` is a log without end. Drivers that hand the output on keep a
log of the `local` kind beside it, so that it can be read here too (Docker's dual logging).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from pier.containers import log_attributes, log_forwards
from pier.containers.record import Record
from pier.errors import InvalidParameter, NotImplementedYet
from pier.model.booleans import parse_bool
from pier.model.host_config import LogConfig
from pier.runtime.request import LogFile

ROTATION = ("max-size", "max-file", "compress")
CACHE = ("cache-disabled", "cache-max-size", "cache-max-file", "cache-compress")
DELIVERY = ("mode", "max-buffer-size")
MODES = ("", "blocking", "non-blocking")
UNLIMITED = "-1"
MAX_FILES = 10_000

_SIZE = re.compile(r"(\d+)\s*([kmgt]?)i?b?", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Driver:
    """One driver: its options, and how it rotates where none is set."""

    options: frozenset[str]
    max_size: str = UNLIMITED
    max_file: int = 1
    compress: bool = False
    """Where it does not say, and there is more than one file."""
    suffix: str = ""
    """Of the log's file, after the container's id; empty: nothing is kept."""


DRIVERS = {
    "json-file": Driver(frozenset((*ROTATION, *DELIVERY, *log_attributes.OPTIONS)), "100m", 5, suffix="-json.log"),
    "local": Driver(frozenset((*ROTATION, *DELIVERY)), "20m", 5, compress=True, suffix="-local.log"),
    "none": Driver(frozenset()),
    "syslog": Driver(frozenset((*log_attributes.OPTIONS, *log_forwards.SYSLOG_OPTIONS, *CACHE, *DELIVERY))),
    "journald": Driver(frozenset((*log_attributes.OPTIONS, *CACHE, *DELIVERY))),
}
LATER_DRIVERS = frozenset({"fluentd", "gelf", "awslogs", "splunk", "gcplogs"})


@dataclass(frozen=True, slots=True)
class Rotation:
    """When a log's file is full, how many are kept, and how."""

    max_size_bytes: int
    """0: never."""
    max_files: int
    compress: bool = False


def check(log: LogConfig) -> None:
    """Driver and options, the daemon's defaults already filled in. Raises InvalidParameter, NotImplementedYet."""
    if log.type in LATER_DRIVERS:
        raise NotImplementedYet(what=f"the logging driver {log.type}")
    driver = DRIVERS.get(log.type)
    if driver is None:
        raise InvalidParameter(f'error looking up logging plugin {log.type}: plugin "{log.type}" not found')
    options = log.config or {}
    for name in sorted(options):
        if name not in driver.options:
            raise InvalidParameter(f"unknown log opt '{name}' for {log.type} log driver")
    if options.get("mode", "") not in MODES:
        raise InvalidParameter(f"logger: logging mode not supported: {options['mode'][:24]}")
    if options.get("max-buffer-size"):
        size_bytes(options["max-buffer-size"])
    log_attributes.check(options)
    if log.type == "syslog":
        log_forwards.check_syslog(options)
    if log.type in log_forwards.FORWARDS:
        _is_true(options.get("cache-disabled", "false"), "cache-disabled")
        driver, options = DRIVERS["local"], cache_options(options)
    rotation(driver, options)


def cache_options(options: Mapping[str, str]) -> dict[str, str]:
    """The options of the log kept beside a service's, as those of `local`."""
    return {name: options[f"cache-{name}"] for name in ROTATION if options.get(f"cache-{name}")}


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
        return Rotation(0, 1, _compress(driver, options, 1))
    return Rotation(size_bytes(size), files, _compress(driver, options, files))


def _compress(driver: Driver, options: Mapping[str, str], files: int) -> bool:
    asked = _is_true(options["compress"], "compress") if options.get("compress") else None
    if asked and files == 1:
        raise InvalidParameter(
            "compress cannot be true when max-file is less than 2 or max-size is not set"
            if driver is DRIVERS["json-file"]
            else "compression cannot be enabled when max file count is 1"
        )
    return files > 1 and (driver.compress if asked is None else asked)


def log_file(record: Record, folder: str) -> LogFile | None:
    """What the monitor writes of a container; None: nothing can be read of it. Checked before."""
    log = record.host_config.log_config
    name, options = log.type, log.config or {}
    if name in log_forwards.FORWARDS:
        if _is_true(options.get("cache-disabled", "false"), "cache-disabled"):
            return None
        name, options = "local", cache_options(options)
    driver = DRIVERS[name]
    if not driver.suffix:
        return None
    wanted = rotation(driver, options)
    path = f"{folder}/{record.id}{driver.suffix}"
    attrs = attrs_json(record, options)
    return LogFile(path, wanted.max_size_bytes, wanted.max_files, name, attrs, compress=wanted.compress)


def attrs_json(record: Record, options: Mapping[str, str]) -> str:
    """What each entry of a json-file says of its container, as JSON; empty: nothing."""
    found = log_attributes.attributes(record, options)
    if options.get("tag"):
        found["tag"] = log_attributes.tag(record, options)
    return json.dumps(found, separators=(",", ":"), sort_keys=True) if found else ""


def monitor_log(record: Record, folder: str) -> LogFile | None:
    """What the monitor of a container about to start is told of its log. Blocking: a service that gets the output must
    answer. Raises DriverFailed."""
    log = record.host_config.log_config
    kept = log_file(record, folder)
    if log.type not in log_forwards.FORWARDS:
        return kept
    forward = log_forwards.FORWARDS[log.type](record, log.config or {})
    log_forwards.try_out(forward)
    return (kept or LogFile("", driver="local"))._replace(forward=forward)


def size_bytes(text: str) -> int:
    """`10m` as bytes, units being powers of 1024. Raises InvalidParameter."""
    match = _SIZE.fullmatch(text.strip()) if len(text) <= 24 else None
    if match is None or int(match[1]) == 0:
        raise InvalidParameter(f"invalid size: '{text[:24]}'")
    return int(match[1]) << {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}[match[2].lower()]


def _is_true(text: str, option: str) -> bool:
    """Raises InvalidParameter."""
    try:
        return parse_bool(text)
    except ValueError:
        raise InvalidParameter(f"invalid value for {option}: '{text[:24]}'") from None
