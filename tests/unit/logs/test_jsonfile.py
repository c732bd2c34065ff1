from __future__ import annotations

import asyncio
import io
import json
import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from pier.logs import Follower, Query, Watcher, read, read_all
from pier.logs.files import files_of
from pier.logs.jsonfile import render
from pier.logs.jsonfile import tail as tail_of
from pier.logs.query import frame
from pier.runtime.log.logfile import Log
from pier.runtime.request import LogFile

STAMP = "2026-01-02T03:04:{:02d}.000000006Z"
AT_NS = 1_767_323_040_000_000_006


def entry(text: str, stream: str = "stdout", second: int = 0) -> bytes:
    return json.dumps({"log": text, "stream": stream, "time": STAMP.format(second)}).encode() + b"\n"


def write(path: Path, entries: Iterable[bytes]) -> str:
    path.write_bytes(b"".join(entries))
    return str(path)


def text(path: str, **query: object) -> str:
    return b"".join(read_all(path, Query(raw=True, **query))).decode()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (Query(), frame(1, b"a\n")),
        (Query(raw=True), b"a\n"),
        (Query(stdout=False), b""),
        (Query(raw=True, timestamps=True), b"2026-01-02T03:04:00.000000006Z a\n"),
        (Query(raw=True, since_ns=AT_NS), b"a\n"),
        (Query(raw=True, since_ns=AT_NS + 1), b""),
        (Query(raw=True, until_ns=AT_NS), b"a\n"),
        (Query(raw=True, details=True), b" a\n"),
    ],
)
def test_render(query: Query, expected: bytes) -> None:
    assert render(entry("a\n").rstrip(b"\n"), query) == expected


@pytest.mark.parametrize("line", [b"", b"{", b'{"log":3}', b"\x00\x00", b'{"log":"a\\n","stream":"stdout"}'])
def test_a_torn_line_is_passed_over(line: bytes) -> None:
    assert render(line, Query(raw=True, timestamps=True)) == b""


@pytest.mark.parametrize("tail", [0, 1, 2, 7, 5000, 20_000])
def test_tail_is_the_end_of_the_whole(tmp_path: Path, tail: int) -> None:
    lines = [f"{'x' * (n % 40)}{n}\n" for n in range(10_000)]
    path = write(tmp_path / "log", [entry(line) for line in lines])
    assert text(path, tail=tail) == "".join(lines[len(lines) - min(tail, len(lines)) :])


@pytest.mark.parametrize(
    ("data", "count", "expected"),
    [
        (b"", 3, (0, 0)),
        (b"a\n", 1, (0, 1)),
        (b"a\nb\n", 1, (2, 1)),
        (b"a\nb", 1, (2, 1)),
        (b"a\nb\nc\n", 2, (2, 2)),
        (b"a\n" * 70_000, 69_999, (2, 69_999)),
        (b"a\n", 0, (2, 0)),
    ],
)
def test_tail(data: bytes, count: int, expected: tuple[int, int]) -> None:
    assert tail_of(io.BytesIO(data), count)[:2] == expected


def test_only_newlines_end_lines(tmp_path: Path) -> None:
    odd = "a\u2028b\x85c\x0bd\re\n"
    path = write(tmp_path / "log", [json.dumps({"log": odd, "stream": "stdout"}, ensure_ascii=False).encode() + b"\n"])
    assert text(path) == odd


def test_rotated_files_come_oldest_first(tmp_path: Path) -> None:
    path = write(tmp_path / "log", [entry("5\n"), entry("6\n")])
    write(tmp_path / "log.1", [entry("3\n"), entry("4\n")])
    write(tmp_path / "log.2", [entry("1\n"), entry("2\n")])
    assert files_of(path) == [f"{path}.2", f"{path}.1", path]
    assert text(path) == "1\n2\n3\n4\n5\n6\n"
    assert text(path, tail=3) == "4\n5\n6\n"


def test_nothing_after_until(tmp_path: Path) -> None:
    path = write(tmp_path / "log", [entry(f"{n}\n", second=n) for n in range(5)])
    assert text(path, until_ns=AT_NS + 2_000_000_000) == "0\n1\n2\n"


def test_a_missing_log_is_empty_and_a_link_is_not_followed(tmp_path: Path) -> None:
    assert text(str(tmp_path / "none")) == ""
    os.symlink("/etc/passwd", tmp_path / "log")
    assert text(str(tmp_path / "log")) == ""


async def follow(path: str, running: list[bool], **query: object) -> str:
    pieces = [
        piece
        async for piece in read(
            path,
            Query(raw=True, **query),  # type: ignore[arg-type]
            follower=Follower(Watcher(), lambda: running[0], lambda: None),
        )
    ]
    return b"".join(pieces).decode()


async def test_follow_reads_through_rotation_to_the_end(tmp_path: Path) -> None:
    path = str(tmp_path / "log")
    log = Log(LogFile(path, 2000, 1000))
    running = [True]
    following = asyncio.create_task(follow(path, running))
    for number in range(500):
        log.write("stdout", f"{number}\n".encode())
        if number % 50 == 0:
            await asyncio.sleep(0.01)
    log.close()
    running[0] = False
    assert await following == "".join(f"{number}\n" for number in range(500))
    assert len(files_of(path)) > 10


async def test_follow_begins_before_there_is_a_log(tmp_path: Path) -> None:
    path, running = str(tmp_path / "log"), [True]
    following = asyncio.create_task(follow(path, running, tail=5))
    await asyncio.sleep(0.02)
    write(tmp_path / "log", [entry("first\n")])
    await asyncio.sleep(0.05)
    running[0] = False
    assert await following == "first\n"


async def test_a_half_written_line_waits_for_its_end(tmp_path: Path) -> None:
    path, running, line = tmp_path / "log", [True], entry("whole\n")
    path.write_bytes(line[:10])
    following = asyncio.create_task(follow(str(path), running))
    await asyncio.sleep(0.03)
    with path.open("ab") as file:
        file.write(line[10:])
    running[0] = False
    assert await following == "whole\n"
