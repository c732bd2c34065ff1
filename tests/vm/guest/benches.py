"""`pier-runtime` in the test machine: command lines in forks of the test's own process."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.unit.runtime.bundles import Bench, Result, a_bench

from pier.runtime.command import main


@dataclass
class ForkedBench(Bench):
    """Runs a command line in a fork: the start of an interpreter takes this machine most of a second."""

    options: list[str] = field(default_factory=list)
    """Global ones, of every command line."""

    def fork(self, args: tuple[str, ...], stdout: int, stderr: int) -> int:
        """Start a command line; returns its pid."""
        pid = os.fork()
        if pid:
            return pid
        code = 70
        try:
            null = os.open("/dev/null", os.O_RDWR)
            for number, fd in enumerate((null, stdout, stderr)):
                os.dup2(fd, number)
            sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
            code = main.run([*self.options, "--root", str(self.root), *args])
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)

    def call(self, *args: str, **options: Any) -> Result:
        out, err = self.folder / "out", self.folder / "err"
        with out.open("w") as stdout, err.open("w") as stderr:
            pid = self.fork(args, options.get("stdout", stdout.fileno()), stderr.fileno())
            _, status = os.waitpid(pid, 0)
        return Result(os.waitstatus_to_exitcode(status), out.read_text(), err.read_text())

    def ok(self, *args: str) -> str:
        result = self.call(*args)
        assert result.code == 0, result.err
        return result.out

    def start(self, container_id: str, script: str, **options: Any) -> None:
        self.spec["process"]["args"] = ["sh", "-c", script]
        result = self.make("create", container_id, **options)
        assert result.code == 0, result.err
        self.ok("start", container_id)


def ends(pidfd: int) -> bool:
    """Wait for the end of a process that is not a child of ours."""
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(30_000))


@pytest.fixture
def bench(tmp_path: Path, busybox_root: Path) -> Iterator[ForkedBench]:
    for bench in a_bench(tmp_path, busybox_root):
        yield ForkedBench(bench.folder, bench.rootfs, bench.spec, bench.used)
