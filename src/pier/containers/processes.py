"""What `ps -ef` tells of processes, read from /proc (proc_pid_stat(5), ps(1)), for hosts that have no `ps`."""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

TITLES = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
USER_WIDTH = 8
HIGHEST_SHARE = 99
PTS_MAJORS = range(136, 144)
DAY_S = 86400


class Stat(NamedTuple):
    """The fields of /proc/PID/stat that are shown."""

    command: str
    state: str
    ppid: int
    tty: int
    cpu_ticks: int
    start_ticks: int
    """After the machine's boot."""


def listing(pids: Iterable[int]) -> list[list[str]]:
    """A row of TITLES for each process; one that has ended meanwhile has none. Blocking (NSS is asked for names)."""
    now_s = time.time()
    boot_s = now_s - time.clock_gettime(time.CLOCK_BOOTTIME)
    rows = []
    for pid in pids:
        try:
            uid = os.stat(f"/proc/{pid}").st_uid
            stat = parse_stat(_read(f"/proc/{pid}/stat"))
            arguments = _read(f"/proc/{pid}/cmdline")
        except OSError:
            continue
        rows.append(row(pid, user_name(uid), stat, arguments, boot_s=boot_s, now_s=now_s))
    return rows


def _read(path: str) -> str:
    with open(path, "rb") as file:
        return file.read().decode(errors="replace")


def user_name(uid: int, find: Callable[[int], pwd.struct_passwd] = pwd.getpwuid) -> str:
    """The host's name of a user as ps shows it: the number where there is none, cut to eight columns."""
    try:
        name = find(uid).pw_name
    except KeyError:
        return str(uid)
    return name if len(name) <= USER_WIDTH else name[: USER_WIDTH - 1] + "+"


def parse_stat(text: str) -> Stat:
    """The command stands in parentheses and may hold anything, parentheses too."""
    head, _, tail = text.rpartition(")")
    fields = tail.split()
    # fields[0] is the third of the man page
    return Stat(
        command=head.partition("(")[2],
        state=fields[0],
        ppid=int(fields[1]),
        tty=int(fields[4]),
        cpu_ticks=int(fields[11]) + int(fields[12]),
        start_ticks=int(fields[19]),
    )


def row(pid: int, user: str, stat: Stat, arguments: str, *, boot_s: float, now_s: float) -> list[str]:
    """One line of `ps -ef`. Pure but for the time zone."""
    started_s = boot_s + stat.start_ticks / TICKS_PER_S
    ran_s = max(now_s - started_s, 1.0)
    used_s = stat.cpu_ticks / TICKS_PER_S
    share = min(int(used_s * 100 / ran_s), HIGHEST_SHARE)
    return [
        user,
        str(pid),
        str(stat.ppid),
        str(share),
        start_time(started_s, now_s),
        tty_name(stat.tty),
        cpu_time(int(used_s)),
        command(stat, arguments),
    ]


def start_time(started_s: float, now_s: float) -> str:
    """`12:04` of today, `Nov21` of this year, else the year."""
    started, now = time.localtime(started_s), time.localtime(now_s)
    if started.tm_year != now.tm_year:
        return time.strftime("%Y", started)
    return time.strftime("%H:%M" if started.tm_yday == now.tm_yday else "%b%d", started)


def cpu_time(seconds: int) -> str:
    """`[days-]hours:minutes:seconds`."""
    days, rest = divmod(seconds, DAY_S)
    hours, rest = divmod(rest, 3600)
    return (f"{days}-" if days else "") + f"{hours:02}:{rest // 60:02}:{rest % 60:02}"


def tty_name(number: int) -> str:
    """`pts/0`, `tty1`, or `?` for none (the kernel's device number, low and high bits of the minor apart)."""
    major, minor = (number >> 8) & 0xFFF, (number & 0xFF) | ((number >> 12) & 0xFFF00)
    if major in PTS_MAJORS:
        return f"pts/{minor + 256 * (major - PTS_MAJORS.start)}"
    return f"tty{minor}" if major == 4 else "?"


def command(stat: Stat, arguments: str) -> str:
    """The command line in one line; the program's name in brackets where the process shows none."""
    if stat.state == "Z":
        return f"[{stat.command}] <defunct>"
    text = arguments.rstrip("\0").replace("\0", " ")
    return "".join(c if c.isprintable() else "?" for c in text) if text else f"[{stat.command}]"
