"""Volumes on file systems that can do more: bounds, and copies that share their data."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pier.errors import InvalidParameter
from pier.events import EventBus
from pier.kernel.paths import closing
from pier.state import MemoryStore
from pier.volumes import VolumeFiles, VolumeService, options
from pier.volumes.mounted import Mounted

from ..storage.filesystems import mounted

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts file systems")


def service_on(place: Path) -> VolumeService:
    return VolumeService(top=str(place / "volumes"), notes=str(place / "notes"), store=MemoryStore(), events=EventBus())


@pytest.fixture(params=["ext4 with quotas", "xfs with quotas"])
def bounded(request: pytest.FixtureRequest) -> Iterator[Path]:
    with mounted(request.param) as place:
        yield place


async def test_a_bound_holds_for_the_volume_and_its_clone(bounded: Path) -> None:
    service = service_on(bounded)
    await service.start()
    await service.create(name="small", driver_opts={"size": "1m"})
    await VolumeFiles(service).clone("small", "twin")
    await service.create(name="free")
    for name, fits in (("small", False), ("twin", False), ("free", True)):
        file = bounded / "volumes" / name / "_data/file"
        if fits:
            file.write_bytes(bytes(2 << 20))
        else:
            with pytest.raises(OSError, match=r"(?i)quota|no space"):
                file.write_bytes(b"x" * (2 << 20))
    await service.close()


async def test_without_quotas_a_bound_is_refused_with_the_reason() -> None:
    with mounted("ext4") as place:
        service = service_on(place)
        await service.start()
        with pytest.raises(InvalidParameter, match="quota size requested but no quota support") as refused:
            await service.create(name="small", driver_opts={"size": "1m"})
        assert "no project quotas switched on" in refused.value.wire
        await service.close()
        assert os.listdir(place / "volumes") == []


async def test_wish_16_a_clone_shares_its_data() -> None:
    with mounted("btrfs") as place:
        service = service_on(place)
        await service.start()
        await service.create(name="data")
        (place / "volumes/data/_data/big").write_bytes(os.urandom(20 << 20))
        os.sync()
        before = os.statvfs(place)
        await VolumeFiles(service).clone("data", "twin")
        os.sync()
        after = os.statvfs(place)
        assert (before.f_bfree - after.f_bfree) * after.f_bsize < 10 << 20
        assert (place / "volumes/twin/_data/big").stat().st_size == 20 << 20
        await service.close()


@pytest.mark.parametrize("words", ["", "ro"])
def test_a_device_is_mounted_once_for_all(tmp_path: Path, words: str) -> None:
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(16 << 20)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    made = subprocess.run(["losetup", "--find", "--show", str(image)], check=False, capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no loop device: {made.stderr}")
    device = made.stdout.strip()
    try:
        plan = options.plan({"type": "ext4", "device": device, "o": words})
        assert plan is not None
        volume = Mounted(plan, str(tmp_path / "notes/data"))
        first, _ = volume.acquire("a")
        second, fresh = volume.acquire("b")
        with closing(first), closing(second):
            assert not fresh
            if words == "ro":
                with pytest.raises(OSError, match="Read-only"):
                    os.mkdir("x", dir_fd=first)
            else:
                os.mkdir("x", dir_fd=first)
                assert os.stat("x", dir_fd=second)
        volume.release("a")
        assert volume.release("b")
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)
    assert asyncio.run(_free(device)), "the last has let go of the device"


async def _free(device: str) -> bool:
    """The kernel takes a file system down a moment after its last mount."""
    for _ in range(500):
        if device not in subprocess.check_output(["losetup", "--all"], text=True):
            return True
        await asyncio.sleep(0.01)
    return False
