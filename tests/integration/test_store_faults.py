"""Attack 26 on a real daemon: killed, or out of disk, at marked points of a load (all points: `tests/unit/images`)."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pier.storage import ContentStore, Setup, choose_driver
from pier.storage.verify import leftovers, verify

from .archives import docker_archive, tar_of
from .conftest import FIRST, Daemon, made_daemon, poll

pytestmark = pytest.mark.root

LAYERS = [tar_of({"bin/busybox": Path("/bin/busybox").read_bytes()}), tar_of({"etc/note": b"kept\n"})]
IMAGE = docker_archive(["loaded:1"], LAYERS, Cmd=["/bin/busybox", "cat", "/etc/note"])
POINTS = [
    "blob-written",
    "blob-named:2",
    "layer-entry:2",
    "layer-flushed",
    "layer-named:2",
    "index-flushed",
    "index-named",
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data root of a daemon that has started once: the points of a store that is made are not those of a load."""
    with made_daemon(FIRST + 1) as daemon:
        daemon.start()
        daemon.stop()
        return shutil.copytree(daemon.data_root, tmp_path_factory.mktemp("store") / "data")


def armed(daemon: Daemon, name: str, deed: str) -> None:
    point, _, count = name.partition(":")
    daemon.within = ["env", f"PIER_FAULT={point}:{deed}:{count or 1}"]
    daemon.start()
    daemon.within = []


def check(daemon: Daemon) -> None:
    """Of a daemon that has ended."""
    content = ContentStore(str(daemon.data_root / "content"))
    snapshots = choose_driver(str(daemon.data_root), setup=Setup(leases=content.leases))
    content.recipes.open_layer = snapshots.open_layer
    assert verify(content, snapshots) == []
    snapshots.close()
    assert leftovers(content, str(daemon.data_root / "snapshots" / snapshots.name)) == []


def works(daemon: Daemon) -> None:
    loaded = daemon.docker("load", stdin=IMAGE)
    assert (loaded.status, loaded.out) == (0, "Loaded image: loaded:1\n"), loaded.err
    assert daemon.docker("run", "--rm", "loaded:1").out == "kept\n"


@pytest.mark.parametrize("name", POINTS)
def test_attack_26_a_daemon_killed_in_a_load(own_daemon: Daemon, store: Path, name: str) -> None:
    shutil.copytree(store, own_daemon.data_root)
    armed(own_daemon, name, "kill")
    assert own_daemon.docker("load", stdin=IMAGE).status == 1
    poll(own_daemon.has_ended, "the point to be passed")
    own_daemon.start()
    own_daemon.stop()
    check(own_daemon)
    own_daemon.start()
    works(own_daemon)


@pytest.mark.parametrize("name", POINTS)
def test_attack_26_a_full_disk_in_a_load(own_daemon: Daemon, store: Path, name: str) -> None:
    shutil.copytree(store, own_daemon.data_root)
    armed(own_daemon, name, "ENOSPC")
    done = own_daemon.docker("load", stdin=IMAGE)
    assert done.status == 1
    assert "no space left on device" in done.err.lower()
    works(own_daemon)
    own_daemon.stop()
    check(own_daemon)
    assert "Traceback" not in own_daemon.log.read_text()
