"""Mounts without a place: copied for others, taken back from them, seen by nobody. Also run on Linux 6.1."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from pier.kernel import mounts, namespaces
from pier.kernel.held_mounts import Held, copy_from, hold, identity_of
from pier.kernel.paths import closing

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="mounts file systems")]


def held() -> Held:
    return hold(mounts.mount_filesystem("tmpfs", [("size", "1m"), ("mode", "0755")]))


def names(fd: int) -> set[str]:
    with closing(os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)) as listed:
        return set(os.listdir(listed))


def attached(place: Path, mount_fd: int) -> int:
    """A process in a mount namespace of its own that has a mount at `place`."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        namespaces.unshare(namespaces.CLONE_NEWNS)
        mounts.mount(None, "/", None, mounts.MS_PRIVATE | mounts.MS_REC)
        with closing(os.open(place, os.O_PATH)) as target:
            mounts.move_mount(mount_fd, target)
        os.write(writer, b".")
        while True:
            signal.pause()
    os.close(writer)
    with closing(reader):
        assert os.read(reader, 1) == b"."
    return child


def test_copies_show_one_file_system_and_no_table_shows_them(tmp_path: Path) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    kept = held()
    with closing(kept.copy()) as first, closing(kept.copy()) as second:
        os.mkdir("here", dir_fd=first)
        assert names(second) == {"here"}
        assert identity_of(first) == identity_of(kept.root_fd)
        child = attached(tmp_path, second)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert Path("/proc/self/mountinfo").read_text() == before
    kept.close()


def test_a_copy_is_taken_back_from_a_process_that_has_one(tmp_path: Path) -> None:
    kept = held()
    identity = identity_of(kept.root_fd)
    with closing(kept.copy()) as given:
        os.mkdir("here", dir_fd=given)
        child = attached(tmp_path, given)
    kept.close()
    try:
        found = copy_from(child, str(tmp_path), identity)
        assert found is not None
        again = hold(found)
        with closing(again.copy()) as third:
            assert names(third) == {"here"}
        again.close()
        assert copy_from(child, "/", identity) is None, "something else stands there"
        assert copy_from(child, f"{tmp_path}/nosuch", identity) is None
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert copy_from(child, str(tmp_path), identity) is None
