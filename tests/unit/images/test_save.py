"""Save: what is in the archive, for whom it is readable, what is left when the reader goes away."""

from __future__ import annotations

import asyncio
import io
import json
import tarfile
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from pier.images import NoSuchImage
from pier.images.archives import NothingToSave
from pier.images.save import NoExportTarget
from pier.oci import Digest, InvalidReference, host_platform
from pier.storage.errors import ContentNotFound

from .lab import BASE, TOP, Lab, config, docker_archive, index_archive, layout_files, tar

pytestmark = pytest.mark.root

NAME, REF = "io.containerd.image.name", "org.opencontainers.image.ref.name"
HOST = str(host_platform())


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    lab = Lab(str(tmp_path / "one"))
    await lab.images.start()
    yield lab
    await lab.close()


@pytest.fixture
async def second(tmp_path: Path) -> AsyncIterator[Lab]:
    lab = Lab(str(tmp_path / "two"))
    yield lab
    await lab.close()


def content_of(archive: bytes) -> dict[str, bytes]:
    """Regular files by name."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        members = {member.name: files.extractfile(member) for member in files if member.isfile()}
        return {name: file.read() for name, file in members.items() if file}


def entries(files: dict[str, bytes]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(files["index.json"])["manifests"]
    return found


async def test_the_tables_of_one_image_with_two_tags(lab: Lab) -> None:
    await lab.load(docker_archive("a:1", "r.example:5000/x/b:2"))
    image = await lab.images.get("a:1")
    files = content_of(await lab.save("a:1", "r.example:5000/x/b:2"))
    manifest = image.manifest.digest
    assert [(one["digest"], one["annotations"]) for one in entries(files)] == [
        (manifest, {NAME: "docker.io/library/a:1", REF: "1"}),
        (manifest, {NAME: "r.example:5000/x/b:2", REF: "2"}),
    ]
    layers = [Digest.of(BASE), Digest.of(TOP)]
    kind = "application/vnd.oci.image.layer.v1.tar"
    assert json.loads(files["manifest.json"]) == [
        {
            "Config": f"blobs/sha256/{image.id.hex}",
            "RepoTags": ["a:1", "r.example:5000/x/b:2"],
            "Layers": [f"blobs/sha256/{layer.hex}" for layer in layers],
            "LayerSources": {
                layer: {"mediaType": kind, "size": len(data), "digest": layer}
                for layer, data in zip(layers, (BASE, TOP), strict=True)
            },
        }
    ]
    assert json.loads(files["repositories"]) == {
        "a": {"1": layers[1].hex},
        "r.example:5000/x/b": {"2": layers[1].hex},
    }
    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    blobs = {name: data for name, data in files.items() if name.startswith("blobs/")}
    assert blobs.keys() == {f"blobs/sha256/{Digest(d).hex}" for d in (manifest, image.id, *layers)}
    assert all(Digest.of(data).hex == name.rpartition("/")[2] for name, data in blobs.items())


async def test_the_same_images_give_the_same_bytes_and_tables_come_first(lab: Lab) -> None:
    await lab.load(docker_archive("a:1"))
    archive = await lab.save("a:1")
    assert archive == await lab.save("a:1")
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        members = files.getmembers()
    assert [one.name for one in members][:6] == [
        *("oci-layout", "index.json", "manifest.json", "repositories", "blobs", "blobs/sha256")
    ]
    assert {one.mtime for one in members} == {0}
    assert len(archive) % 10240 == 0


async def test_what_a_word_means(lab: Lab) -> None:
    await lab.load(docker_archive("a:1", "a:2", "b:1"))
    await lab.load(docker_archive("c:latest", layers=[TOP]))
    id = (await lab.images.get("a:1")).id

    async def tags(*refs: str) -> list[tuple[str, list[str] | None]]:
        rows = json.loads(content_of(await lab.save(*refs))["manifest.json"])
        return [(row["Config"][-64:][:6], row["RepoTags"]) for row in rows]

    other = (await lab.images.get("c")).id.hex[:6]
    one = id.hex[:6]
    assert await tags("a") == [(one, ["a:1", "a:2"])]
    assert await tags("a:2") == [(one, ["a:2"])]
    assert await tags("c", "a:1", "a:1", "b") == [(other, ["c:latest"]), (one, ["a:1", "b:1"])]
    for by_id in (id, id.hex, id.hex[:9], f"sha256:{id.hex[:9]}"):
        assert await tags(by_id) == [(one, None)]
    assert await tags(id, "b:1") == [(one, ["b:1"])]
    assert "repositories" not in content_of(await lab.save(id))
    assert [sorted(entry) for entry in entries(content_of(await lab.save(id)))] == [["digest", "mediaType", "size"]]


async def test_what_cannot_be_saved(lab: Lab) -> None:
    await lab.load(docker_archive("a:1"))
    with pytest.raises(NoSuchImage, match="No such image: b:latest"):
        await lab.save("a:1", "b")
    with pytest.raises(NoSuchImage, match="No such image: a:9"):
        await lab.save("a:9")
    with pytest.raises(InvalidReference):
        await lab.save("")
    with pytest.raises(NothingToSave):
        await lab.save()
    with pytest.raises(NoExportTarget, match=r"platform linux/s390x .a:1 is here for linux/amd64"):
        await lab.save("a:1", platform="linux/s390x")
    Path(lab.content.path(Digest.of(TOP))).unlink()
    with pytest.raises(ContentNotFound):
        await lab.save("a:1")


async def test_compressed_layers_and_the_manifest_stay_as_they_are(lab: Lab, second: Lab) -> None:
    files = layout_files("a:1")
    await lab.load(tar(files))
    archive = await lab.save("a:1")
    assert {name for name in files if name.startswith("blobs")} < content_of(archive).keys()
    await second.load(archive)
    before, after = await lab.images.get("a:1"), await second.images.get("a:1")
    assert (before.manifest.digest, before.id) == (after.manifest.digest, after.id)
    assert await second.save("a:1") == archive


async def test_all_platforms_of_an_index(lab: Lab, second: Lab) -> None:
    await lab.load(index_archive("a:1", HOST, "linux/s390x"))
    image = await lab.images.get("a:1")
    archive = await lab.save("a:1")
    files = content_of(archive)
    assert [entry["digest"] for entry in entries(files)] == [image.root.digest]
    assert [row["Config"][-64:] for row in json.loads(files["manifest.json"])] == [image.id.hex]
    await second.load(archive)
    same = await second.images.get("a:1")
    assert (same.root.digest, same.id, [one.id for one in same.others]) == (
        *(image.root.digest, image.id),
        [one.id for one in image.others],
    )


async def test_one_platform_of_an_index(lab: Lab, second: Lab) -> None:
    await lab.load(index_archive("a:1", HOST, "linux/s390x"))
    [other] = (await lab.images.get("a:1")).others
    by_platform = await lab.save("a:1", platform="linux/s390x")
    await second.load(by_platform)
    image = await second.images.get("a:1")
    assert (image.id, image.root.digest, image.others) == (other.id, other.manifest.digest, ())
    [row] = json.loads(content_of(await lab.save(other.id))["manifest.json"])
    assert row["Config"][-64:] == other.id.hex


async def test_an_event_for_each_image_once_it_is_through(lab: Lab) -> None:
    await lab.load(docker_archive("a:1", document=config(Labels={"l": "v"})))
    id = str((await lab.images.get("a:1")).id)
    await lab.save("a:1", id)
    events = await lab.events()
    assert [(e.action, e.actor.id, e.actor.attributes) for e in events if e.action == "save"] == [
        ("save", id, {"l": "v", "name": id})
    ]


async def test_a_reader_who_goes_away(lab: Lab) -> None:
    """The thread ends, the lease ends with it, and nothing is told."""
    await lab.load(docker_archive("a:1"))
    async with aclosing(await lab.images.archives.save(["a:1"])) as pieces:
        await anext(pieces)
    await lab.images.delete("a:1")
    assert lab.content.blobs() == set()
    assert "save" not in [event.action for event in await lab.events()]


async def test_an_image_that_is_removed_while_it_is_saved(lab: Lab) -> None:
    big = tar({"big": bytes(6 << 20)})
    await lab.load(docker_archive("a:1", layers=[big]))
    async with aclosing(await lab.images.archives.save(["a:1"])) as pieces:
        first = await anext(pieces)
        await lab.images.delete("a:1")
        archive = first + b"".join([piece async for piece in pieces])
    assert content_of(archive)[f"blobs/sha256/{Digest.of(big).hex}"] == big
    await asyncio.sleep(0)
    assert await lab.images.list() == []
