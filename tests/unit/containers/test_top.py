"""`docker top`: what ps prints, read as Docker reads it, and the rows that need no ps."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import time
from typing import Any

import pytest

from pier.containers import processes, top
from pier.containers.start import NotRunning
from pier.kernel.cgroups import Cgroup


@pytest.mark.parametrize(
    ("output", "titles", "rows"),
    [
        ("  PID COMMAND\n    1 init\n   42 sh -c  x y\n", ["PID", "COMMAND"], [["42", "sh -c x y"]]),
        ("PPID PID CMD\n42 7 no\n1 42 yes\n", ["PPID", "PID", "CMD"], [["1", "42", "yes"]]),
        ("PID CMD PID\n42 sleep 1000 42\n", ["PID", "CMD", "PID"], [["42", "sleep", "1000 42"]]),
        ("PID CMD\n1 init\n- -\n42 a\n- -\n", ["PID", "CMD"], [["42", "a"], ["-", "-"]]),
        ("PID CMD\n42 nb\u00a0space\n", ["PID", "CMD"], [["42", "nb\u00a0space"]]),
        ("PID\n1\n", ["PID"], None),
    ],
)
def test_parse(output: str, titles: list[str], rows: list[list[str]] | None) -> None:
    answer = top.parse(output, {42})
    assert (answer.titles, answer.processes) == (titles, rows)


def test_output_without_pids() -> None:
    with pytest.raises(top.NoPidColumn, match="Couldn't find PID field in ps output"):
        top.parse("COMMAND\nsh\n", {42})
    with pytest.raises(top.UnexpectedPid, match="Unexpected pid 'x'"):
        top.parse("PID\nx\n", {42})
    with pytest.raises(top.UnexpectedPid):
        top.parse("CMD PID\nx\n", {42})


def test_another_column_is_not_passed_off_as_pids() -> None:
    top.check("-o pid=PID,comm")
    top.check("-eo pid=PID2")
    with pytest.raises(top.ColumnRenamed, match='specifying "ppid=PID" is not allowed'):
        top.check("-o ppid=PID")


STAT = "7 (a) b (c) S 1 7 7 34816 7 4194560 100 0 0 0 250 150 0 0 20 0 1 0 6000 2322432 300 18446744073709551615 1"


def test_stat_of_a_program_with_parentheses_in_its_name() -> None:
    assert processes.parse_stat(STAT) == processes.Stat("a) b (c", "S", 1, 34816, 400, 6000)


def test_row() -> None:
    now = 1_700_000_000.0
    stat = processes.parse_stat(STAT)
    shown = processes.row(7, "root", stat, "sh\0-c\0a\nb\0", boot_s=now - 100, now_s=now)
    clock = time.strftime("%H:%M", time.localtime(now - 40))
    assert shown == ["root", "7", "1", "10", clock, "pts/0", "00:00:04", "sh -c a?b"]
    assert processes.row(7, "root", stat._replace(state="Z"), "", boot_s=0, now_s=now)[-1] == "[a) b (c] <defunct>"


def test_small_columns() -> None:
    assert [processes.tty_name(number) for number in (0, 34816, 34817 + 256, 1025)] == ["?", "pts/0", "pts/257", "tty1"]
    assert [processes.cpu_time(seconds) for seconds in (59, 3600, 90061)] == ["00:00:59", "01:00:00", "1-01:01:01"]
    noon = time.mktime((2026, 11, 21, 12, 0, 0, 0, 0, -1))
    shown = [processes.start_time(started, noon) for started in (noon - 60, noon - 86400, noon - 400 * 86400)]
    assert shown == ["11:59", "Nov20", "2025"]


def test_a_long_name_is_cut_as_ps_cuts_it() -> None:
    entry = pwd.struct_passwd(("systemd-network", "x", 998, 998, "", "/", ""))
    assert processes.user_name(998, lambda _: entry) == "systemd+"
    assert processes.user_name(3_999_999_999) == "3999999999"


@pytest.mark.skipif(shutil.which("ps") is None, reason="no ps on this host")
def test_the_rows_are_those_of_ps() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(b"x")
            process.stdin.flush()
            assert process.stdout.read(1) == b"x", "it runs, under its own name"
            ours = processes.listing([process.pid, 2**22 + 1])
            theirs = subprocess.run(["ps", "-ef", f"-q{process.pid}"], capture_output=True, text=True, check=True)
        finally:
            process.kill()
    assert ours == top.parse(theirs.stdout, {process.pid}).processes


async def test_top_of_a_container(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cgroup, "pids", lambda self: [os.getpid()])
    await house.create()
    with pytest.raises(NotRunning):
        await house.service.top("web", "-ef")
    await house.service.start_container("web")
    answer = await house.service.top("web", "-ef")
    assert answer.titles == processes.TITLES
    assert [row[1] for row in answer.processes] == [str(os.getpid())]
    assert house.actions()[-1] == "top"


async def test_a_host_without_ps(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cgroup, "pids", lambda self: [os.getpid()])
    monkeypatch.setenv("PATH", "/nonexistent")
    await house.run()
    with pytest.raises(top.PsMissing, match="install procps"):
        await house.service.top("web", "aux")
    assert (await house.service.top("web", "-ef")).processes
