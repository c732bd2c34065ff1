"""User namespaces on cgroup2 and on a kernel that takes no detached mount as an overlay's layer (before Linux 6.15).

The layers are on the machine's ext4: its tmpfs cannot be shown with other ids (before Linux 6.3), which is said.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.runtime.process.test_remap import FIRST_UID, remapped, run
from tests.unit.runtime.test_runtime import exec_request, run_exec

from pier.runtime.client import StartFailed
from pier.runtime.request import OverlayRoot, StartRequest

from .conftest import Lab, folder_of

pytestmark = pytest.mark.root

DISK = "/dev/vdb"


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory, busybox_root: Path) -> Iterator[Path]:
    """A folder of an ext4 file system, with the containers' layer in it."""
    place = tmp_path_factory.mktemp("disk")
    subprocess.run(["/bin/busybox", "mke2fs", "-F", DISK], check=True, capture_output=True)
    subprocess.run(["/bin/busybox", "mount", "-t", "ext4", DISK, str(place)], check=True)
    subprocess.run(["/bin/busybox", "cp", "-a", str(busybox_root), str(place / "layer")], check=True)
    os.chown(place / "layer/home", 1000, 1000)
    yield place
    subprocess.run(["/bin/busybox", "umount", str(place)], check=True)


def on_disk(request: StartRequest, disk: Path) -> StartRequest:
    place = disk / request.id[:12]
    for name in ("upper", "work"):
        (place / name).mkdir(parents=True)
    os.chown(place / "upper", FIRST_UID, FIRST_UID)
    return request.having(root=OverlayRoot([str(disk / "layer")], str(place / "upper"), str(place / "work")))


async def test_ids_groups_and_limits(lab: Lab, disk: Path) -> None:
    script = (
        "cat /proc/self/uid_map /proc/self/cgroup; busybox stat -c %u / /home; echo x >/made; "
        "cat /sys/fs/cgroup/pids.max; cat /proc/net/dev | grep -c lo:"
    )
    request = on_disk(remapped(lab, ["sh", "-c", script]), disk)
    request.spec["linux"]["resources"] = {"pids": {"limit": 7}, "memory": {"limit": 64 << 20}}
    code, output = await run(lab, request)
    assert code == 0, output
    assert output.split() == ["0", str(FIRST_UID), "65536", "0::/", "0", "1000", "7", "1"]
    assert isinstance(request.root, OverlayRoot)
    assert os.stat(f"{request.root.upper}/made").st_uid == FIRST_UID
    assert os.stat(disk / "layer/home").st_uid == 1000


async def test_exec_is_born_in_the_group(lab: Lab, disk: Path) -> None:
    request = on_disk(remapped(lab, ["sh", "-c", "echo up; exec sleep 60"]), disk)
    container = await lab.start(request)
    await container.read_until(b"up")
    wanted = exec_request(["sh", "-c", "cat /proc/self/uid_map /proc/self/cgroup; id -u"])
    wanted = wanted.__class__(wanted.exec_id, wanted.process, user="ana", remapped_root=[FIRST_UID, FIRST_UID])
    record, output = await run_exec(lab, container, wanted)
    assert record.exit_code == 0, output
    assert output.split() == ["0", str(FIRST_UID), "65536", "0::/", "1000"]
    assert folder_of(container).is_dir()


async def test_a_tmpfs_of_this_kernel_is_named(lab: Lab) -> None:
    with pytest.raises(StartFailed, match=r"its files cannot be shown with other ids .* --userns=host"):
        await lab.start(remapped(lab, ["true"]))
