"""A container's tree that becomes a layer as it stands."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from pier.kernel.mounts import mount_overlay
from pier.oci import Digest, chain_ids
from pier.runtime.request import OverlayRoot
from pier.storage.folder_driver import UNFLUSHED, LayerNotFound, LayerRecord
from pier.storage.overlay2 import Overlay2
from pier.storage.vfs import Vfs

from .archives import archive, directory, member

pytestmark = pytest.mark.root

BASE = archive([directory("etc"), member("etc/a", data=b"base"), member("gone", data=b"x")])
[CHAIN] = chain_ids([Digest.of(BASE)])


class Sink(bytearray):
    def write(self, data: bytes | bytearray | memoryview, /) -> int:
        self.extend(data)
        return len(data)


def changed(driver: Overlay2) -> tuple[Digest, Digest, bytes]:
    """A container over BASE that changed it: its diff_id, chain id and archive."""
    driver.unpack(CHAIN, None, io.BytesIO(BASE))
    root = driver.prepare("step", [CHAIN])
    assert isinstance(root, OverlayRoot)
    fd = mount_overlay(root.lower, root.upper, root.work)
    try:
        os.unlink("gone", dir_fd=fd)
        os.close(os.open("etc/hosts", os.O_CREAT | os.O_WRONLY, dir_fd=fd))  # the engine's mount point
        file = os.open("etc/a", os.O_WRONLY | os.O_TRUNC, dir_fd=fd)
        os.write(file, b"changed")
        os.close(file)
    finally:
        os.close(fd)
    out = Sink()
    assert driver.diff("step", [CHAIN], out).plain
    diff_id = Digest.of(out)
    return diff_id, chain_ids([Digest.of(BASE), diff_id])[1], bytes(out)


def test_an_adopted_layer_is_what_unpacking_its_archive_gives(tmp_path: Path) -> None:
    driver = Overlay2(str(tmp_path))
    diff_id, chain_id, raw = changed(driver)
    assert driver.adopt("step", [CHAIN], chain_id, LayerRecord(str(diff_id), 7))
    with driver.layer_view([CHAIN, chain_id]) as fd:
        assert sorted(os.listdir(fd)) == ["etc"]
        assert os.listdir(os.open("etc", os.O_RDONLY, dir_fd=fd)) == ["a"]
    assert driver.layer_size(chain_id) == 7
    assert sorted(os.listdir(os.path.join(driver.root_dir, "layers", chain_id.hex))) == [
        "diff",
        "layer.json",
        UNFLUSHED,
    ]
    again = Sink()
    driver.archive(chain_id, CHAIN, again)
    assert bytes(again) == raw
    driver.close()
    assert not os.listdir(tmp_path / "snapshots/overlay2/containers")
    assert not os.listdir(tmp_path / "snapshots/overlay2/partial")


@pytest.mark.parametrize(("flushed", "boot", "stays"), [(True, "x", True), (False, None, True), (False, "x", False)])
def test_what_was_not_flushed_does_not_outlive_its_boot(
    tmp_path: Path, flushed: bool, boot: str | None, stays: bool
) -> None:
    driver = Overlay2(str(tmp_path))
    diff_id, chain_id, _ = changed(driver)
    driver.adopt("step", [CHAIN], chain_id, LayerRecord(str(diff_id), 7))
    mark = tmp_path / "snapshots/overlay2/layers" / chain_id.hex / UNFLUSHED
    if flushed:
        driver.flush()
        assert not mark.exists()
    elif boot:
        mark.write_text(boot)
    driver.close()
    after = Overlay2(str(tmp_path))
    assert (chain_id in after.layers()) is stays
    after.close()


def test_a_layer_that_is_there_already_stays(tmp_path: Path) -> None:
    driver = Overlay2(str(tmp_path))
    for _ in range(2):
        diff_id, chain_id, _ = changed(driver)
        assert driver.adopt("step", [CHAIN], chain_id, LayerRecord(str(diff_id), 7))
    assert chain_id in driver.layers()
    driver.close()


def test_a_driver_of_whole_trees_has_no_layer_to_adopt(tmp_path: Path) -> None:
    driver = Vfs(str(tmp_path))
    driver.prepare("step", [])
    assert not driver.adopt("step", [], CHAIN, LayerRecord("x", 0))
    with pytest.raises(LayerNotFound):
        driver.archive(CHAIN, None, Sink())
    driver.close()
