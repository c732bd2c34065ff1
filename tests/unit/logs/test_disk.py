"""Logs on the disk: measured, and emptied under whoever writes and reads them (trap 22)."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pier.logs import Query, truncate, usage
from pier.logs.reader import Reader
from pier.runtime.log.logfile import Log
from pier.runtime.request import LogFile


def texts(data: bytes) -> list[str]:
    return [line for line in data.decode().split("\n") if line]


def test_all_files_count_in_blocks(tmp_path: Path) -> None:
    path = tmp_path / "log"
    assert usage(str(path)) == (0, 0)
    for name, size in (("log", 5000), ("log.1", 9000), ("log.3", 1)):
        (tmp_path / name).write_bytes(b"x" * size)
    sizes = [os.stat(tmp_path / name).st_blocks * 512 for name in ("log", "log.1")]
    assert usage(str(path)) == (2, sum(sizes))  # log.3 without log.2 is not of this log


def test_trap_22_emptied_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = Log(LogFile(str(path), max_size_bytes=600, max_files=3))
    for number in range(12):
        log.write("stdout", b"line %d\n" % number)
    assert (tmp_path / "log.1").exists()
    assert truncate(str(path)) > 0
    assert [file.name for file in tmp_path.iterdir()] == ["log"]
    for number in range(4):  # what the writer believes to be in the file does not make it rotate
        log.write("stdout", b"after %d\n" % number)
    log.close()
    assert [file.name for file in tmp_path.iterdir()] == ["log"]
    assert [json.loads(line)["log"] for line in path.read_text().splitlines()] == [f"after {n}\n" for n in range(4)]


def test_a_failed_write_after_it_is_cut_back_to_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log"
    log = Log(LogFile(str(path)))
    log.write("stdout", b"x" * 1000 + b"\n")
    truncate(str(path))
    log.write("stdout", b"kept\n")
    whole = path.read_bytes()
    write = os.write
    calls = []

    def full(fd: int, data: bytes) -> int:
        calls.append(fd)
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        return write(fd, data[:10])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        log.write("stdout", b"torn\n")
    monkeypatch.undo()
    assert path.read_bytes() == whole


def test_a_follower_reads_on_from_the_new_beginning(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = Log(LogFile(str(path)))
    log.write("stdout", b"one\ntwo\n")
    reader = Reader(str(path), Query(stdout=True, stderr=True, raw=True), "json-file", grows=True)
    assert texts(reader.read()) == ["one", "two"]
    truncate(str(path))
    assert reader.read() == b""
    log.write("stdout", b"three\n")
    assert texts(reader.read()) == ["three"]
    reader.close()
    log.close()


def test_no_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"keep")
    (tmp_path / "log").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="symbolic"):
        truncate(str(tmp_path / "log"))
    assert (tmp_path / "precious").read_bytes() == b"keep"


def test_a_reader_of_what_there_is_does_not_chase_the_writer(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = Log(LogFile(str(path)))
    log.write("stdout", b"one\n")
    reader = Reader(str(path), Query(stdout=True, stderr=True, raw=True), "json-file")
    log.write("stdout", b"two\n")
    assert texts(reader.read()) == ["one"]
    assert reader.read() == b""
    reader.close()
    log.close()
