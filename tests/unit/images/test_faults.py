"""Attack 26 for images: a kill or a full disk at every marked point of load, pull, commit and collection."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pier.storage import ContentStore, Setup, verify
from pier.storage.faults import POINTS, _armed
from pier.storage.overlay2 import Overlay2

from .lab import Lab

pytestmark = pytest.mark.root

CHILD = Path(__file__).parent / "fault_child.py"
PASSED_BY = {
    "load": """blob-begun blob-written blob-flushed blob-named blob-durable index-written index-flushed index-named
               layer-begun layer-entry layer-unpacked layer-recorded layer-flushed layer-named""",
    "import": "blob-begun blob-written blob-flushed blob-named:2 layer-entry layer-named index-written index-named",
    "pull": """blob-begun blob-written blob-flushed blob-named blob-durable index-written index-flushed index-named
               layer-begun layer-entry layer-unpacked layer-recorded layer-flushed layer-named""",
    "commit": """container-begun container-claimed container-made diff-begun diff-entry diff-written blob-written:9
                 blob-named:4 layer-flushed:3 layer-named:3 index-flushed:3 tree-trashed tree-deleting""",
    "compact": "recipe-written recipe-named recipe-named:2 blob-dropped",
    "collect": """index-written:4 index-named:4 blob-swept blob-swept:3 layer-swept layer-swept:2 tree-trashed
                  tree-deleting""",
}
CASES = [(scenario, name) for scenario, names in PASSED_BY.items() for name in names.split()]


def run(root: Path, scenario: str, fault: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PIER_FAULT": fault}
    command = [sys.executable, str(CHILD), str(root), scenario]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


def fault(name: str, deed: str) -> str:
    point, _, count = name.partition(":")
    return f"{point}:{deed}:{count or 1}"


def test_every_point_is_tried() -> None:
    assert {name.partition(":")[0] for _, name in CASES} == POINTS
    assert len(POINTS) >= 20


@pytest.mark.parametrize(("scenario", "name"), CASES)
async def test_attack_26_a_kill_leaves_a_store_that_verifies_clean(scenario: str, name: str, tmp_path: Path) -> None:
    child = run(tmp_path, scenario, fault(name, "kill"))
    assert child.returncode == -9, f"the point was not passed: {child.stdout}{child.stderr}"
    lab = Lab(str(tmp_path))
    await lab.images.start()
    await lab.close()
    assert verify.verify(lab.content, lab.snapshots) == []
    assert verify.leftovers(lab.content, lab.snapshots.root_dir) == []
    again = run(tmp_path, scenario)
    assert (again.returncode, again.stdout) == (0, "1 0\n"), again.stderr


@pytest.mark.parametrize(("scenario", "name"), CASES)
def test_attack_26_a_full_disk_leaves_a_store_that_verifies_clean(scenario: str, name: str, tmp_path: Path) -> None:
    child = run(tmp_path, scenario, fault(name, "ENOSPC"))
    assert child.returncode == 0, child.stderr
    if name.startswith("tree-"):  # what cannot be deleted waits for the next start
        assert child.stdout in ("1 1\n", "2 1\n")
    else:
        assert child.stdout == "2 0\n"


FULL = """
import ctypes, runpy, sys
libc = ctypes.CDLL(None, use_errno=True)
assert libc.unshare(0x00020000) == 0  # CLONE_NEWNS
assert libc.mount(None, b"/", None, 0x44000, None) == 0  # MS_REC | MS_PRIVATE
assert libc.mount(b"tmpfs", sys.argv[2].encode(), b"tmpfs", 0, b"size=" + sys.argv[4].encode()) == 0
sys.argv = sys.argv[1:4]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("scenario", ["load", "pull", "commit", "compact"])
@pytest.mark.parametrize("size_kib", [200, 300, 500, 700, 900, 1200, 1600])
def test_attack_26_a_disk_that_really_is_full(scenario: str, size_kib: int, tmp_path: Path) -> None:
    command = [sys.executable, "-c", FULL, str(CHILD), str(tmp_path), scenario, f"{size_kib}k"]
    child = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert child.returncode == 0, child.stderr
    assert child.stdout.split()[1] == "0"


def test_damage_is_found(tmp_path: Path) -> None:
    assert run(tmp_path, "load").returncode == 0
    content = ContentStore(str(tmp_path / "content"))
    snapshots = Overlay2(str(tmp_path), Setup(leases=content.leases))
    assert verify.verify(content, snapshots) == []
    [root] = content.roots()
    layers = sorted(content.blobs(), key=content.size)
    biggest = Path(content.path(layers[-1]))
    good = biggest.read_bytes()
    biggest.write_bytes(b"X" + good[1:])
    assert [problem.where for problem in verify.verify(content, snapshots)] == [layers[-1]]
    assert verify.verify(content, snapshots, deep=False) == []
    biggest.write_bytes(good[:-1])
    assert any("bytes, not" in str(problem) for problem in verify.verify(content, snapshots, deep=False))
    biggest.unlink()
    assert any("not found" in str(problem) for problem in verify.verify(content, snapshots))
    biggest.write_bytes(good)
    snapshots.remove_layer(next(iter(snapshots.layers())))
    assert any("is not unpacked" in str(problem) for problem in verify.verify(content, snapshots))
    Path(content.path(root.digest)).unlink()
    assert [problem.where for problem in verify.verify(content, snapshots)] == [root.digest]
    snapshots.close()


@pytest.mark.parametrize("text", ["nowhere:kill", "blob-begun:EXPLODE", "blob-begun"])
def test_a_fault_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"PIER_FAULT|unpack"):
        _armed(text)
