"""`pier stats`: what containers use, live or once (`--no-stream`)."""

from __future__ import annotations

import os
import select
import time

from pier.cli.each import path
from pier.cli.flags import Command, Flag
from pier.cli.format import render, short_id
from pier.cli.jsontext import loads
from pier.cli.out import STDOUT, encode, out, write
from pier.cli.units import binary_size, human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pier.cli.flags import Options
    from pier.cli.format import Fields
    from pier.cli.http import Response
    from pier.cli.main import Context

COMMAND = Command(
    "[OPTIONS] [CONTAINER...]",
    flags=(
        Flag("all", "a", "bool", "Show stopped containers too"),
        Flag("format", "", "string", "table, 'table TEMPLATE', json, or a Go template"),
        Flag("no-stream", "", "bool", "Show one measurement and end"),
        Flag("no-trunc", "", "bool", "Show IDs in full"),
    ),
    arity=(0, None),
)
COLUMNS = ("ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs")
_REFRESH_S = 0.5
_CLEAR, _CLEAR_LINE, _CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"


def run(cx: Context, opts: Options, args: list[str]) -> int:
    if opts["no-stream"]:
        out(_text(opts, _once(cx, opts, args)))
        return 0
    return _live(cx, opts, args)


def _names(cx: Context, opts: Options, args: list[str]) -> list[str]:
    """The containers to show: those named, else all that run (or all)."""
    return args or [container["Id"] for container in cx.client.get("/containers/json", all=opts["all"])]


def _once(cx: Context, opts: Options, args: list[str]) -> list[dict[str, Any]]:
    """One measurement of each; all are under way at once, because the daemon takes a second for each."""
    requests = [(name, _request(cx, name, stream=False)) for name in _names(cx, opts, args)]
    return [{**response.json(), "Container": name} for name, response in requests]


def _request(cx: Context, name: str, *, stream: bool) -> Response:
    client = cx.another_client()
    return client.request("GET", path("containers", name, "stats"), query={"stream": 1 if stream else 0})


def _live(cx: Context, opts: Options, args: list[str]) -> int:
    """Redraw as measurements come; new containers join and ended ones leave when none were named."""
    streams: dict[str, _Stream] = {}
    while True:
        if not args or not streams:
            for name in _names(cx, opts, args):
                if name not in streams:
                    streams[name] = _Stream(name, _request(cx, name, stream=True))
        _collect(streams, time.monotonic() + _REFRESH_S)
        if not args or len(streams) > 1:
            streams = {name: stream for name, stream in streams.items() if args or not stream.ended}
        _draw(_text(opts, [stream.latest for stream in streams.values()]))
        if args and all(stream.ended for stream in streams.values()):
            return 0


class _Stream:
    """One container's measurements as they come."""

    def __init__(self, name: str, response: Response) -> None:
        self.lines = response.lines()
        self.response = response
        self.latest: dict[str, Any] = {"Container": name, "id": name}
        self.ended = False

    def advance(self) -> None:
        line = next(self.lines, None)
        if line is None:
            self.ended = True
        else:
            self.latest = {**loads(line), "Container": self.latest["Container"]}


def _collect(streams: dict[str, _Stream], until: float) -> None:
    """Take measurements until a moment of time.monotonic()."""
    while (left := until - time.monotonic()) > 0:
        by_fd = {stream.response.fileno(): stream for stream in streams.values() if not stream.ended}
        poll = select.poll()
        for fd in by_fd:
            if fd >= 0:
                poll.register(fd, select.POLLIN)
        for fd, _ in poll.poll(left * 1000):
            by_fd[fd].advance()
        for stream in streams.values():
            stream.ended = stream.ended or stream.response.fileno() < 0


def _draw(text: str) -> None:
    if os.isatty(STDOUT):
        text = _CLEAR + text.replace("\n", _CLEAR_LINE + "\n") + _CLEAR_BELOW
    write(STDOUT, encode(text))


def _text(opts: Options, rows: list[dict[str, Any]]) -> str:
    return render(view(trunc=not opts["no-trunc"]), COLUMNS, opts["format"], rows, "*container.statsContext")


def view(*, trunc: bool) -> Fields:
    """The fields of a ContainerStatsResponse."""
    return {
        "Container": ("CONTAINER", lambda s: s["Container"]),
        "ID": ("CONTAINER ID", lambda s: short_id(s.get("id", "")) if trunc else s.get("id", "")),
        "Name": ("NAME", lambda s: s.get("name", "--").removeprefix("/")),
        "CPUPerc": ("CPU %", lambda s: f"{cpu_percent(s):.2f}%"),
        "MemUsage": ("MEM USAGE / LIMIT", lambda s: f"{binary_size(memory(s)[0])} / {binary_size(memory(s)[1])}"),
        "MemPerc": ("MEM %", lambda s: f"{memory_percent(s):.2f}%"),
        "NetIO": ("NET I/O", lambda s: " / ".join(human_size(n, 3) for n in network_io(s))),
        "BlockIO": ("BLOCK I/O", lambda s: " / ".join(human_size(n, 3) for n in block_io(s))),
        "PIDs": ("PIDS", lambda s: str((s.get("pids_stats") or {}).get("current", 0))),
    }


def cpu_percent(stats: dict[str, Any]) -> float:
    """Share of one CPU between the two measurements (400 % is four CPUs); 0 without a first one."""
    now, before = stats.get("cpu_stats") or {}, stats.get("precpu_stats") or {}
    used = (now.get("cpu_usage") or {}).get("total_usage", 0) - (before.get("cpu_usage") or {}).get("total_usage", 0)
    passed = now.get("system_cpu_usage", 0) - before.get("system_cpu_usage", 0)
    cpus = now.get("online_cpus", 0) or len((now.get("cpu_usage") or {}).get("percpu_usage") or [])
    return used / passed * cpus * 100.0 if passed > 0 and used > 0 else 0.0


def memory(stats: dict[str, Any]) -> tuple[int, int]:
    """(bytes in use without the page cache that can be dropped, limit in bytes)."""
    facts = stats.get("memory_stats") or {}
    details = facts.get("stats") or {}
    usage = facts.get("usage", 0)
    cache = details.get("total_inactive_file", details.get("inactive_file", 0))
    return (usage - cache if cache < usage else usage), facts.get("limit", 0)


def memory_percent(stats: dict[str, Any]) -> float:
    usage, limit = memory(stats)
    return usage / limit * 100.0 if limit else 0.0


def network_io(stats: dict[str, Any]) -> tuple[int, int]:
    """(bytes received, bytes sent) over all networks."""
    networks = (stats.get("networks") or {}).values()
    return sum(n.get("rx_bytes", 0) for n in networks), sum(n.get("tx_bytes", 0) for n in networks)


def block_io(stats: dict[str, Any]) -> tuple[int, int]:
    """(bytes read, bytes written) over all devices."""
    read = written = 0
    for entry in (stats.get("blkio_stats") or {}).get("io_service_bytes_recursive") or []:
        initial = entry.get("op", "")[:1].lower()
        read += entry["value"] if initial == "r" else 0
        written += entry["value"] if initial == "w" else 0
    return read, written
