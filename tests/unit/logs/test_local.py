"""The local driver, from the monitor's writer to the daemon's reader."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pier.logs import Follower, Query, Watcher, read, read_all
from pier.logs.files import files_of
from pier.logs.query import frame
from pier.runtime.log import local
from pier.runtime.log.logfile import Log
from pier.runtime.request import LogFile

chunks = st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), st.binary(max_size=200)), max_size=30)


def text(path: Path, **query: object) -> bytes:
    return b"".join(read_all(str(path), Query(raw=True, **query), "local"))  # type: ignore[arg-type]


def open_log(path: Path, max_size: int = 0, max_files: int = 1) -> Log:
    return Log(LogFile(str(path), max_size, max_files, "local"))


@given(chunks, st.integers(0, 3000))
def test_every_byte_comes_back(
    tmp_path_factory: pytest.TempPathFactory, written: list[tuple[str, bytes]], max_size: int
) -> None:
    path = tmp_path_factory.mktemp("log") / "log"
    log = open_log(path, max_size, 1000)
    for stream, data in written:
        log.write(stream, data)
    log.close()
    for stream in ("stdout", "stderr"):
        expected = b"".join(data for name, data in written if name == stream)
        assert text(path, stdout=stream == "stdout", stderr=stream == "stderr") == expected


@given(st.lists(st.binary(max_size=40).map(lambda line: line.replace(b"\n", b" ")), max_size=40), st.integers(0, 50))
def test_tail_is_the_end_of_the_whole(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], count: int) -> None:
    path = tmp_path_factory.mktemp("log") / "log"
    log = open_log(path, 400, 1000)
    whole = b"".join(line + b"\n" for line in lines)
    for at in range(0, len(whole), 61):
        log.write("stdout", whole[at : at + 61])
    log.close()
    kept = lines[len(lines) - min(count, len(lines)) :]
    assert text(path, tail=count) == b"".join(line + b"\n" for line in kept)


def test_times_frames_and_streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log"
    log = open_log(path)
    for second, (stream, data) in enumerate([("stdout", b"a\nb\n"), ("stderr", b"c\n"), ("stdout", b"d")]):
        monkeypatch.setattr("time.time_ns", lambda second=second: second * 10**9 + 1)
        log.write(stream, data)
    log.close()
    monkeypatch.undo()
    assert b"".join(read_all(str(path), Query(), "local")) == frame(1, b"a\nb\n") + frame(2, b"c\n") + frame(1, b"d")
    assert text(path, timestamps=True, until_ns=5 * 10**8) == (
        b"1970-01-01T00:00:00.000000001Z a\n1970-01-01T00:00:00.000000001Z b\n"
    )
    assert text(path, since_ns=10**9) == b"c\nd"
    assert text(path, until_ns=2 * 10**9) == b"a\nb\nc\n"
    assert text(path, details=True, stderr=False) == b" a\n b\n d"


@pytest.mark.parametrize("torn", [1, 5, 12, 16, 17, 19])
def test_a_torn_end_is_mended_when_the_log_is_opened_again(tmp_path: Path, torn: int) -> None:
    path = tmp_path / "log"
    log = open_log(path)
    log.write("stdout", b"one\n")
    log.write("stdout", b"two\n")
    log.close()
    with path.open("ab") as file:
        file.write(local.encode("stdout", b"\n", 3)[:torn])
    assert text(path, tail=1) == b"two\n"
    log = open_log(path)
    log.write("stdout", b"three\n")
    log.close()
    assert text(path) == b"one\ntwo\nthree\n"


async def test_follow_reads_through_rotation(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log, running = open_log(path, 2000, 1000), [True]

    async def follow() -> bytes:
        follower = Follower(Watcher(), lambda: running[0], lambda: None)
        batches = read(str(path), Query(raw=True), driver="local", follower=follower)
        return b"".join([batch async for batch in batches])

    following = asyncio.create_task(follow())
    for number in range(500):
        log.write("stdout", f"{number}\n".encode())
        if number % 50 == 0:
            await asyncio.sleep(0.01)
    log.close()
    running[0] = False
    assert await following == b"".join(f"{number}\n".encode() for number in range(500))
    assert len(files_of(str(path))) > 5
