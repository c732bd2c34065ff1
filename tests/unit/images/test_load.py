"""Load: indexes, platforms, names given by the user (wish 8), tables that lie, bombs, archives before 1.10."""

from __future__ import annotations

import gzip
import json
import os
import resource
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from pier.errors import InvalidParameter, PierError
from pier.images.archive import NotAnImageArchive
from pier.images.archives import DigestName, SeveralImages
from pier.images.load import PlatformNotLoaded
from pier.oci import Digest, InvalidReference, host_platform
from pier.oci.manifest import OCI_INDEX, OCI_MANIFEST
from pier.oci.platform import InvalidPlatform
from pier.storage import verify
from pier.storage.errors import ContentMismatch, ContentNotFound, HostileEntry, TooLarge

from ..storage.archives import archive, member
from .lab import (
    BASE,
    CREATED,
    TOP,
    Lab,
    config,
    described,
    docker_archive,
    index_archive,
    index_files,
    layout_files,
    tar,
)

pytestmark = pytest.mark.root

FILES = [("c.json", config([TOP])), ("l.tar", TOP)]
HOST, OTHER, THIRD = str(host_platform()), "linux/s390x", "linux/riscv64"


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    lab = Lab(str(tmp_path))
    await lab.images.start()
    yield lab
    await lab.close()


def saved(*rows: dict[str, Any]) -> dict[str, bytes]:
    return {"manifest.json": json.dumps(rows).encode()}


def blob(data: bytes) -> str:
    return f"blobs/sha256/{Digest.of(data).hex}"


# --- several platforms


async def test_every_platform_of_an_index_comes_with_it(lab: Lab) -> None:
    assert await lab.load(index_archive("a:1", OTHER, HOST)) == [{"stream": "Loaded image: a:1\n"}]
    image = await lab.images.get("a:1")
    assert (str(image.config.platform), [str(one.config.platform) for one in image.others]) == (HOST, [OTHER])
    assert image.root.media_type == OCI_INDEX
    assert all(lab.snapshots.has_layer(chain) for chain in image.all_layers)
    assert len(await lab.images.list()) == 1


async def test_an_index_that_is_not_whole(lab: Lab) -> None:
    await lab.load(index_archive("a:1", HOST, OTHER, leave_out=[OTHER]))
    image = await lab.images.get("a:1")
    assert (str(image.config.platform), image.others, image.root.media_type) == (HOST, (), OCI_INDEX)
    await lab.load(index_archive("b:1", HOST, OTHER, leave_out=[HOST]))
    image = await lab.images.get("b:1")
    assert sorted(str(one.config.platform) for one in (image, *image.others)) == sorted([HOST, OTHER])


async def test_an_image_for_another_machine_alone(lab: Lab) -> None:
    await lab.load(index_archive("a:1", OTHER, THIRD))
    image = await lab.images.get("a:1")
    assert {str(one.config.platform) for one in (image, *image.others)} == {OTHER, THIRD}


async def test_one_platform_is_asked_for(lab: Lab) -> None:
    await lab.load(index_archive("a:1", HOST, OTHER), platform=OTHER)
    image = await lab.images.get("a:1")
    assert (str(image.config.platform), image.others, image.root.media_type) == (OTHER, (), OCI_MANIFEST)
    with pytest.raises(PlatformNotLoaded, match=rf"{THIRD}. not found in the archive .it holds a:1 for {HOST}, a:1"):
        await lab.load(index_archive("a:1", HOST, OTHER), platform=THIRD)
    with pytest.raises(PlatformNotLoaded):
        await lab.load(docker_archive("b:1"), platform=OTHER)
    with pytest.raises(InvalidPlatform):
        await lab.load(docker_archive("b:1"), platform="a/b/c/d")
    assert [row.repo_tags for row in await lab.images.list()] == [["a:1"]]


async def test_a_platform_with_missing_layers_is_refused(lab: Lab) -> None:
    layer = tar({"etc/platform": OTHER.encode()})
    files = index_files("a:1", HOST, OTHER)
    del files[blob(layer)]
    with pytest.raises(ContentNotFound):
        await lab.load(tar(files))
    assert await lab.images.list() == []
    await lab.load(tar(files), platform=HOST)


async def test_an_attestation_is_no_image(lab: Lab) -> None:
    files = layout_files("a:1")
    index = json.loads(files["index.json"])
    note = json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": described(b"{}", "x"), "layers": []})
    platform = {"os": "unknown", "architecture": "unknown"}
    index["manifests"].append(described(note.encode(), OCI_MANIFEST, platform=platform))
    files |= {blob(note.encode()): note.encode(), blob(b"{}"): b"{}", "index.json": json.dumps(index).encode()}
    assert await lab.load(tar(files)) == [{"stream": "Loaded image: a:1\n"}]


# --- names


@pytest.mark.parametrize("data", [docker_archive("a:1", "b:1"), docker_archive(), index_archive("a:1", HOST, OTHER)])
async def test_wish_08_names_in_place_of_the_archive_s(lab: Lab, data: bytes) -> None:
    told = await lab.load(data, tags=["mine", "r.example/x:2", "mine:latest"])
    assert told == [{"stream": "Loaded image: mine:latest\n"}, {"stream": "Loaded image: r.example/x:2\n"}]
    [row] = await lab.images.list()
    assert row.repo_tags == ["mine:latest", "r.example/x:2"]


async def test_wish_08_a_name_for_one_of_several(lab: Lab) -> None:
    rows = [{"Config": f"{n}.json", "RepoTags": [f"a:{n}"], "Layers": [f"{n}.tar"]} for n in range(2)]
    layers = [BASE, TOP]
    files = {f"{n}.json": config([layer]) for n, layer in enumerate(layers)}
    files |= {f"{n}.tar": layer for n, layer in enumerate(layers)}
    with pytest.raises(SeveralImages, match=r"several: a:0, a:1 .load it without --tag"):
        await lab.load(tar({**files, **saved(*rows)}), tags=["mine"])
    with pytest.raises(DigestName):
        await lab.load(docker_archive("a:1"), tags=[f"a@{Digest.of(b'')}"])
    with pytest.raises(InvalidReference):
        await lab.load(docker_archive("a:1"), tags=["A"])
    assert await lab.images.list() == []


async def test_names_of_both_tables_are_joined(lab: Lab) -> None:
    """A bare tag in index.json (skopeo) is no name; manifest.json has it whole. The manifest keeps its digest."""
    files = layout_files("1", compress=bytes)
    row = {"Config": blob(config()), "RepoTags": ["a:1"], "Layers": [blob(BASE), blob(TOP)]}
    assert await lab.load(tar({**files, **saved(row)})) == [{"stream": "Loaded image: a:1\n"}]
    [entry] = json.loads(files["index.json"])["manifests"]
    assert (await lab.images.get("a:1")).manifest.digest == entry["digest"]
    assert await lab.load(tar(layout_files("1"))) == [{"stream": f"Loaded image ID: {Digest.of(config())}\n"}]


async def test_attack_11_tables_that_give_one_name_to_two_images(lab: Lab) -> None:
    files = layout_files("a:1")
    other = config([TOP])
    files |= {"c.json": other, "l.tar": TOP}
    row = {"Config": "c.json", "RepoTags": ["a:1"], "Layers": ["l.tar"]}
    with pytest.raises(NotAnImageArchive, match="gives a:1 to two images"):
        await lab.load(tar({**files, **saved(row)}))
    assert await lab.images.list() == []


@pytest.mark.parametrize("change", [{"size": 5}, {"size": 2**62}, {"mediaType": OCI_INDEX}])
async def test_attack_11_an_index_that_lies_about_its_manifest(lab: Lab, change: dict[str, Any]) -> None:
    files = layout_files("a:1")
    index = json.loads(files["index.json"])
    index["manifests"][0].update(change)
    with pytest.raises(PierError) as caught:
        await lab.load(tar({**files, "index.json": json.dumps(index).encode()}))
    assert caught.value.status == 400
    assert lab.content.tags() == {}


async def test_attack_11_a_manifest_that_lies_about_a_layer_s_size(lab: Lab) -> None:
    files = layout_files("a:1")
    [entry] = json.loads(files["index.json"])["manifests"]
    name = f"blobs/sha256/{entry['digest'][7:]}"
    manifest = json.loads(files.pop(name))
    manifest["layers"][0]["size"] += 1
    lying = json.dumps(manifest).encode()
    files[blob(lying)] = lying
    index = {"schemaVersion": 2, "manifests": [described(lying, OCI_MANIFEST)]}
    with pytest.raises(ContentMismatch):
        await lab.load(tar({**files, "index.json": json.dumps(index).encode()}))


async def test_attack_10_of_equal_names_the_last_counts(lab: Lab) -> None:
    """As with any tar: what is checked is what is taken, and what was first stays nowhere."""
    other = config([TOP])
    first = {"Config": "c.json", "RepoTags": ["first:1"], "Layers": ["l.tar"]}
    twice = [*FILES, ("manifest.json", json.dumps([first]).encode()), ("l.tar", TOP), ("c.json", other)]
    row = {**first, "RepoTags": ["last:1"]}
    data = archive(member(name, data=data) for name, data in [*twice, *saved(row).items()])
    assert await lab.load(data) == [{"stream": "Loaded image: last:1\n"}]
    image = await lab.images.get("last:1")
    assert image.id == Digest.of(other)
    assert lab.content.blobs() == image.content


@pytest.mark.parametrize("head", ["l.tar", "manifest.json", "blobs/sha256/" + 64 * "0"])
@pytest.mark.parametrize("kind", [tarfile.BLKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
async def test_attack_10_devices_and_pipes_in_an_archive_of_images(lab: Lab, head: str, kind: bytes) -> None:
    data = archive([member(head, kind=kind, device=(8, 0)), *(member(name, data=data) for name, data in FILES)])
    with pytest.raises(HostileEntry, match="no devices and pipes"):
        await lab.load(data)
    assert lab.content.blobs() == set()


@pytest.mark.parametrize("count", [1, 300])
async def test_attack_10_devices_in_a_layer_are_made_as_such_and_open_nothing(lab: Lab, count: int) -> None:
    """A bomb of devices is a bomb of inodes: bounded by the archive's entries; they belong to the image, not here."""
    devices = [member(f"dev/x{n}", kind=tarfile.BLKTYPE, device=(8, n % 16)) for n in range(count)]
    layer = archive(devices)
    await lab.load(docker_archive("a:1", layers=[layer]))
    upper = Path(lab.snapshots.prepare("c", (await lab.images.get("a:1")).layers).lower[0])
    assert len(list((upper / "dev").iterdir())) == count
    assert os.stat(lab.root).st_mode & 0o077 == 0 or os.stat(f"{lab.root}/snapshots").st_mode & 0o077 == 0


async def test_attack_12_more_files_than_an_archive_of_images_has(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pier.images.archive.MAX_FILES", 50)
    with pytest.raises(TooLarge):
        await lab.load(archive(member(f"x{n}") for n in range(100)))
    assert lab.content.blobs() == set()


async def test_attack_12_documents_are_bounded(lab: Lab) -> None:
    big = b"[" + b" " * (9 << 20) + b"]"
    with pytest.raises(TooLarge):
        await lab.load(gzip.compress(tar({"manifest.json": big})))
    rows = [{"Config": "c.json", "Layers": []}] * 10_001
    with pytest.raises(InvalidParameter):
        await lab.load(tar(saved(*rows)))
    row = {"Config": "c.json", "Layers": ["l.tar"] * 1001}
    with pytest.raises(InvalidParameter):
        await lab.load(tar({**dict(FILES), **saved(row)}))


async def test_attack_12_a_bomb_s_memory_is_bounded(lab: Lab) -> None:
    """Half a gigabyte of zeros in 500 kB, compressed twice: as a file of the archive, and as the archive."""
    layer = tar({"zeros": b""})[:-9216]
    zeros = gzip.compress(bytes(64 << 20), 1) * 8
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(PierError):
        await lab.load(gzip.compress(docker_archive("a:1", layers=[layer + zeros]), 1))
    with pytest.raises(PierError):
        await lab.load(zeros)
    with pytest.raises(TooLarge, match="behind its end"):
        await lab.import_(zeros)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 96 << 10
    assert lab.content.blobs() == set()


@pytest.mark.parametrize("id", ["../../../etc", "..", "/etc", "a/b", "a" * 5000, "x\0y"])
async def test_attack_17_ids_of_an_old_archive_are_keys_and_no_paths(lab: Lab, id: str) -> None:
    files = {"repositories": json.dumps({"a": {"1": id}}).encode()}
    layer = {"x/json": json.dumps({"id": "x", "parent": id}).encode(), "x/layer.tar": TOP}
    for data in ({**files, **layer}, layer):
        with pytest.raises(NotAnImageArchive, match="is not in it"):
            await lab.load(tar(data))
    assert lab.content.tags() == {}


# --- archives before 1.10


def old_layer(id: str, parent: str = "", **more: Any) -> dict[str, bytes]:
    members = {
        "id": id,
        "created": CREATED,
        "container_config": {"Cmd": ["/bin/sh", "-c", "#(nop) <x> & y"]},
        "config": {"Cmd": ["sh"], "Env": ["A=<b>"]},
        "architecture": "amd64",
        "os": "linux",
        "Size": 5,
        **more,
    }
    text = json.dumps(members | ({"parent": parent} if parent else {}), indent=2).encode()
    return {f"{id}/VERSION": b"1.0", f"{id}/json": text, f"{id}/layer.tar": BASE if not parent else TOP}


OLD = {**old_layer("1" * 64), **old_layer("2" * 64, "1" * 64, author="me", comment="second", x=1.50)}


async def test_an_archive_before_docker_1_10(lab: Lab) -> None:
    names = {"repositories": json.dumps({"a": {"1": "2" * 64, "base": "1" * 64}}).encode()}
    told = await lab.load(tar({**OLD, **names}))
    assert told == [{"stream": "Loaded image: a:1\n"}, {"stream": "Loaded image: a:base\n"}]
    image = await lab.images.get("a:1")
    raw = lab.content.read(image.id, limit_bytes=1 << 20)
    step = f'"created":"{CREATED}","created_by":"/bin/sh -c #(nop) \\u003cx\\u003e \\u0026 y"'
    assert raw.decode() == (
        '{"architecture":"amd64","author":"me","comment":"second",'
        '"config":{"Cmd":["sh"],"Env":["A=\\u003cb\\u003e"]},'
        '"container_config":{"Cmd":["/bin/sh","-c","#(nop) \\u003cx\\u003e \\u0026 y"]},'
        f'"created":"{CREATED}","history":[{{{step}}},{{{step},"author":"me","comment":"second"}}],"os":"linux",'
        f'"rootfs":{{"type":"layers","diff_ids":["{Digest.of(BASE)}","{Digest.of(TOP)}"]}},"x":1.5}}'
    ).replace('"x":1.5}', '"x":1.5}')
    assert (await lab.images.get("a:base")).layers == image.layers[:1]
    assert lab.content.blobs() == image.content | (await lab.images.get("a:base")).content


async def test_an_archive_before_docker_1_10_without_names_and_with_compressed_layers(lab: Lab) -> None:
    files = {name: gzip.compress(data) if name.endswith("layer.tar") else data for name, data in OLD.items()}
    [told] = await lab.load(tar(files))
    [row] = await lab.images.list()
    assert told == {"stream": f"Loaded image ID: {row.id}\n"}
    assert (await lab.images.get(row.id)).config.rootfs.diff_ids == [Digest.of(BASE), Digest.of(TOP)]


async def test_attack_12_an_old_archive_whose_layers_go_round(lab: Lab) -> None:
    round_ = {**old_layer("1" * 64, "2" * 64), **old_layer("2" * 64, "1" * 64)}
    with pytest.raises(NotAnImageArchive, match="have no end"):
        await lab.load(tar({**round_, "repositories": json.dumps({"a": {"1": "1" * 64}}).encode()}))


async def test_nothing_but_the_images_is_left(lab: Lab) -> None:
    files = layout_files("a:1")
    await lab.load(tar({**files, "junk": b"junk", "x/VERSION": b"1.0"}))
    assert lab.content.blobs() == (await lab.images.get("a:1")).content
    assert verify.verify(lab.content, lab.snapshots) == []
    assert verify.leftovers(lab.content, lab.snapshots.root_dir) == []
