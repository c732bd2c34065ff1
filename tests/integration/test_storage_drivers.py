"""Containers on every snapshot driver, through Docker's own command line."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .client import Client
from .conftest import Daemon

pytestmark = pytest.mark.root


@contextlib.contextmanager
def on_btrfs(daemon: Daemon) -> Iterator[None]:
    """The data root on a btrfs of its own, in a file."""
    image = daemon.root / "btrfs"
    with image.open("wb") as file:
        file.truncate(256 << 20)
    daemon.data_root.mkdir(mode=0o700)
    try:
        subprocess.run(["mkfs.btrfs", "-q", str(image)], check=True, capture_output=True)
        subprocess.run(["mount", "-o", "loop", str(image), str(daemon.data_root)], check=True, capture_output=True)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no btrfs here: {error}")
    try:
        yield
    finally:
        if daemon.process is not None:
            daemon.clear()
            daemon.process = None
        subprocess.run(["umount", str(daemon.data_root)], check=True)


@pytest.fixture(params=["overlay2", "vfs", "btrfs"])
def docker(request: pytest.FixtureRequest, own_daemon: Daemon, starter_images: list[Path]) -> Iterator[Client]:
    with contextlib.ExitStack() as stack:
        if request.param == "btrfs":
            stack.enter_context(on_btrfs(own_daemon))
        own_daemon.flags += ["--storage-driver", request.param]
        own_daemon.start()
        assert own_daemon.pier("import", "--change", 'CMD ["sh"]', str(starter_images[0]), "busybox:latest").status == 0
        client = Client(own_daemon.environment, "busybox")
        stack.callback(client.close)
        assert client.ok("info", "--format", "{{.Driver}}").strip() == request.param
        yield client


def test_a_container_s_life(docker: Client) -> None:
    docker.ok("run", "--name", "box", "busybox", "sh", "-c", "echo kept >/file; rm /bin/true; id -u; touch /etc/x")
    assert docker.ok("start", "-a", "box").splitlines() == ["0"]
    box = json.loads(docker.ok("inspect", "--size", "box"))[0]
    assert box["SizeRw"] == len("kept\n")
    assert box["SizeRootFs"] > box["SizeRw"]
    assert box["GraphDriver"]["Data"]
    other = docker.ok("run", "--rm", "busybox", "sh", "-c", "ls /file; test -e /bin/true && echo untouched")
    assert other.splitlines()[-1] == "untouched"
    assert (
        docker.ok("run", "--rm", "--read-only", "busybox", "sh", "-c", "touch /x || echo no").splitlines()[-1] == "no"
    )
    assert "/tmp" in docker.ok("run", "--rm", "-v", "/var/tmp:/tmp", "busybox", "mount")
    docker.ok("rm", "box")
    status = dict(json.loads(docker.ok("info", "--format", "{{json .DriverStatus}}")))
    assert status["Backing Filesystem"] in ("extfs", "btrfs", "xfs")


def test_nothing_shows_on_the_host(docker: Client) -> None:
    """T10 for every driver: the root of a running container is in no mount table of the host's."""
    before = Path("/proc/self/mountinfo").read_text()
    docker.ok("run", "-d", "--name", "runs", "busybox", "sleep", "60")
    assert Path("/proc/self/mountinfo").read_text().count("snapshots") == before.count("snapshots")
    docker.ok("rm", "-f", "runs")


def test_a_size_is_kept_or_refused(docker: Client) -> None:
    done = docker(
        "run", "--rm", "--storage-opt", "size=8M", "busybox", "dd", "if=/dev/zero", "of=/big", "bs=1M", "count=20"
    )
    assert done.status != 0
    if docker.ok("info", "--format", "{{.Driver}}").strip() == "btrfs":
        assert "Disk quota exceeded" in done.err
    else:
        assert "--storage-opt is supported only for overlay over xfs with 'pquota' mount option" in done.err
    assert "Unknown option speed" in docker("create", "--storage-opt", "speed=1", "busybox").err


def test_trap_01_drivers_that_are_not_there_are_refused_with_what_to_use(own_daemon: Daemon) -> None:
    for name, advice in (("aufs", "use overlay2"), ("devicemapper", "use overlay2"), ("zfs", "overlay2 works on ZFS")):
        own_daemon.flags = ["--storage-driver", name]
        with pytest.raises(AssertionError, match="pierd ended at once"):
            own_daemon.start()
        own_daemon.process = None
        text = own_daemon.log.read_text()
        assert f'storage driver "{name}" is not available' in text
        assert advice in text
        assert "Available here: overlay2, vfs" in text
        assert "Traceback" not in text


def test_cp_into_and_out_of_a_container_that_runs_and_one_that_does_not(docker: Client, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text\n")
    (tmp_path / "volume").mkdir()
    id = docker.ok("create", "-v", f"{tmp_path}/volume:/deep/volume", "busybox", "sleep", "1000")
    for _ in range(2):
        docker.ok("cp", f"{tmp_path}/file", f"{id}:/copied")
        docker.ok("cp", f"{tmp_path}/file", f"{id}:/deep/volume/copied")
        docker.ok("cp", f"{id}:/copied", f"{tmp_path}/back")
        assert (tmp_path / "back").read_text() == "text\n"
        (tmp_path / "back").unlink()
        (tmp_path / "volume/copied").unlink()
        docker.ok("start", id)
    assert docker.ok("exec", id, "cat", "/copied") == "text"
    docker.ok("rm", "-f", id)
