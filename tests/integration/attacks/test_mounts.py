"""What an image's files, or a neighbour on a shared volume, can do to the mounts of a container that is being made."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pier.containers.spec_security import MASKED_PATHS

from ..client import Client
from .conftest import directory, entry, symlink

pytestmark = pytest.mark.root

RACES = 100
"""Starts of each race, all its tests together."""
NULL = "character special file 1:3"
"""busybox stat of the null device; `%t:%T` are major and minor."""


def host_mounts() -> str:
    return Path("/proc/self/mountinfo").read_text()


def masked_files() -> list[str]:
    return [path for path in MASKED_PATHS if os.path.isfile(path)]


def look_at(paths: list[str]) -> list[str]:
    return ["stat", "-L", "-c", "%F %t:%T", *paths]


# --- 3: /dev/null is what covers secrets (CVE-2025-31133)


@pytest.mark.parametrize("kind", ["symlink", "file"])
def test_attack_03_dev_null_of_the_image(pier: Client, image_of: Callable[..., str], canary: Path, kind: str) -> None:
    null = symlink("dev/null", str(canary / "file")) if kind == "symlink" else entry("dev/null", data="not null")
    paths = masked_files()
    text = pier.ok("run", "--rm", image_of(null), *look_at(["/dev/null", *paths]))
    assert text.splitlines() == [NULL] * (1 + len(paths))


def test_attack_03_dev_null_swapped_by_a_neighbour(pier: Client, canary: Path, tmp_path: Path) -> None:
    """Both have one folder as their /dev; one swaps its `null` while the other starts: masks come from elsewhere."""
    dev = tmp_path / "dev"
    dev.mkdir()
    for name, number in (("null", 3), ("zero", 5)):
        os.mknod(dev / name, 0o020666, os.makedev(1, number))
    (dev / "link").symlink_to("/etc/passwd")
    swap = "echo swapping; while :; do mv null real; mv link null; mv null link; mv real null; done"
    swapper = pier.start(
        "run", "--rm", "--name", "attack-03", "-v", f"{dev}:/d", "-w", "/d", "busybox", "sh", "-c", swap
    )
    swapper.read_until("swapping")
    paths = masked_files()
    for _ in range(RACES // 4):
        text = pier.ok("run", "--rm", "-v", f"{dev}:/dev", "busybox", *look_at(paths))
        assert text.splitlines() == [NULL] * len(paths)
    pier("kill", "attack-03")


# --- 4: /dev/console (CVE-2025-52565)


@pytest.mark.parametrize("name", ["dev/console", "dev/pts/0", "dev/pts", "dev/ptmx"])
def test_attack_04_a_terminal_comes_from_the_containers_own_devpts(
    pier: Client, image_of: Callable[..., str], canary: Path, name: str
) -> None:
    image = image_of(symlink(name, str(canary / "file")))
    look = "tty; [ /dev/console -ef /dev/pts/0 ] && grep -c ' /dev/console ' /proc/mounts"
    session = pier.terminal("run", "--rm", "-it", image, "sh", "-c", look)
    assert session.wait().out.split() == ["/dev/pts/0", "1"]


# --- 5: /proc (CVE-2019-16884, CVE-2019-19921, CVE-2025-52881)


@pytest.mark.parametrize("path", ["proc", "sys", "dev"])
@pytest.mark.parametrize("kind", ["symlink", "file"])
def test_attack_05_06_the_kernels_places_are_directories_or_nothing_starts(
    pier: Client, image_of: Callable[..., str], canary: Path, path: str, kind: str
) -> None:
    """Where an image's link led, files of the runtime would appear: in 6 (CVE-2026-41579), on the host."""
    image = image_of(symlink(path, str(canary)) if kind == "symlink" else entry(path))
    done = pier("run", "--rm", "-v", f"{canary}:{canary}", image, "true")
    assert done.status != 0
    assert f"/{path} in the image is not a directory" in done.err


@pytest.mark.parametrize("target", ["/proc", "/proc/", "//proc", "/x/../proc", "/proc/sys", "/proc/self/attr"])
@pytest.mark.parametrize("kind", ["volume", "bind", "tmpfs", "tmpfs mount"])
def test_attack_05_nothing_is_mounted_over_proc(pier: Client, tmp_path: Path, target: str, kind: str) -> None:
    flags = {
        "volume": ["-v", f"{tmp_path}:{target}"],
        "bind": ["--mount", f"type=bind,source={tmp_path},target={target}"],
        "tmpfs": ["--tmpfs", target],
        "tmpfs mount": ["--mount", f"type=tmpfs,target={target}"],
    }
    done = pier("run", "--rm", *flags[kind], "busybox", "true")
    assert done.status == 125
    assert "cannot be mounted because it is inside /proc" in done.err


@pytest.mark.parametrize(("link", "target"), [("/proc", "/alias"), ("/proc/sys", "/alias"), ("/", "/alias/proc")])
def test_attack_05_nor_by_an_images_link(
    pier: Client, image_of: Callable[..., str], canary: Path, link: str, target: str
) -> None:
    done = pier("run", "--rm", "-v", f"{canary}:{target}", image_of(symlink("alias", link)), "true")
    assert done.status != 0
    assert "cannot be mounted because it is inside /proc" in done.err


def test_attack_05_sysctls_reach_the_containers_own_kernel_parameters(pier: Client) -> None:
    read = ["cat", "/proc/sys/kernel/msgmax", "/proc/sys/net/ipv4/ip_default_ttl"]
    before = [Path(path).read_text() for path in read[1:]]
    flags = ["--sysctl", "kernel.msgmax=4321", "--sysctl", "net.ipv4.ip_default_ttl=77"]
    assert pier.ok("run", "--rm", *flags, "busybox", *read).split() == ["4321", "77"]
    assert [Path(path).read_text() for path in read[1:]] == before


@pytest.mark.parametrize("key", ["kernel.core_pattern", "net/../kernel/core_pattern", "vm.swappiness", "fs.file-max"])
def test_attack_05_sysctls_of_the_host_are_refused(pier: Client, key: str) -> None:
    assert pier("run", "--rm", "--sysctl", f"{key}=1", "busybox", "true").status != 0


# --- 7: the destination of a mount (CVE-2021-30465, CVE-2024-45310)


@pytest.mark.parametrize("nested", ["directory", "file"])
def test_attack_07_a_destination_swapped_by_a_neighbour(
    pier: Client, canary: Path, tmp_path: Path, nested: str
) -> None:
    """One swaps a directory and a link to the host's canary, as seen from the host's root, while the other mounts."""
    volume, source = tmp_path / "volume", tmp_path / "source"
    for folder in (volume / "place", source / "folder"):
        folder.mkdir(parents=True)
    (source / "file").write_text("mounted")
    (volume / "link").symlink_to("../" * 40 + str(canary).lstrip("/"))
    before = host_mounts()
    swap = """
    echo swapping
    while :; do
      mv -T place real
      mv -T link place || { rm -rf place; mv -T link place; }  # the other one has just made it
      mv -T place link; mv -T real place
    done
    """
    swapper = pier.start(
        "run", "--rm", "--name", "attack-07", "-v", f"{volume}:/v", "-w", "/v", "busybox", "sh", "-c", swap
    )
    swapper.read_until("swapping")
    inner = f"{source / ('folder' if nested == 'directory' else 'file')}:/v/place/deep/{nested}"
    started = 0
    for _ in range(RACES // 2):
        # A start may fail, when a name is missing at the wrong moment; it must not reach the host.
        started += pier("run", "--rm", "-v", f"{volume}:/v", "-v", inner, "busybox", "true").status == 0
        assert os.listdir(canary) == ["file"]
        assert host_mounts() == before
    pier("kill", "attack-07")
    assert started


# --- trap 10


def test_trap_10_no_root_filesystem_in_the_hosts_mount_table(pier: Client) -> None:
    """And so nothing that another mount namespace keeps can make its removal fail: `device or resource busy`."""
    before = host_mounts()
    pier.run("busybox", "sleep", "1000", name="trap-10")
    assert host_mounts() == before
    # A mount namespace made now is a copy of the host's: with Docker it would hold the container's root busy.
    holding = ["unshare", "--mount", "sh", "-c", "echo held; exec sleep 1000"]
    with subprocess.Popen(holding, stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            assert pier.ok("rm", "-f", "trap-10") == "trap-10"
        finally:
            holder.kill()
    assert host_mounts() == before


def test_an_image_with_nothing_in_it_gets_its_mount_points(pier: Client, image_of: Callable[..., str]) -> None:
    """The refusals above must not be met by honest images without these directories."""
    image = image_of(directory("elsewhere"))
    assert pier.ok("run", "--rm", image, "sh", "-c", "ls -d /proc/self /sys/class /dev/null | wc -l") == "3"
