"""The process beside the monitor: one at a time, once more for what came meanwhile, buried."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pier.runtime.monitor.compressor import Compressor
from pier.runtime.monitor.poll import Poller


def children() -> list[str]:
    return Path("/proc/thread-self/children").read_text().split()


def test_what_comes_meanwhile_is_done_after_it(tmp_path: Path) -> None:
    poller, path = Poller(), f"{tmp_path}/log"
    (tmp_path / "log.1").write_bytes(b"text" * 1000)
    before = children()
    compressor = Compressor(poller, path, 3)
    compressor()
    compressor()
    assert len(children()) == len(before) + 1
    while (tmp_path / "log.1").exists():
        poller.run_once(5)
    (tmp_path / "log.2").write_bytes(b"more" * 1000)
    compressor()
    while children() != before:
        poller.run_once(5)
    assert sorted(os.listdir(tmp_path)) == ["log.1.gz", "log.2.gz"]
    poller.close()


def test_what_cannot_be_compressed_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poller = Poller()
    monkeypatch.setattr(os, "O_TMPFILE", 1 << 30, raising=False)  # a file system without nameless files
    (tmp_path / "log.1").write_bytes(b"text")
    before = children()
    Compressor(poller, f"{tmp_path}/log", 3)()
    while children() != before:
        poller.run_once(5)
    assert os.listdir(tmp_path) == ["log.1"]
    poller.close()
