"""What the build cache takes, what a prune may take, and the limit that is held."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pier.builder import folders
from pier.builder.cache import Cache, Record
from pier.builder.graph import CacheMount, MakeFile, Mount, MountType
from pier.builder.usage import chosen, to_drop
from pier.engine.config import BuilderGC
from pier.engine.flags import parse_builder
from pier.model.filters import Filters
from pier.oci import Digest
from pier.state.memory import MemoryStore

from .conftest import Lab, file, sh

HOUR = 3600 * 10**9
NOW = 100 * HOUR


class Snapshots:
    def layers(self) -> set[Digest]:
        return set()

    def layer_sizes(self, chain_id: Digest) -> tuple[int, int]:
        return 10, 10


def records(*ages: int, **more: Any) -> Cache:
    """A cache with a record for each age in hours."""
    cache = Cache(MemoryStore(), Snapshots(), None)  # type: ignore[arg-type]
    for number, age in enumerate(ages):
        own = [Digest.of(b"%d" % number)]
        used = NOW - age * HOUR
        cache.records[f"r{number}"] = Record(id=f"r{number}", own=own, created_ns=used, used_ns=used, **more)
    return cache


def picked(cache: Cache, *, everything: bool = False, shared: tuple[int, ...] = (), **terms: str) -> list[str]:
    filters = Filters({name.replace("_", "-"): (value,) for name, value in terms.items()})
    layers = {Digest.of(b"%d" % number) for number in shared}
    return [each.id for each in chosen(cache, filters, layers, everything=everything, now_ns=NOW)]


def test_those_that_were_not_used_for_the_longest_time_go_first() -> None:
    assert picked(records(1, 30, 5)) == ["r1", "r2", "r0"]


def test_what_images_have_too_stays_unless_all_is_asked_for() -> None:
    cache = records(1, 2)
    assert picked(cache, shared=(0,)) == ["r1"]
    assert picked(cache, shared=(0,), everything=True) == ["r1", "r0"]
    assert picked(cache, shared=(0,), everything=True, private="1") == ["r1"]


def test_what_a_build_stands_on_stays() -> None:
    cache = records(1, 2)
    release = cache.use("r0")
    assert picked(cache, everything=True) == ["r1"]
    release()
    assert picked(cache) == ["r1", "r0"]


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        ({"unused_for": "3h"}, ["r1", "r2"]),
        ({"until": "6h"}, ["r1"]),
        ({"id": "r2"}, ["r2"]),
        ({"type": "regular"}, ["r1", "r2", "r0"]),
        ({"type": "exec.cachemount"}, []),
        ({"inuse": "1"}, []),
    ],
)
def test_filters(terms: dict[str, str], expected: list[str]) -> None:
    assert picked(records(1, 30, 5), **terms) == expected


def test_no_more_goes_than_has_to() -> None:
    cache = records(3, 2, 1)
    candidates = list(cache.records.values())
    assert [each.id for each in to_drop(candidates, lambda _: 10, 30, 15)] == ["r0", "r1"]
    assert to_drop(candidates, lambda _: 10, 30, 30) == []
    assert len(to_drop(candidates, lambda _: 10, 30, 0)) == 3


@pytest.mark.parametrize(
    ("gc", "expected"),
    [
        (BuilderGC(), 100),
        (BuilderGC(default_keep_storage="20GB"), 20 << 30),
        (BuilderGC(default_keep_storage="20GB", default_max_used_space="1m"), 1 << 20),
        (BuilderGC(enabled=False), None),
    ],
)
def test_the_limit_of_the_configuration(gc: BuilderGC, expected: int | None) -> None:
    assert gc.limit_bytes(1000) == expected


def test_the_limit_as_a_flag() -> None:
    assert parse_builder(["gc.enabled=false", "gc.defaultKeepStorage=1GB"]) == {
        "gc": {"enabled": False, "defaultKeepStorage": "1GB"}
    }


@pytest.mark.root
async def test_pruned_layers_and_cache_mounts_are_gone_from_the_disk(lab: Lab) -> None:
    mount = Mount("/c", type=MountType.CACHE, cache=CacheMount("m"))
    await lab.solve(sh("echo 12345 > /c/f; echo 1234567 > /f", None, mount))
    assert sorted(entry.size for entry in await lab.service.disk_usage()) == [6, 8]
    assert list((Path(lab.ground.data_dir) / "mounts").iterdir())
    pruned = await lab.service.prune(Filters())
    assert (len(pruned.caches_deleted or ()), pruned.space_reclaimed) == (2, 14)
    assert not list((Path(lab.ground.data_dir) / "mounts").iterdir())
    assert len(lab.ground.snapshots.layers()) == 1
    assert lab.problems() == []


def test_folders_that_no_record_has_are_swept(tmp_path: Path) -> None:
    for name in ("mounts/kept", "mounts/left", "synced/kept", "synced/once-1", "other/left"):
        (tmp_path / name / "tree").mkdir(parents=True)
    folders.sweep(str(tmp_path), {"", "mounts/kept", "synced/kept"})
    assert sorted(str(each.relative_to(tmp_path)) for each in tmp_path.glob("*/*")) == [
        "mounts/kept",
        "other/left",
        "synced/kept",
    ]


@pytest.mark.root
async def test_the_cache_is_brought_down_to_its_limit_after_each_build(lab: Lab) -> None:
    lab.service._keep_bytes = 2500
    for name in "abcd":
        await lab.solve(file(MakeFile(f"/{name}", name.encode() * 1000)))
    left = await lab.service.disk_usage()
    assert [entry.description for entry in left] == ["mkfile /c", "mkfile /d"]
    usage = await lab.service.usage()
    assert (usage.total_size, usage.total_count) == (2000, 2)
    assert lab.problems() == []
