"""Overlay roots on a kernel without `lowerdir+` (before Linux 6.7): as deep as images go."""

from __future__ import annotations

from pathlib import Path

import pytest

from pier.runtime.client import StartFailed
from pier.runtime.request import OverlayRoot

from .conftest import Lab

pytestmark = pytest.mark.root


def stack(folder: Path, count: int) -> list[str]:
    """`count` layers, topmost first, each with a file of its own and one that the topmost decides."""
    layers = []
    for number in reversed(range(count)):
        # Both characters that the options of mount(2) are cut at.
        layer = folder / f"layer,{number}:{'x' * 100}"
        layer.mkdir()
        (layer / f"own-{number}").write_text("")
        (layer / "top").write_text(f"{number}\n")
        layers.append(str(layer))
    return layers


@pytest.mark.parametrize("count", [1, 50, 150])
async def test_layers(lab: Lab, tmp_path: Path, count: int) -> None:
    request = lab.request(["sh", "-c", "cat /top; ls / | grep -c own-; echo x >/own-0; busybox rm /top; ls /"])
    layers = stack(tmp_path, count)
    root = OverlayRoot([*layers, *request.root.lower], request.root.upper, request.root.work)
    record, text = await lab.run(request.spec["process"]["args"], root=root)
    assert record.exit_code == 0, text
    assert text.split()[:2] == [str(count - 1), str(count)]
    assert "top" not in text.split()[2:]
    assert Path(root.upper, "own-0").read_text() == "x\n"
    assert Path(layers[0], "top").exists()


async def test_more_than_this_kernel_can_is_said(lab: Lab, tmp_path: Path) -> None:
    request = lab.request(["true"])
    root = OverlayRoot([*stack(tmp_path, 400), *request.root.lower], request.root.upper, request.root.work)
    with pytest.raises(StartFailed, match="401 layers"):
        await lab.run(["true"], root=root)


async def test_a_layer_that_is_missing_is_named(lab: Lab, tmp_path: Path) -> None:
    request = lab.request(["true"])
    root = OverlayRoot([str(tmp_path / "gone"), *request.root.lower], request.root.upper, request.root.work)
    with pytest.raises(StartFailed, match=f"{tmp_path}/gone"):
        await lab.run(["true"], root=root)
