"""The content store: nothing but verified blobs under their names, an index that other tools read."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from pier.oci import Descriptor, Digest
from pier.oci.digest import InvalidDigest
from pier.oci.manifest import OCI_MANIFEST
from pier.storage.content import ContentStore
from pier.storage.errors import ContentMismatch, ContentNotFound, LayerTooLarge

HELLO = Digest.of(b"hello")


@pytest.fixture
def store(tmp_path: Path) -> ContentStore:
    return ContentStore(str(tmp_path / "content"))


def files(store: ContentStore) -> list[str]:
    root = Path(store.root)
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def descriptor(store: ContentStore, text: bytes) -> Descriptor:
    return store.put(text, OCI_MANIFEST)


def test_a_blob_goes_in_and_comes_out(store: ContentStore) -> None:
    with store.ingest(expected=HELLO, size=5) as writer:
        writer.write(b"hel")
        assert not store.has(HELLO)
        writer.write(b"lo")
        stored = writer.commit("text/plain")
    assert stored == Descriptor(media_type="text/plain", digest=HELLO, size=5)
    assert (store.has(HELLO), store.size(HELLO), store.read(HELLO, limit_bytes=10)) == (True, 5, b"hello")
    assert files(store) == [f"blobs/sha256/{HELLO.hex}", "index.json", "oci-layout"]


@pytest.mark.parametrize("data", [b"hell", b"hello!", b"jello", b""])
def test_attack_11_a_blob_that_lies_about_digest_or_size_leaves_nothing(store: ContentStore, data: bytes) -> None:
    def ingest() -> None:
        with store.ingest(expected=HELLO, size=5) as writer:
            writer.write(data)
            writer.commit()

    with pytest.raises(ContentMismatch):
        ingest()
    assert files(store) == ["index.json", "oci-layout"]


def test_an_ingest_that_is_not_committed_leaves_nothing(store: ContentStore) -> None:
    with store.ingest() as writer:
        writer.write(b"x")
    with pytest.raises(KeyError), store.ingest() as writer:
        raise KeyError
    assert files(store) == ["index.json", "oci-layout"]


@pytest.mark.parametrize("damage", [b"jello", b"hell", b"hello!"])
def test_attack_11_damage_on_the_disk_is_found_at_the_end_of_reading(store: ContentStore, damage: bytes) -> None:
    store.put(b"hello", "text/plain")
    Path(store.path(HELLO)).write_bytes(damage)
    with store.open(HELLO, 5) as reader, pytest.raises(ContentMismatch):
        list(iter(lambda: reader.read(2), b""))
    with pytest.raises(ContentMismatch):
        store.read(HELLO, limit_bytes=10)


def test_attack_11_digests_are_no_paths(store: ContentStore) -> None:
    for text in ("sha256:../../../etc/passwd", "sha256:" + "A" * 64, "md5:" + "a" * 32, "../x"):
        with pytest.raises(InvalidDigest):
            store.path(text)  # type: ignore[arg-type]


def test_missing_and_oversized_blobs(store: ContentStore) -> None:
    with pytest.raises(ContentNotFound, match="not found"):
        store.open(HELLO)
    store.put(b"hello", "text/plain")
    with pytest.raises(ContentMismatch, match="more than the 4 bytes"):
        store.read(HELLO, limit_bytes=4)


def test_names_are_those_skopeo_reads_and_survive_a_restart(store: ContentStore) -> None:
    one, two = descriptor(store, b"one"), descriptor(store, b"two")
    store.set_tag("docker.io/library/a:1", one)
    store.set_tag("docker.io/library/b:1", one)
    store.set_tag("docker.io/library/a:1", two)
    again = ContentStore(store.root)
    assert {name: found.digest for name, found in again.tags().items()} == {
        "docker.io/library/a:1": two.digest,
        "docker.io/library/b:1": one.digest,
    }
    index = json.loads(Path(store.root, "index.json").read_bytes())
    assert (index["schemaVersion"], json.loads(Path(store.root, "oci-layout").read_bytes())) == (
        2,
        {"imageLayoutVersion": "1.0.0"},
    )
    assert {entry["annotations"]["org.opencontainers.image.ref.name"] for entry in index["manifests"]} == set(
        again.tags()
    )


def test_what_loses_its_last_name_is_kept_without_one(store: ContentStore) -> None:
    one, two = descriptor(store, b"one"), descriptor(store, b"two")
    store.set_tag("docker.io/library/a:1", one)
    store.set_tag("docker.io/library/a:1", two)
    assert [(root.digest, bool(root.annotations)) for root in store.roots()] == [
        (two.digest, True),
        (one.digest, False),
    ]
    store.remove_tag("docker.io/library/a:1")
    store.remove_tag("docker.io/library/a:1")
    assert store.tags() == {}
    store.set_tag("docker.io/library/c:1", one)
    assert sorted(bool(root.annotations) for root in store.roots()) == [False, True]
    store.forget([one.digest, two.digest])
    assert store.roots() == []


def test_generation_counts_changes_and_nothing_else(store: ContentStore) -> None:
    one = descriptor(store, b"one")
    start = store.generation
    store.set_tag("docker.io/library/a:1", one)
    store.set_tag("docker.io/library/a:1", one)
    store.remove_tag("docker.io/library/z:1")
    assert store.generation == start + 1


def test_names_set_at_once_by_many_threads_are_all_there(store: ContentStore) -> None:
    one = descriptor(store, b"one")
    threads = [threading.Thread(target=store.set_tag, args=(f"docker.io/library/a:{n}", one)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ContentStore(store.root).tags()) == 20


def test_a_kill_leaves_only_garbage_that_the_next_start_removes(store: ContentStore) -> None:
    Path(store.root, "ingest", "1-1").write_bytes(b"half")
    Path(store.root, "index.json.new").write_bytes(b"{")
    again = ContentStore(store.root)
    assert os.listdir(Path(again.root, "ingest")) == []
    assert again.tags() == {}


def test_sweep_spares_what_is_reachable(store: ContentStore) -> None:
    one, two = descriptor(store, b"one"), descriptor(store, b"two")
    with store.exclusive():
        assert set(store.sweep([one.digest])) == {two.digest}
    assert (store.has(one.digest), store.has(two.digest)) == (True, False)


@pytest.mark.parametrize(
    "meet",
    [
        lambda store, blob: store.has(blob.digest),
        lambda store, blob: store.size(blob.digest),
        lambda store, blob: store.open(blob.digest).close(),
        lambda store, blob: store.put(b"one", OCI_MANIFEST),
    ],
)
def test_a_lease_keeps_what_it_has_met_and_nothing_else(store: ContentStore, meet: Any) -> None:
    one, two = descriptor(store, b"one"), descriptor(store, b"two")
    with store.keep():
        meet(store, one)
        assert set(store.sweep([])) == {two.digest}
        assert store.leases.take_spared()
        with store.keep():  # a younger lease protects nothing that was met before it
            pass
        assert set(store.sweep([])) == set()
        assert store.leases.take_spared()
    assert set(store.sweep([])) == {one.digest}
    assert not store.leases.take_spared()
    assert store.leases.held == 0


def test_a_lease_that_began_later_takes_over_what_it_met_itself(store: ContentStore) -> None:
    one, two = descriptor(store, b"one"), descriptor(store, b"two")
    first = store.keep()
    first.__enter__()
    assert store.has(one.digest)
    assert store.has(two.digest)
    with store.keep():
        assert store.has(two.digest)
        first.__exit__(None, None, None)
        assert set(store.sweep([])) == {one.digest}


def test_sweeps_run_while_blobs_come_in(store: ContentStore) -> None:
    """Writers under leases, each reading back what it wrote, against a sweep that never stops."""
    done, faults = threading.Event(), list[BaseException]()

    def write(number: int) -> None:
        try:
            for round_ in range(30):
                with store.keep():
                    blob = store.put(b"%d of %d" % (round_, number % 2), OCI_MANIFEST)
                    assert store.read(blob.digest, limit_bytes=100)
        except BaseException as error:
            faults.append(error)

    def sweep() -> None:
        while not done.is_set():
            with store.exclusive():
                store.sweep([])

    sweeper = threading.Thread(target=sweep)
    sweeper.start()
    writers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in writers:
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    sweeper.join()
    assert faults == []


def test_a_cut_ingest_goes_on_where_it_was(store: ContentStore) -> None:
    with store.ingest(expected=HELLO, size=5, resume=True) as writer:
        writer.write(b"hel")
    again = ContentStore(store.root)
    with again.ingest(expected=HELLO, size=5, resume=True) as writer:
        assert writer.offset == 3
        with again.ingest(expected=HELLO, size=5, resume=True) as second:
            assert second.offset == 0
            second.write(b"h")
        writer.write(b"lo")
        writer.commit()
    assert again.read(HELLO, limit_bytes=5) == b"hello"
    assert files(again) == [f"blobs/sha256/{HELLO.hex}", "index.json", "oci-layout"]


@pytest.mark.parametrize("left", [b"jel", b"hello!!", b"jello"])
def test_attack_11_what_a_cut_ingest_left_is_not_believed(store: ContentStore, left: bytes) -> None:
    Path(store.root, "ingest", f"sha256-{HELLO.hex}.part").write_bytes(left)
    with contextlib.suppress(ContentMismatch), store.ingest(expected=HELLO, size=5, resume=True) as writer:
        writer.write(b"hello"[writer.offset :])
        writer.commit()
    with store.ingest(expected=HELLO, size=5, resume=True) as writer:
        assert writer.offset == 0
        writer.write(b"hello")
        writer.commit()
    assert store.read(HELLO, limit_bytes=5) == b"hello"


def test_cut_ingests_are_given_up_after_a_week_or_when_asked(store: ContentStore) -> None:
    for name in ("a", "b"):
        Path(store.root, "ingest", f"sha256-{Digest.of(name.encode()).hex}.part").write_bytes(b"x")
    old = Path(store.root, "ingest", f"sha256-{Digest.of(b'a').hex}.part")
    os.utime(old, (1, 1))
    again = ContentStore(store.root)
    assert len(os.listdir(Path(store.root, "ingest"))) == 1
    with again.ingest(expected=Digest.of(b"b"), resume=True) as writer:
        assert again.drop_parts() == 0
        writer.restart()
    assert os.listdir(Path(store.root, "ingest")) == []


def test_attack_23_nobody_else_can_look_in(store: ContentStore) -> None:
    store.put(b"hello", "text/plain")
    for path in (store.root, f"{store.root}/blobs", f"{store.root}/blobs/sha256", f"{store.root}/ingest"):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o700


def test_attack_12_a_blob_has_a_bound_whoever_sends_it(tmp_path: Path) -> None:
    store = ContentStore(str(tmp_path / "content"), max_blob_bytes=1000)
    assert store.put(bytes(1000), "x").size == 1000
    with store.ingest() as writer:
        writer.write(bytes(1000))
        with pytest.raises(LayerTooLarge, match="more than 1000 bytes") as caught:
            writer.write(b"x")
    assert "`max-layer-size` in daemon.json" in str(caught.value)
    assert os.listdir(tmp_path / "content/ingest") == []
