"""A log as the monitor writes it: json-file."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pier.runtime.log.json_file import rfc3339
from pier.runtime.log.lines import PARTIAL_MAX
from pier.runtime.log.logfile import Log
from pier.runtime.request import LogFile


def entries(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().split("\n") if line]


def texts(path: Path) -> list[str]:
    return [entry["log"] for entry in entries(path)]


def test_lines_streams_and_times(tmp_path: Path) -> None:
    log = Log(LogFile(str(tmp_path / "log")))
    log.write("stdout", b"one\ntwo\nthr")
    log.write("stderr", b"err\n")
    log.write("stdout", b"ee\nrest")
    log.close()
    assert [(entry["stream"], entry["log"]) for entry in entries(tmp_path / "log")] == [
        ("stdout", "one\n"),
        ("stdout", "two\n"),
        ("stderr", "err\n"),
        ("stdout", "three\n"),
        ("stdout", "rest"),
    ]
    assert all(entry["time"].endswith("Z") and len(entry["time"]) == 30 for entry in entries(tmp_path / "log"))


def test_only_newline_ends_a_line(tmp_path: Path) -> None:
    odd = "a\u2028b\x85c\x0bd\re\n"
    log = Log(LogFile(str(tmp_path / "log")))
    log.write("stdout", odd.encode())
    log.close()
    assert texts(tmp_path / "log") == [odd]


def test_long_lines_are_split_at_16_kib_as_docker_does(tmp_path: Path) -> None:
    log = Log(LogFile(str(tmp_path / "log")))
    for _ in range(5):
        log.write("stdout", b"x" * 9000)
    log.write("stdout", b"\n")
    log.close()
    assert [len(text) for text in texts(tmp_path / "log")] == [PARTIAL_MAX, PARTIAL_MAX, 45001 - 2 * PARTIAL_MAX]
    assert "".join(texts(tmp_path / "log")) == "x" * 45000 + "\n"


def test_bytes_that_are_not_utf8_do_not_stop_the_log(tmp_path: Path) -> None:
    log = Log(LogFile(str(tmp_path / "log")))
    log.write("stdout", b"\xff\xfe ok\n")
    log.close()
    assert texts(tmp_path / "log") == ["\ufffd\ufffd ok\n"]


@given(st.lists(st.binary(max_size=50), max_size=20))
def test_whatever_is_written_comes_back(tmp_path_factory: pytest.TempPathFactory, chunks: list[bytes]) -> None:
    path = tmp_path_factory.mktemp("log") / "log"
    log = Log(LogFile(str(path)))
    for chunk in chunks:
        log.write("stdout", chunk)
    log.close()
    whole = b"".join(chunks)
    expected = [(line + b"\n").decode("utf-8", "replace") for line in whole.split(b"\n")]
    expected[-1] = expected[-1][:-1]
    assert texts(path) == [text for text in expected if text]


def test_rotation_keeps_the_newest_files(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = Log(LogFile(str(path), max_size_bytes=1000, max_files=3))
    for number in range(100):
        log.write("stdout", f"line {number}\n".encode())
    log.close()
    assert sorted(item.name for item in tmp_path.iterdir()) == ["log", "log.1", "log.2"]
    assert all(item.stat().st_size <= 1000 for item in tmp_path.iterdir())
    kept = texts(tmp_path / "log.2") + texts(tmp_path / "log.1") + texts(path)
    assert kept == [f"line {number}\n" for number in range(100 - len(kept), 100)]


def test_a_full_disk_leaves_no_torn_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log"
    log = Log(LogFile(str(path)))
    log.write("stdout", b"before\n")
    real, left = os.write, [10]

    def full(fd: int, data: bytes) -> int:
        """As write(2): what there is room for is taken and counted, and the next call refused."""
        if not left:
            raise OSError(28, "No space left on device")
        return real(fd, bytes(data)[: left.pop()])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        log.write("stdout", b"lost\n")
    monkeypatch.undo()
    log.write("stdout", b"after\n")
    log.close()
    assert texts(path) == ["before\n", "after\n"]


def test_rfc3339_has_nine_digits() -> None:
    assert rfc3339(1_700_000_000_000_000_001) == "2023-11-14T22:13:20.000000001Z"
