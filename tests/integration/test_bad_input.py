"""What is wrong from the start: no such image anywhere, a disk that is full. One clear line, and nothing is left."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .archives import docker_archive, tar_of
from .client import Client
from .conftest import Daemon, poll

pytestmark = pytest.mark.root

DISK_BYTES = 16 << 20


# --- images


@pytest.mark.parametrize("words", [["run", "--rm"], ["create"]])
def test_trap_15_an_image_whose_registry_cannot_be_reached(docker: Client, daemon: Daemon, words: list[str]) -> None:
    done = docker(*words, "127.0.0.1:9/nobody/nothing:1", "true")
    assert done.status == (125 if "run" in words else 1)
    first, second, *_ = done.err.splitlines()
    assert first == "Unable to find image '127.0.0.1:9/nobody/nothing:1' locally"
    assert "127.0.0.1:9" in second
    assert "connection refused" in second
    assert docker.ok("images", "-q", "127.0.0.1:9/nobody/nothing") == ""


def test_trap_15_a_host_that_has_no_address(docker: Client, daemon: Daemon) -> None:
    done = docker("pull", "registry.invalid/app")
    assert done.status == 1
    (line,) = done.err.splitlines()
    assert "registry.invalid" in line
    assert "proxies" in line, "what can be set"


@pytest.mark.parametrize("name", ["UPPER", "a b", "-x/..", "x:y:z", "x@sha256:123"])
def test_a_name_that_is_none(docker: Client, name: str) -> None:
    done = docker("run", "--rm", "--", name)
    assert done.status == 125
    assert done.err.startswith("docker: invalid reference format")


# --- a full disk


@pytest.fixture
def full(own_daemon: Daemon, starter_images: list[Path]) -> Client:
    """A daemon whose data root has 16 MB and is seen by it alone, and Docker's command line against it."""
    own_daemon.data_root.mkdir(mode=0o700)
    mount = 'mount -t tmpfs -o mode=700,size="$0" tmpfs "$1" && shift && exec "$@"'
    own_daemon.within = ["unshare", "-m", "sh", "-c", mount, str(DISK_BYTES), str(own_daemon.data_root)]
    own_daemon.start()
    assert own_daemon.pier("import", str(starter_images[0]), "busybox:latest").status == 0
    return Client(own_daemon.environment, "busybox")


def data_root(daemon: Daemon) -> Path:
    """The data root as the daemon sees it."""
    assert daemon.process is not None
    return Path(f"/proc/{daemon.process.pid}/root{daemon.data_root}")


def used_bytes(daemon: Daemon) -> int:
    info = os.statvfs(data_root(daemon))
    return (info.f_blocks - info.f_bfree) * info.f_frsize


def fill(daemon: Daemon) -> None:
    """Take every byte there is."""
    with (data_root(daemon) / "filling").open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


@pytest.mark.parametrize("command", ["load", "import"])
def test_a_disk_that_fills_while_an_image_comes_in(own_daemon: Daemon, full: Client, command: str) -> None:
    layer = tar_of({"big": os.urandom(2 * DISK_BYTES)})
    before, images = used_bytes(own_daemon), full.ok("images", "-aq")
    words, data = (["load"], docker_archive(["big:1"], [layer])) if command == "load" else (["import", "-"], layer)
    done = full(*words, stdin=data)
    assert done.status == 1
    (line,) = done.err.strip().splitlines()
    assert "no space left on device" in line.lower()
    assert full.ok("images", "-aq") == images
    poll(lambda: used_bytes(own_daemon) <= before + 65536, "the space to be free again")
    assert full.ok("run", "--rm", "busybox", "echo", "goes on") == "goes on"


def test_a_program_that_fills_the_disk(own_daemon: Daemon, full: Client) -> None:
    done = full("run", "--name", "filler", "busybox", "dd", "if=/dev/zero", "of=/big", "bs=64k")
    assert done.status == 1
    assert "No space left on device" in done.err
    assert full.state("filler") == "exited"
    full.ok("rm", "filler")
    assert full.ok("run", "--rm", "busybox", "echo", "goes on") == "goes on"


def test_on_a_full_disk_containers_end_and_go(own_daemon: Daemon, full: Client) -> None:
    for name in ("stopped", "killed", "forced"):
        full.run("busybox", "sh", "-c", "echo begun; exec sleep 1000", name=name)
    fill(own_daemon)
    assert full.state("stopped") == "running"
    assert full.ok("logs", "stopped") == "begun"
    full.ok("stop", "-t", "0", "stopped")
    full.ok("kill", "killed")
    full.ok("rm", "-f", "forced")
    full.ok("rm", "stopped", "killed")
    assert full.ids() == set()
    done = full("run", "--rm", "busybox", "true")
    assert done.status in (0, 125)
    (data_root(own_daemon) / "filling").unlink()
    assert full.ok("run", "--rm", "busybox", "echo", "goes on") == "goes on"
    assert "Traceback" not in own_daemon.log.read_text()


def test_a_log_that_cannot_be_written_does_not_stop_the_program(own_daemon: Daemon, full: Client) -> None:
    script = "echo begun; while ! [ -e /dev/shm/go ]; do sleep 0.02; done; yes | head -c 2000000; exit 5"
    full.run("busybox", "sh", "-c", script, name="talker")
    poll(lambda: full.ok("logs", "talker") == "begun", "the first line")
    fill(own_daemon)
    full.ok("exec", "talker", "touch", "/dev/shm/go")
    assert full.ok("wait", "talker") == "5"
    full.ok("rm", "talker")
