"""The results as text: a table for the terminal, and RESULTS.md for whoever reads the repository."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from pathlib import Path

from engines import Engine
from samples import Row, Samples


def markdown(engines: list[Engine], rows: list[Row], rounds: int) -> str:
    """RESULTS.md: where, what, how fast, and whether that is what was aimed at."""
    columns = list(dict.fromkeys(name for row in rows for name in row.columns))
    lines = ["# Pier and its peer", "", *_circumstances(engines, rounds), ""]
    lines += ["Each cell: median (least). Share: Pier's median as a part of the other's.", ""]
    lines += ["| measure | unit | " + " | ".join(columns) + " | share |", "|---|---|" + "---:|" * (len(columns) + 1)]
    for row in rows:
        cells = [_cell(row.columns.get(name)) for name in columns]
        lines.append(f"| {row.name} | {row.unit} | " + " | ".join(cells) + f" | {_shares(row)} |")
    lines += ["", "## Targets", "", "| measure | target | reached | met |", "|---|---|---|---|"]
    lines += [_verdict(row) for row in rows if row.target is not None]
    return "\n".join(lines) + "\n"


def _circumstances(engines: list[Engine], rounds: int) -> list[str]:
    versions = [f"{engine.name} {engine.docker('version', '--format', '{{.Server.Version}}')}" for engine in engines]
    for engine in engines:
        if engine.box is not None:
            versions += [_first_line([engine.box, "run", name, "--version"]) for name in ("runc", "crun")]
    commit = _first_line(["git", "-C", Path(__file__).parent, "rev-parse", "--short", "HEAD"])
    return [
        f"Measured on {time.strftime('%Y-%m-%d', time.gmtime())} by `make bench` at commit {commit}, engines in turn "
        f"(A B A B …), {rounds} rounds.",
        "",
        f"- Machine: {os.cpu_count()} cores, {_memory_gb():.0f} GB, Linux {platform.release()}",
        f"- Load average when it ended, the benchmark's own share included: {os.getloadavg()[0]:.1f}",
        f"- Python {platform.python_version()}, {_first_line(['docker', '--version'])}",
        f"- Engines: {', '.join(versions)}",
        *([] if len(engines) > 1 else ["- No peer: set PEER_DOCKER_HOST to the Docker Engine to compare with"]),
    ]


def _memory_gb() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9


def _first_line(argv: list[str | Path]) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.stdout.strip().splitlines()[0] if done.stdout.strip() else ""


def _cell(samples: Samples | None) -> str:
    if samples is None or not samples.values:
        return ""
    return _number(samples.median) + (f" ({_number(samples.least)})" if len(samples.values) > 1 else "")


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _shares(row: Row) -> str:
    others = [name for name in row.columns if not name.startswith("pier")]
    return ", ".join(f"{row.share(name):.2f} of {name}" for name in others if row.columns[name].median)


def _verdict(row: Row) -> str:
    assert row.target is not None
    if row.met is None:
        reached = "no peer"
    elif row.target.of is None:
        reached = f"{_number(row.columns[row.subject].median)} {row.unit}"
    else:
        reached = f"{row.share(row.target.of):.2f}"
    return f"| {row.name} | {row.target.text} | {reached} | {'yes' if row.met else '-' if row.met is None else 'no'} |"
