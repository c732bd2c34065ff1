"""Attacks 8, 9, 10 and 12 through `cp`: containers that move things about while the daemon is at their files."""

from __future__ import annotations

import contextlib
import gzip
import io
import lzma
import os
import shutil
import signal
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ..client import Client
from ..conftest import Daemon
from .conftest import archive, directory, entry, symlink
from .test_archives import LAYERS
from .test_trace import CODE, read_trace

pytestmark = pytest.mark.root

TURNS = 40
"""Copies of each race, in each direction."""
MEMORY_MIB = 64
"""What a bomb may add to the daemon."""


def swapper(there: str, here: str) -> str:
    """A shell line that makes `there` a directory with a file and a link to `here`, over and over."""
    return (
        f"mkdir -p {there}.dir; echo own >{there}.dir/file; ln -sfn {here} {there}.link; echo ready; "
        f"while :; do mv -T {there}.dir {there}; mv -T {there} {there}.dir; "
        f"cp -a {there}.link {there}; rm {there}; done"
    )


@pytest.mark.parametrize("where", ["root", "shared volume"])
def test_attack_08_cp_into_and_out_of_what_is_swapped(pier: Client, canary: Path, tmp_path: Path, where: str) -> None:
    (tmp_path / "shared").mkdir()
    mounts = ["-v", f"{tmp_path}/shared:/data"] if where == "shared volume" else []
    id = pier.run(*mounts, "busybox", "sh", "-c", f"mkdir -p /data; {swapper('/data/x', str(canary))}")
    log = pier.start("logs", "-f", id)
    log.read_until("ready")
    text = archive(entry("file", data="owned"), directory("sub"), entry("sub/new", data="owned"))
    outcomes = set()
    for _ in range(TURNS):
        outcomes.add(pier("cp", "-", f"{id}:/data/x", stdin=text).status)
        for path in ("/data/x/file", "/data/x/.", "/data"):
            done = pier("cp", f"{id}:{path}", "-")
            assert "untouched" not in done.out
    assert outcomes <= {0, 1}


def test_attack_08_absolute_links_of_the_container_are_followed_inside(pier: Client, tmp_path: Path) -> None:
    """The honest case that a fix for the attack once broke: /var/run -> /run."""
    id = pier.run("busybox", "sh", "-c", "mkdir -p /run /var; ln -sfn /run /var/run; echo ready; sleep 1000")
    pier.start("logs", "-f", id).read_until("ready")
    (tmp_path / "pid").write_text("1\n")
    pier.ok("cp", f"{tmp_path}/pid", f"{id}:/var/run/pid")
    assert pier.ok("exec", id, "cat", "/run/pid") == "1"
    pier.ok("cp", f"{id}:/var/run/pid", f"{tmp_path}/back")
    assert (tmp_path / "back").read_text() == "1\n"


def test_attack_08_mount_points_of_a_stopped_container(
    pier: Client, image_of: Callable[..., str], canary: Path, tmp_path: Path
) -> None:
    """Where a volume goes is resolved below the container's root: nothing is made or mounted outside."""
    (tmp_path / "volume").mkdir()
    image = image_of(symlink("data", str(canary)), symlink("up", "../" * 20 + str(canary)))
    id = pier.ok("create", "-v", f"{tmp_path}/volume:/data/new", "-v", f"{tmp_path}/volume:/up/newer", image, "true")
    before = Path("/proc/self/mountinfo").read_text()
    pier.ok("cp", f"{id}:/data", "-")
    pier.ok("cp", "-", f"{id}:/data/new", stdin=archive(entry("file", data="in the volume")))
    assert (tmp_path / "volume/file").read_text() == "in the volume"
    assert Path("/proc/self/mountinfo").read_text() == before


def test_attack_08_links_out_of_the_container_lead_nowhere(pier: Client, canary: Path) -> None:
    paths = {"/l": str(canary), "/m": "/proc/1/root", "/n": "/proc/self/cwd", "/o": "../" * 20 + str(canary)}
    script = "; ".join(f"ln -s {target} {link}" for link, target in paths.items())
    id = pier.run("busybox", "sh", "-c", f"{script}; echo ready; sleep 1000")
    pier.start("logs", "-f", id).read_until("ready")
    for link in paths:
        done = pier("cp", f"{id}:{link}/file", "-")
        assert (done.status, "untouched" in done.out) == (1, False)
        assert pier("cp", "-", f"{id}:{link}/", stdin=archive(entry("file", data="owned"))).status == 1


def test_attack_08_the_kernels_files_are_not_written(pier: Client) -> None:
    id = pier.run("--privileged", "busybox", "sh", "-c", "ln -s /proc/sys/kernel /l; echo ready; sleep 1000")
    pier.start("logs", "-f", id).read_until("ready")
    before = Path("/proc/sys/kernel/core_pattern").read_text()
    for path in ("/proc", "/sys", "/proc/sys/kernel", "/l", "/sys/kernel"):
        done = pier("cp", "-", f"{id}:{path}", stdin=archive(entry("core_pattern", data="|/owned")))
        assert done.status == 1, path
        if path in ("/proc", "/sys"):  # their mount points can be seen
            assert "the kernel's own file system" in done.err
    names = archive(entry("proc/sys/kernel/core_pattern", data="|/owned"))
    assert "the kernel's own file system" in pier("cp", "-", f"{id}:/", stdin=names).err
    assert Path("/proc/sys/kernel/core_pattern").read_text() == before


@pytest.mark.parametrize("name", LAYERS)
def test_attack_10_archives_into_a_container(pier: Client, canary: Path, name: str) -> None:
    id = pier.run("busybox", "sleep", "1000")
    done = pier("cp", "-", f"{id}:/tmp", stdin=archive(*LAYERS[name](canary)))
    if done.status:
        assert len(done.err.strip().splitlines()) == 1, done


@pytest.mark.parametrize("name", LAYERS)
def test_attack_10_archives_out_of_a_container(pier: Client, canary: Path, tmp_path: Path, name: str) -> None:
    """The client does not believe the daemon either; here the daemon is one that answers with the hostile archive."""
    from pier.cli.copy_tar import ChunkFile, unpack  # noqa: PLC0415 - the part of the client that is tried
    from pier.cli.errors import Failure  # noqa: PLC0415

    place = tmp_path / "place"
    place.mkdir()
    with contextlib.suppress(Failure):  # refused, or unpacked inside: the canary tells
        unpack(ChunkFile(iter([archive(*LAYERS[name](canary))])), str(place), None)


def memory_of(daemon: Daemon) -> int:
    """Resident, in MiB."""
    assert daemon.process is not None
    return int(Path(f"/proc/{daemon.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20


def test_attack_12_a_bomb_into_a_container(pier: Client, daemon: Daemon) -> None:
    id = pier.run("--tmpfs", "/small:size=1m", "busybox", "sleep", "1000")
    info = tarfile.TarInfo("zeros")
    info.size = 400 << 20
    text = io.BytesIO()
    with gzip.GzipFile(fileobj=text, mode="wb", compresslevel=9) as packed:
        packed.write(info.tobuf())
        for _ in range(400):
            packed.write(bytes(1 << 20))
    before = memory_of(daemon)
    done = pier("cp", "-", f"{id}:/small", stdin=text.getvalue())
    assert (done.status, "no space left on device" in done.err) == (1, True)
    assert memory_of(daemon) - before < MEMORY_MIB
    assert pier.ok("exec", id, "echo", "alive") == "alive"


@pytest.fixture
def traced(daemon: Daemon, tmp_path: Path) -> Iterator[Callable[[], tuple[list[str], list[str]]]]:
    """strace on the daemon; the call ends it: (opened after a container was entered, executed at all)."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    assert daemon.process is not None
    calls = "trace=execve,execveat,open,openat,setns,clone,clone3,fork,vfork"
    (tmp_path / "traces").mkdir()
    process = subprocess.Popen(
        ["strace", "-ff", "-p", str(daemon.process.pid), "-e", calls, "-o", str(tmp_path / "traces/trace")],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert process.stderr is not None
    if "attached" not in process.stderr.readline():
        process.wait()
        pytest.skip(f"strace cannot attach here: {process.stderr.read()}")

    def stop() -> tuple[list[str], list[str]]:
        process.send_signal(signal.SIGINT)
        process.wait(20)
        seen = read_trace(tmp_path / "traces")
        assert seen.entered > 0
        lines = [line for path in (tmp_path / "traces").glob("trace.*") for line in path.read_text().splitlines()]
        return seen.opened, [line for line in lines if line.startswith("execve")]

    try:
        yield stop
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_attack_09_nothing_of_the_container_is_loaded_or_run_by_cp(
    pier: Client, traced: Callable[[], tuple[list[str], list[str]]], image_of: Callable[..., str]
) -> None:
    hostile = [
        entry(f"{folder}/{name}", mode=0o755, data="x")
        for folder in ("usr/bin", "bin", "lib", "usr/lib/x86_64-linux-gnu")
        for name in ("xz", "unpigz", "gzip", "libnss_files.so.2", "encodings.py")
    ]
    image = image_of(*hostile, entry("etc/passwd", data="me:x:12:34::/:/bin/sh\n"), entry("tmp/x", data=""))
    id = pier.run("-u", "me", image, "sleep", "1000")
    for pack in (lzma.compress, gzip.compress):
        pier.ok("cp", "-a", "-", f"{id}:/tmp", stdin=pack(archive(entry("file", data="text"))))
    assert pier.ok("exec", id, "stat", "-c", "%u:%g", "/tmp/file") == "12:34"
    pier.ok("cp", f"{id}:/etc", "-")
    opened, executed = traced()
    assert [path for path in opened if CODE.search(path)] == []
    assert executed == []
