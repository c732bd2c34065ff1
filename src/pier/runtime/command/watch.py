"""`ps`, `events`."""

from __future__ import annotations

import os
import select
import sys
import time
from typing import Any

from pier.kernel.cgroup_layout import detect
from pier.kernel.cgroup_stats import CgroupStats, IOEntry
from pier.kernel.cgroups import Cgroup
from pier.runtime.command.flags import Line
from pier.runtime.command.life import cgroup_of, status
from pier.runtime.command.listing import format_of
from pier.runtime.command.main import Context
from pier.runtime.command.output import dump
from pier.runtime.command.state import Container, StateError
from pier.runtime.group import group_at

UNLIMITED = 9223372036854771712
"""What v1 shows for "no limit", and runc's events with it."""
OOM_POLL_S = 0.5


# --- ps --------------------------------------------------------------------------------------------------------------


def ps(context: Context, line: Line) -> int:
    """Processes of the container, by the pids its cgroup knows; the table is the host's `ps`."""
    container_id, *options = line.arguments
    pids = cgroup_of(Container(context.root, container_id).load()).pids()
    if format_of(line) == "json":
        sys.stdout.write(dump(pids) + "\n")
        return 0
    sys.stdout.write(only_pids(_output_of(["ps", *(options or ["-ef"])]), set(pids)))
    return 0


def only_pids(text: str, pids: set[int]) -> str:
    """The heading of ps's output, and the lines of these processes. Raises StateError where there is no PID column."""
    heading, *lines = text.splitlines() or [""]
    if "PID" not in heading.split():
        raise StateError("couldn't find PID field in ps output")
    column = heading.split().index("PID")
    kept = [entry for entry in lines if entry.split()[column : column + 1] and int(entry.split()[column]) in pids]
    return "".join(f"{entry}\n" for entry in [heading, *kept])


def _output_of(args: list[str]) -> str:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        pid = os.posix_spawnp(args[0], args, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, writer, 1)])
    except FileNotFoundError:
        os.close(reader)
        raise StateError(f"{args[0]}: not found on this host; use --format json") from None
    finally:
        os.close(writer)
    with open(reader, encoding="utf-8", errors="replace") as file:
        text = file.read()
    if os.waitpid(pid, 0)[1]:
        raise StateError(f"{' '.join(args)} failed")
    return text


# --- events ----------------------------------------------------------------------------------------------------------


def events(context: Context, line: Line) -> int:
    """Statistics at an interval, and a line for each time the kernel ran out of the container's memory."""
    container = Container(context.root, line.arguments[0])
    record = container.load()
    interval_s = parse_duration(line.text("interval"))
    if interval_s <= 0:
        raise StateError("duration interval must be greater than 0")
    if status(container, record) == "stopped":
        raise StateError(f"container with id {record.id} is not running")
    cgroup = group_at(detect(), record.cgroup)
    if line.on("stats"):
        _print_event("stats", record.id, statistics(cgroup))
        return 0
    pidfd = os.pidfd_open(record.pid)
    seen = cgroup.oom_kills()
    next_at = time.monotonic() + interval_s
    ended = False
    while not ended:
        ended = bool(select.select([pidfd], [], [], min(OOM_POLL_S, max(next_at - time.monotonic(), 0)))[0])
        # Once more after its end, which is what a lack of memory leads to.
        if (now := cgroup.oom_kills()) > seen:
            seen = now
            _print_event("oom", record.id, None)
        if not ended and time.monotonic() >= next_at:
            next_at += interval_s
            _print_event("stats", record.id, statistics(cgroup))
    return 0


def _print_event(kind: str, container_id: str, data: dict[str, Any] | None) -> None:
    document = {"type": kind, "id": container_id} | ({} if data is None else {"data": data})
    sys.stdout.write(dump(document) + "\n")
    sys.stdout.flush()


UNITS_S = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse_duration(text: str) -> float:
    """Go's `1m30s` in seconds. Raises StateError."""
    sign, rest = (-1, text[1:]) if text.startswith("-") else (1, text)
    if rest == "0":
        return 0.0
    total, number = 0.0, ""
    while rest:
        if rest[0].isdigit() or rest[0] == ".":
            number, rest = number + rest[0], rest[1:]
            continue
        unit = next((unit for unit in ("ns", "us", "ms", "s", "m", "h") if rest.startswith(unit)), None)
        if unit is None or not number or number.count(".") > 1:
            raise StateError(f'invalid duration "{text}"')
        total, number, rest = total + float(number) * UNITS_S[unit], "", rest[len(unit) :]
    if number or not text:
        raise StateError(f'invalid duration "{text}"')
    return sign * total


def statistics(cgroup: Cgroup) -> dict[str, Any]:
    """runc's `data` of a stats event."""
    stats = cgroup.stats()
    pids: dict[str, Any] = {"current": stats.pids_current}
    if stats.pids_limit is not None:
        pids["limit"] = stats.pids_limit
    return {
        "cpu": _cpu(stats),
        "cpuset": {},
        "memory": _memory(stats),
        "pids": pids,
        "blkio": _block_io(stats),
        "hugetlb": {},
        "intel_rdt": {},
        "network_interfaces": None,
    }


def _cpu(stats: CgroupStats) -> dict[str, Any]:
    usage: dict[str, Any] = {"total": stats.cpu_total_ns}
    if stats.cpu_percpu_ns:
        usage["percpu"] = stats.cpu_percpu_ns
    usage |= {"kernel": stats.cpu_system_ns, "user": stats.cpu_user_ns}
    throttling = {
        "periods": stats.cpu_periods,
        "throttledPeriods": stats.cpu_throttled_periods,
        "throttledTime": stats.cpu_throttled_ns,
    }
    return {"usage": usage, "throttling": {key: value for key, value in throttling.items() if value}}


def _memory(stats: CgroupStats) -> dict[str, Any]:
    cache = stats.memory_stat.get("cache" if stats.version == 1 else "file", 0)
    document: dict[str, Any] = {"cache": cache} if cache else {}
    document["usage"] = {
        "limit": UNLIMITED if stats.memory_limit is None else stats.memory_limit,
        "usage": stats.memory_usage,
        "max": stats.memory_max_usage,
        "failcnt": stats.memory_failcnt,
    }
    document["swap"] = {"limit": UNLIMITED, "usage": stats.memory_usage + stats.swap_usage, "failcnt": 0}
    document["raw"] = stats.memory_stat
    return document


def _block_io(stats: CgroupStats) -> dict[str, Any]:
    entries = {
        "ioServiceBytesRecursive": [_entry(item) for item in stats.io_service_bytes],
        "ioServicedRecursive": [_entry(item) for item in stats.io_serviced],
    }
    return {key: value for key, value in entries.items() if value}


def _entry(item: IOEntry) -> dict[str, Any]:
    return {"major": item.major, "minor": item.minor, "op": item.op, "value": item.value}
