"""What processes weigh: PSS from /proc (a page that n processes share counts 1/n), and who belongs to whom."""

from __future__ import annotations

import os
from pathlib import Path

PROC = Path("/proc")


def pss_mb(pid: int) -> float:
    """The proportional set size of one process in MB (proc(5), smaps_rollup)."""
    for line in (PROC / str(pid) / "smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"process {pid} has no PSS")


def all_pids() -> list[int]:
    return [int(entry) for entry in os.listdir(PROC) if entry.isdigit()]


def command_line(pid: int) -> list[str]:
    try:
        return (PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def name(pid: int) -> str:
    try:
        return (PROC / str(pid) / "comm").read_text().strip()
    except OSError:
        return ""


def parent(pid: int) -> int:
    try:
        return int((PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def children(pid: int) -> list[int]:
    return [other for other in all_pids() if parent(other) == pid]


def forget_peak(pid: int) -> None:
    """Let the peak of the resident set begin anew (proc(5), clear_refs)."""
    (PROC / str(pid) / "clear_refs").write_text("5")


def peak_mb(pid: int) -> float:
    """The most that was resident since the start, or since `forget_peak`, in MB."""
    for line in (PROC / str(pid) / "status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"process {pid} has no peak")


def cpu_s(pid: int) -> float:
    """Seconds of processor time that a process has used, its threads together (proc_pid_stat(5))."""
    fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
