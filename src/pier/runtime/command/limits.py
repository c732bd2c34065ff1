"""`pause`, `resume`, `update`."""

from __future__ import annotations

import sys
from typing import Any

from pier.kernel.cgroup_layout import detect
from pier.runtime.command.bundle import RESOURCES, SIZE_MAX, parse_json, read_json
from pier.runtime.command.flags import Line
from pier.runtime.command.life import cgroup_of, require
from pier.runtime.command.main import Context
from pier.runtime.command.schema import without_nulls
from pier.runtime.command.state import Container, StateError
from pier.runtime.group import group_at

SIZE_UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}

_NUMBERS = (
    ("blkio-weight", "blockIO", "weight"),
    ("cpu-period", "cpu", "period"),
    ("cpu-quota", "cpu", "quota"),
    ("cpu-burst", "cpu", "burst"),
    ("cpu-share", "cpu", "shares"),
    ("cpu-rt-period", "cpu", "realtimePeriod"),
    ("cpu-rt-runtime", "cpu", "realtimeRuntime"),
    ("cpu-idle", "cpu", "idle"),
    ("cpuset-cpus", "cpu", "cpus"),
    ("cpuset-mems", "cpu", "mems"),
    ("pids-limit", "pids", "limit"),
)
_SIZES = (
    ("memory", "limit"),
    ("memory-reservation", "reservation"),
    ("memory-swap", "swap"),
)


def pause(context: Context, line: Line) -> int:
    container = Container(context.root, line.arguments[0])
    record = container.load()
    require(container, record, "running", "created")
    cgroup_of(record).freeze()
    return 0


def resume(context: Context, line: Line) -> int:
    container = Container(context.root, line.arguments[0])
    record = container.load()
    require(container, record, "paused")
    cgroup_of(record).thaw()
    return 0


def update(context: Context, line: Line) -> int:
    """Change limits of a container that is there."""
    container = Container(context.root, line.arguments[0])
    record = container.load()
    require(container, record, "running", "created", "paused")
    if line.text("l3-cache-schema") or line.text("mem-bw-schema"):
        raise StateError("Intel RDT: cache and memory bandwidth schemata are not implemented by Pier")
    if line.text("kernel-memory") or line.text("kernel-memory-tcp"):
        context.log.warning("Kernel memory settings are ignored and will be removed")
    source = line.text("resources")
    resources = _read(source) if source else from_options(line)
    resources.pop("devices", None)  # what a container may reach is decided when it is made
    for text in group_at(detect(), record.cgroup).apply(resources):
        context.log.warning(text)
    spec = container.load_spec()
    kept = spec.setdefault("linux", {}).setdefault("resources", {})
    for section, values in resources.items():
        kept[section] = {**kept.get(section, {}), **values} if isinstance(values, dict) else values
    container.save_spec(spec)
    return 0


def _read(source: str) -> dict[str, Any]:
    document = parse_json(sys.stdin.buffer.read(SIZE_MAX + 1), "resources") if source == "-" else read_json(source)
    RESOURCES(document, "")
    # 0 means "unchanged" in the format that runc documents.
    resources: dict[str, Any] = without_nulls(document)
    for section, values in resources.items():
        if isinstance(values, dict):
            resources[section] = {key: value for key, value in values.items() if value not in (0, "")}
    return resources


def from_options(line: Line) -> dict[str, Any]:
    """OCI's `linux.resources` for the options that were given. Raises StateError."""
    resources: dict[str, Any] = {}
    for option, section, key in _NUMBERS:
        if line.options[option] is not None:
            resources.setdefault(section, {})[key] = line.options[option]
    for option, key in _SIZES:
        if line.options[option] is not None:
            resources.setdefault("memory", {})[key] = parse_size(option, line.text(option))
    return resources


def parse_size(option: str, text: str) -> int:
    """`512m` in bytes, -1 for no limit. Raises StateError in runc's words."""
    if text == "-1":
        return -1
    number, unit = text.lower().removesuffix("ib").removesuffix("b"), ""
    if number and number[-1].isalpha():
        number, unit = number[:-1].strip(), number[-1]
    if not number.isascii() or not number.replace(".", "", 1).isdigit() or unit not in SIZE_UNITS:
        raise StateError(f"invalid value for {option}: invalid size: '{text}'")
    return int(float(number) * 1024 ** SIZE_UNITS[unit]) if "." in number else int(number) * 1024 ** SIZE_UNITS[unit]
