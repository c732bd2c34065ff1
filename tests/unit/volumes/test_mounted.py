"""Volumes that are mounts: shared, seen by nobody else, gone with the last."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from pier.kernel.paths import closing
from pier.volumes import options
from pier.volumes.mounted import Donor, Mounted

from ..kernel.test_held_mounts import attached

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts file systems")


def made(tmp_path: Path, **given: str) -> Mounted:
    plan = options.plan(given)
    assert plan is not None
    return Mounted(plan, str(tmp_path / "notes/data"))


def tmpfs(tmp_path: Path) -> Mounted:
    return made(tmp_path, type="tmpfs", device="tmpfs", o="size=1m,mode=0755")


def names(fd: int) -> set[str]:
    with closing(os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)) as listed:
        return set(os.listdir(listed))


def test_a_tmpfs_is_one_for_all_its_users(tmp_path: Path) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    volume = tmpfs(tmp_path)
    first, fresh = volume.acquire("a")
    with closing(first):
        assert fresh
        os.mkdir("here", dir_fd=first)
        second, fresh = volume.acquire("b")
        with closing(second):
            assert not fresh
            assert names(second) == {"here"}
        assert Path("/proc/self/mountinfo").read_text() == before, "the host sees nothing of it"
    assert not volume.release("a")
    assert volume.release("b")
    third, fresh = volume.acquire("c")
    with closing(third):
        assert fresh
        assert names(third) == set(), "the last took it along"
    volume.release("c")
    assert list((tmp_path / "notes").iterdir()) == []


def test_a_folder_of_the_host(tmp_path: Path) -> None:
    (tmp_path / "srv/below").mkdir(parents=True)
    volume = made(tmp_path, type="none", device=str(tmp_path / "srv"), o="bind,ro")
    fd, _ = volume.acquire("a")
    with closing(fd):
        assert names(fd) == {"below"}
        with pytest.raises(OSError, match="Read-only"):
            os.mkdir("no", dir_fd=fd)
    with pytest.raises(NotADirectoryError):
        made(tmp_path, type="none", device="/etc/passwd", o="bind").acquire("a")
    with pytest.raises(FileNotFoundError):
        made(tmp_path, type="none", device="/nonexistent", o="bind").acquire("a")


@pytest.mark.parametrize(
    "given",
    [
        {"type": "nosuchfs", "device": "x"},
        {"type": "tmpfs", "device": "x", "o": "size=zz"},
        {"type": "tmpfs", "device": "x", "o": "nosuch"},
        {"type": "ext4", "device": "/nonexistent"},
    ],
)
def test_what_cannot_be_mounted_leaves_nothing(tmp_path: Path, given: dict[str, str]) -> None:
    volume = made(tmp_path, **given)
    with pytest.raises(OSError, match=r"."):
        volume.acquire("a")
    assert volume.users == set()
    assert not (tmp_path / "notes").exists()


def test_the_next_daemon_takes_it_back_out_of_a_container(tmp_path: Path) -> None:
    place, note = tmp_path / "place", tmp_path / "notes/data"
    place.mkdir()
    volume = tmpfs(tmp_path)
    fd, _ = volume.acquire("a")
    with closing(fd):
        os.mkdir("here", dir_fd=fd)
        child = attached(place, fd)
    try:
        volume.close()  # as the kernel does when a daemon is killed
        again = tmpfs(tmp_path)
        again.users.add("a")
        again.donors["a"] = Donor(child, str(place))
        assert note.exists()
        fd, fresh = again.acquire("b")
        with closing(fd):
            assert not fresh
            assert names(fd) == {"here"}
        again.close()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
