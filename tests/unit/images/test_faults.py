"""Attack 26 for images: a kill or a full disk at every marked point of load, pull, commit and collection."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Ended:
    """How a scenario's process ended."""

    status: int
    stdout: str
    stderr: str


class Runner:
    """Runs scenarios, each in a fork of one process that has every module loaded."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(CHILD)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, root: Path, scenario: str, fault: str = "", *, size: str = "") -> Ended:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        asked = {"root": str(root), "scenario": scenario, "fault": fault, "size": size}
        print(json.dumps(asked), file=self._process.stdin, flush=True)
        return Ended(**json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture(scope="module")
def run() -> Iterator[Runner]:
    runner = Runner()
    yield runner
    runner.close()


def fault(name: str, deed: str) -> str:
    point, _, count = name.partition(":")
    return f"{point}:{deed}:{count or 1}"


def test_every_point_is_tried() -> None:
    elsewhere = {name for name in POINTS if name.startswith(("copy-", "fill-", "volume-", "layer-adopt"))}
    assert {name.partition(":")[0] for _, name in CASES} == POINTS - elsewhere
    assert len(POINTS) >= 20


@pytest.mark.parametrize(("scenario", "name"), CASES)
async def test_attack_26_a_kill_leaves_a_store_that_verifies_clean(
    run: Runner, scenario: str, name: str, tmp_path: Path
) -> None:
    child = run(tmp_path, scenario, fault(name, "kill"))
    assert child.status == -9, f"the point was not passed: {child.stdout}{child.stderr}"
    lab = Lab(str(tmp_path))
    await lab.images.start()
    await lab.close()
    assert verify.verify(lab.content, lab.snapshots) == []
    assert verify.leftovers(lab.content, lab.snapshots.root_dir) == []
    again = run(tmp_path, scenario)
    assert (again.status, again.stdout) == (0, "1 0\n"), again.stderr


@pytest.mark.parametrize(("scenario", "name"), CASES)
def test_attack_26_a_full_disk_leaves_a_store_that_verifies_clean(
    run: Runner, scenario: str, name: str, tmp_path: Path
) -> None:
    child = run(tmp_path, scenario, fault(name, "ENOSPC"))
    assert child.status == 0, child.stderr
    if name.startswith("tree-"):  # what cannot be deleted waits for the next start
        assert child.stdout in ("1 1\n", "2 1\n")
    else:
        assert child.stdout == "2 0\n"


@pytest.mark.parametrize("scenario", ["load", "pull", "commit", "compact"])
@pytest.mark.parametrize("size_kib", [200, 300, 500, 700, 900, 1200, 1600])
def test_attack_26_a_disk_that_really_is_full(run: Runner, scenario: str, size_kib: int, tmp_path: Path) -> None:
    child = run(tmp_path, scenario, size=f"{size_kib}k")
    assert child.status == 0, child.stderr
    assert child.stdout.split()[1] == "0"


def test_damage_is_found(run: Runner, tmp_path: Path) -> None:
    assert run(tmp_path, "load").status == 0
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
