"""The leak check itself: each kind of thing that is left behind is seen, and fails the session."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import leaks
from pier.kernel.netlink import NetlinkSocket
from pier.kernel.nftables import Nftables

pytestmark = pytest.mark.root
TESTS = Path(__file__).resolve().parents[2]
NAME = "pier-leak"


def run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


@contextmanager
def mount(folder: Path) -> Iterator[str]:
    run("mount", "-t", "tmpfs", NAME, str(folder))
    try:
        yield f"mount {folder} (tmpfs)"
    finally:
        run("umount", str(folder))


@contextmanager
def device(_: Path) -> Iterator[str]:
    with NetlinkSocket() as link:
        link.create_bridge(NAME, mac="02:00:00:00:00:01")
        try:
            yield f"network device {NAME}"
        finally:
            link.delete_link(link.link_index(NAME))


@contextmanager
def cgroup(_: Path) -> Iterator[str]:
    hierarchy = next(path for path in (Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup")) if path.is_dir())
    group = hierarchy / NAME / "container"
    group.mkdir(parents=True)
    try:
        yield f"cgroup {group}"
    finally:
        group.rmdir()
        group.parent.rmdir()


@contextmanager
def table(_: Path) -> Iterator[str]:
    firewall = Nftables()
    firewall.run(f"add table inet {NAME}")
    try:
        yield f"nft table inet {NAME}"
    finally:
        firewall.run(f"delete table inet {NAME}")
        firewall.close()


@contextmanager
def process(folder: Path) -> Iterator[str]:
    """A monitor, as far as its name tells, in a network namespace of its own."""
    program = folder / NAME
    program.write_text("#!/bin/sh\nread line\n")
    program.chmod(0o755)
    with subprocess.Popen(["unshare", "-n", str(program)], stdin=subprocess.PIPE) as child:
        comm = Path(f"/proc/{child.pid}/comm")
        while comm.read_text().strip() != NAME:
            time.sleep(0.001)
        try:
            yield f"process {child.pid} /bin/sh {program}"
        finally:
            child.kill()


@contextmanager
def file(_: Path) -> Iterator[str]:
    path = Path("/dev/shm") / NAME
    path.touch()
    try:
        yield f"file {path}"
    finally:
        path.unlink()


@pytest.mark.parametrize("leak", [mount, device, cgroup, table, process, file])
def test_it_is_seen_and_seen_to_be_gone(leak: object, tmp_path: Path) -> None:
    before = leaks.snapshot()
    with leak(tmp_path) as line:  # type: ignore[operator]
        found = leaks.leaks(before, settle_s=0)
        assert line in found
        if leak is process:
            assert any(other.startswith("namespace net:") for other in found)
    assert line not in leaks.leaks(before, settle_s=5)


def test_what_ends_in_the_background_is_waited_for(tmp_path: Path) -> None:
    before = leaks.snapshot()
    with process(tmp_path) as line:
        pid = int(line.split()[1])
        ending = threading.Timer(0.2, lambda: (os.kill(pid, signal.SIGKILL), os.waitpid(pid, 0)))
        ending.start()
        assert line not in leaks.leaks(before, settle_s=10)
        ending.join()


def test_a_leak_fails_the_session(tmp_path: Path) -> None:
    left = tmp_path / "left"
    left.mkdir()
    module = tmp_path / "test_leaky.py"
    module.write_text(
        "import subprocess\n"
        "def test_leaky():\n"
        f"    subprocess.run(['mount', '-t', 'tmpfs', 'left', '{left}'], check=True)\n"
    )
    environment = {**os.environ, "PIER_LEAK_CHECK": "1", "PYTHONPATH": str(TESTS), "PIER_LEAK_SETTLE_S": "0.2"}
    command = [sys.executable, "-m", "pytest", "-p", "conftest", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
    try:
        ended = subprocess.run(
            [*command, str(module)], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )
    finally:
        run("umount", str(left))
    assert ended.returncode == 8, "not 1, which gives tests that fail a second chance"
    assert f"mount {left} (tmpfs)" in ended.stdout
