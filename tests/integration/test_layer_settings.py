"""What `daemon.json` says of layers: how large they may be, and whether their blobs are kept."""

from __future__ import annotations

import contextlib
import gzip
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pier.oci import Digest
from pier.storage import ContentStore, Setup, choose_driver
from pier.storage.verify import verify

from .archives import docker_archive, tar_of
from .client import Client
from .conftest import Daemon, poll

pytestmark = pytest.mark.root

BUSYBOX = Path("/bin/busybox")
LAYER = tar_of({"bin/busybox": BUSYBOX.read_bytes(), "etc/note": b"kept\n"})
IMAGE = docker_archive(["layered:1"], [LAYER], Cmd=["/bin/busybox", "cat", "/etc/note"])


@pytest.fixture
def started(own_daemon: Daemon) -> Iterator[Callable[..., Client]]:
    with contextlib.ExitStack() as stack:

        def start(*flags: str) -> Client:
            own_daemon.flags += flags
            own_daemon.start()
            client = Client(own_daemon.environment, "layered:1")
            stack.callback(client.close)
            return client

        yield start


def test_attack_12_layers_are_bounded_by_the_configuration(
    own_daemon: Daemon, started: Callable[..., Client], tmp_path: Path
) -> None:
    docker = started("--max-layer-size", "20m", "--max-layer-files", "50")
    docker.ok("load", stdin=IMAGE)
    bombs = {
        "zeros": tar_of({"zeros": bytes(60 << 20)}),
        "files": tar_of({str(number): b"" for number in range(60)}),
    }
    for name, key in (("zeros", "max-layer-size"), ("files", "max-layer-files")):
        for archive in (
            docker_archive(["bomb:1"], [bombs[name]]),
            docker_archive(["bomb:1"], [gzip.compress(bombs[name], 1)]),
            gzip.compress(docker_archive(["bomb:1"], [bombs[name]]), 1),
        ):
            done = docker("load", stdin=archive)
            assert done.status == 1
            assert "archive too large: " in done.err
            assert f"`{key}` in daemon.json" in done.err
        done = docker("import", "-", "bomb:1", stdin=gzip.compress(bombs[name], 1))
        assert (done.status, f"`{key}` in daemon.json" in done.err) == (1, True)
    assert docker.ok("images", "-q", "bomb") == ""
    assert os.listdir(own_daemon.data_root / "content/ingest") == []
    assert docker.ok("run", "--rm", "layered:1") == "kept"


def test_blobs_are_dropped_and_the_image_is_what_it_was(own_daemon: Daemon, started: Callable[..., Client]) -> None:
    docker = started("--layer-blobs", "rebuild")
    docker.ok("load", stdin=IMAGE)
    blob = own_daemon.data_root / "content/blobs/sha256" / Digest.of(LAYER).hex
    poll(lambda: not blob.exists(), "the blob is dropped")
    assert docker.ok("run", "--rm", "layered:1") == "kept"
    own_daemon.kill()
    own_daemon.start()
    docker.ok("load", stdin=IMAGE)
    assert docker.ok("run", "--rm", "layered:1") == "kept"
    poll(lambda: not blob.exists(), "the blob is dropped again")
    assert own_daemon.stop() == 0
    content = ContentStore(str(own_daemon.data_root / "content"))
    snapshots = choose_driver(str(own_daemon.data_root), setup=Setup(leases=content.leases))
    content.recipes.open_layer = snapshots.open_layer
    assert verify(content, snapshots) == []
    assert content.read(Digest.of(LAYER), limit_bytes=1 << 24) == LAYER
    snapshots.close()
    own_daemon.start()
