"""The overlay2 driver and the choice of a driver."""

from __future__ import annotations

import gzip
import io
import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pier.errors import PierError
from pier.kernel.mounts import mount_overlay
from pier.oci import Digest, chain_ids
from pier.runtime.request import OverlayRoot
from pier.storage import folder_driver, overlay2
from pier.storage.errors import BadArchive, ContentMismatch, DriverUnavailable
from pier.storage.folder_driver import InvalidContainerID, LayerNotFound, SnapshotExists, SnapshotNotFound
from pier.storage.overlay2 import Overlay2
from pier.storage.snapshots import Driver, choose_driver, refusal

from .archives import archive, directory, member

pytestmark = pytest.mark.root

BASE = archive([directory("etc"), member("etc/a", data=b"base"), member("etc/b", data=b"below"), directory("gone")])
TOP = archive([member("etc/a", data=b"on top"), member(".wh.gone")])
CHAIN = chain_ids([Digest.of(BASE), Digest.of(TOP)])
ID = "c" * 64


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Overlay2]:
    driver = Overlay2(str(tmp_path))
    yield driver
    driver.close()


def unpack_both(driver: Overlay2) -> None:
    assert driver.unpack(CHAIN[0], None, io.BytesIO(BASE)) == Digest.of(BASE)
    assert driver.unpack(CHAIN[1], CHAIN[0], io.BytesIO(gzip.compress(TOP))) == Digest.of(TOP)


def folders(driver: Overlay2) -> dict[str, list[str]]:
    driver.close()
    return {name: os.listdir(os.path.join(driver.root_dir, name)) for name in folder_driver.FOLDERS}


def test_layers_and_a_container_make_one_tree(driver: Overlay2) -> None:
    unpack_both(driver)
    root = driver.prepare(ID, CHAIN)
    assert root == driver.root(ID, CHAIN)
    assert [Path(path).parent.name for path in root.lower] == [CHAIN[1].hex, CHAIN[0].hex]
    fd = mount_overlay(root.lower, root.upper, root.work)
    try:
        top = os.open(".", os.O_RDONLY, dir_fd=fd)
        assert sorted(os.listdir(top)) == ["etc"]
        with open(os.open("etc/a", os.O_RDONLY, dir_fd=top)) as file:
            assert file.read() == "on top"
        assert stat.S_IMODE(os.fstat(top).st_mode) == 0o755
        os.close(top)
    finally:
        os.close(fd)
    assert driver.layer_size(CHAIN[0]) == len("base" + "below")


def test_attack_11_a_layer_that_is_not_what_its_chain_id_says(driver: Overlay2) -> None:
    driver.unpack(CHAIN[0], None, io.BytesIO(BASE))
    for chain, parent in ((CHAIN[1], None), (Digest.of(b"?"), CHAIN[0])):
        with pytest.raises(ContentMismatch):
            driver.unpack(chain, parent, io.BytesIO(TOP))
    assert folders(driver) == {"layers": [CHAIN[0].hex], "containers": [], "partial": [], "trash": []}


@pytest.mark.parametrize("cut", [700, 1500, len(BASE) - 11_000])
def test_a_broken_archive_leaves_nothing(driver: Overlay2, cut: int) -> None:
    with pytest.raises((BadArchive, ContentMismatch)):
        driver.unpack(CHAIN[0], None, io.BytesIO(BASE[:cut]))
    assert not driver.has_layer(CHAIN[0])
    assert folders(driver) == {"layers": [], "containers": [], "partial": [], "trash": []}


def test_the_same_layer_twice_at_once_is_one_layer(driver: Overlay2) -> None:
    driver.unpack(CHAIN[0], None, io.BytesIO(BASE))
    assert driver.unpack(CHAIN[0], None, io.BytesIO(BASE)) == Digest.of(BASE)
    assert folders(driver)["layers"] == [CHAIN[0].hex]
    assert folders(driver)["trash"] == []


def test_prepare_refuses_a_missing_layer_a_second_time_and_bad_ids(driver: Overlay2) -> None:
    with pytest.raises(LayerNotFound):
        driver.prepare(ID, CHAIN)
    with pytest.raises(SnapshotNotFound):
        driver.root(ID, CHAIN)
    driver.prepare(ID, [])
    with pytest.raises(SnapshotExists):
        driver.prepare(ID, [])
    for bad in ("", "..", "../x", "a/b", ".hidden", "x" * 200):
        with pytest.raises(InvalidContainerID):
            driver.prepare(bad, [])
        with pytest.raises(InvalidContainerID):
            driver.remove(bad)


def test_remove_is_quick_and_complete(driver: Overlay2) -> None:
    root = driver.prepare(ID, [])
    for number in range(2000):
        Path(root.upper, str(number)).write_bytes(b"")
    start = time.monotonic()
    driver.remove(ID)
    assert time.monotonic() - start < 0.05
    driver.remove(ID)
    assert folders(driver)["trash"] == []


def test_prepare_takes_less_than_two_milliseconds(driver: Overlay2) -> None:
    unpack_both(driver)
    took = []
    for number in range(50):
        start = time.perf_counter()
        driver.prepare(f"{number:064x}", CHAIN)
        took.append(time.perf_counter() - start)
    assert sorted(took)[25] < 0.002


def test_usage_is_what_the_container_wrote(driver: Overlay2) -> None:
    root = driver.prepare(ID, [])
    assert driver.usage(ID) == 0
    Path(root.upper, "f").write_bytes(b"x" * 1234)
    assert driver.usage(ID) == 1234


def test_sweep_spares_what_is_wanted_and_what_containers_stand_on(driver: Overlay2) -> None:
    unpack_both(driver)
    driver.prepare(ID, CHAIN)
    assert driver.sweep_layers([]) == set()
    driver.remove(ID)
    assert driver.sweep_layers([CHAIN[0]]) == {CHAIN[1]}
    assert (driver.has_layer(CHAIN[0]), driver.has_layer(CHAIN[1])) == (True, False)


@pytest.mark.parametrize("record", [b"", b"sha256:12", b"\xff"])
def test_sweep_removes_nothing_while_a_record_is_unreadable(driver: Overlay2, record: bytes) -> None:
    unpack_both(driver)
    driver.prepare(ID, CHAIN)
    Path(driver.root_dir, "containers", ID, "layers").write_bytes(record)
    assert driver.sweep_layers([]) == set()


def test_attack_26_a_kill_leaves_garbage_that_the_next_start_removes(driver: Overlay2, tmp_path: Path) -> None:
    unpack_both(driver)
    Path(driver.root_dir, "partial/x/diff/etc").mkdir(parents=True)
    Path(driver.root_dir, "trash/y/diff").mkdir(parents=True)
    again = Overlay2(str(tmp_path))
    found = folders(again)
    assert (found["partial"], found["trash"], len(found["layers"])) == ([], [], 2)


KILLED = """
import io, os, sys
from pier.storage.overlay2 import Overlay2
from pier.oci import Digest
data = open(sys.argv[2], "rb").read()
class Slow:
    def __init__(self): self.file = io.BytesIO(data)
    def read(self, size=-1, /):
        if self.file.tell() > len(data) // 2:
            os.kill(os.getpid(), 9)
        return self.file.read(4096)
Overlay2(sys.argv[1]).unpack(Digest.of(data), None, Slow())
"""


def test_attack_26_kill_9_in_the_middle_of_a_layer(tmp_path: Path) -> None:
    data = archive([member(str(n), data=b"x" * 5000) for n in range(200)])
    (tmp_path / "layer").write_bytes(data)
    child = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "root"), str(tmp_path / "layer")], check=False)
    assert child.returncode == -9
    again = Overlay2(str(tmp_path / "root"))
    assert folders(again) == {"layers": [], "containers": [], "partial": [], "trash": []}


FULL = """
import ctypes, io, json, os, sys
libc = ctypes.CDLL(None, use_errno=True)
os.unshare = None
assert libc.unshare(0x00020000) == 0  # CLONE_NEWNS
assert libc.mount(None, b"/", None, 0x44000, None) == 0  # MS_REC | MS_PRIVATE
assert libc.mount(b"tmpfs", sys.argv[1].encode(), b"tmpfs", 0, b"size=2m") == 0
from pier.oci import Digest
from pier.storage.content import ContentStore
from pier.storage.overlay2 import Overlay2
from pier.storage.folder_driver import FOLDERS
data = open(sys.argv[2], "rb").read()
errors = []
store, driver = ContentStore(sys.argv[1] + "/content"), Overlay2(sys.argv[1])
try:
    driver.unpack(Digest.of(data), None, io.BytesIO(data))
except OSError as error:
    errors.append(error.errno)
driver.close()
try:
    with store.ingest() as writer:
        writer.write(data)
        writer.commit()
except OSError as error:
    errors.append(error.errno)
left = {name: os.listdir(os.path.join(driver.root_dir, name)) for name in FOLDERS}
left["ingest"] = os.listdir(sys.argv[1] + "/content/ingest")
free = os.statvfs(sys.argv[1])
print(json.dumps([errors, left, free.f_bavail * free.f_bsize > 1_900_000]))
"""


def test_attack_26_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    data = archive([member(str(n), data=os.urandom(50_000)) for n in range(100)])
    (tmp_path / "layer").write_bytes(data)
    (tmp_path / "disk").mkdir()
    command = [sys.executable, "-c", FULL, str(tmp_path / "disk"), str(tmp_path / "layer")]
    child = subprocess.run(command, check=True, capture_output=True, text=True)
    errors, left, is_free_again = json.loads(child.stdout)
    assert errors == [28, 28]  # ENOSPC
    assert set(map(tuple, left.values())) == {()}
    assert is_free_again


def test_attack_23_nobody_else_can_look_in(driver: Overlay2, tmp_path: Path) -> None:
    unpack_both(driver)
    driver.prepare(ID, CHAIN)
    for path in ("snapshots", "snapshots/overlay2", *(f"snapshots/overlay2/{name}" for name in folder_driver.FOLDERS)):
        assert stat.S_IMODE((tmp_path / path).stat().st_mode) == 0o700, path
    os.chmod(tmp_path, 0o755)
    setuid = Path(driver.root_dir, "layers", CHAIN[0].hex, "diff/etc/a")
    probe = f"import os; os.setgid(65534); os.setuid(65534); open({str(setuid)!r})"
    child = subprocess.run([sys.executable, "-c", probe], check=False, capture_output=True, text=True)
    assert "PermissionError" in child.stderr


# --- the choice


def test_the_probe_works_and_shows_in_no_mount_table(tmp_path: Path) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    assert overlay2.probe(str(tmp_path)) == ""
    assert Path("/proc/self/mountinfo").read_text() == before
    assert os.listdir(tmp_path) == []


def test_the_driver_is_chosen_by_what_works(tmp_path: Path) -> None:
    with_first_broken = {"first": Driver(lambda _: "is broken", Overlay2), "second": Driver(lambda _: "", Overlay2)}
    driver = choose_driver(str(tmp_path), drivers=with_first_broken)
    assert driver.name == "overlay2"
    driver.close()
    choose_driver(str(tmp_path), "overlay2").close()


@pytest.mark.parametrize(
    ("wanted", "start"),
    [
        ("aufs", 'storage driver "aufs" is not available: Linux has no aufs and Docker dropped it; use overlay2. '),
        ("nonsense", 'storage driver "nonsense" is not available: no such driver. '),
    ],
)
def test_t1_a_driver_that_is_not_there_is_refused_with_the_others(tmp_path: Path, wanted: str, start: str) -> None:
    with pytest.raises(DriverUnavailable) as caught:
        choose_driver(str(tmp_path), wanted)
    text = str(caught.value)
    assert text.startswith(start + "Available here: overlay2, vfs. Not available: ")
    assert "zfs: " in text
    assert (f"{wanted}: " in text) is False


def test_t1_when_nothing_works() -> None:
    assert refusal("", {"overlay2": "Operation not permitted"}, {}) == (
        "no storage driver works on this data root. Available here: none. "
        "Not available: overlay2: Operation not permitted"
    )


def test_overlay_root_is_what_the_runtime_takes(driver: Overlay2) -> None:
    assert isinstance(driver.prepare(ID, []), OverlayRoot)
    assert issubclass(LayerNotFound, PierError)
