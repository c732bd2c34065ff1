"""Images from archive to removal, on real folders; hostile archives; what is left behind."""

from __future__ import annotations

import asyncio
import bz2
import gzip
import io
import json
import lzma
import os
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from pier.errors import InvalidParameter, NotFound, PierError
from pier.images import NoSuchImage
from pier.images.archive import (
    ImageArchive,
    NotAnImageArchive,
    RootFilesystemArchive,
)
from pier.images.archives import DigestReference
from pier.model import wire
from pier.oci import Digest, chain_ids
from pier.storage.errors import BadArchive, ContentMismatch, ContentNotFound, HostileEntry, TruncatedArchive

from .lab import BASE, CREATED, TOP, Lab, config, docker_archive, layout_files, pieces, tar

pytestmark = pytest.mark.root

IMAGE_ID = str(Digest.of(config()))
CHAIN = chain_ids([Digest.of(BASE), Digest.of(TOP)])
ROOT_FS = tar({"./bin/sh": b"x" * 100, "./etc/passwd": b"root"})


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    lab = Lab(str(tmp_path))
    await lab.images.start()
    yield lab
    await lab.close()


def left_over(lab: Lab) -> list[str]:
    """Every file under the roots that is not part of an empty store."""
    lab.snapshots.close()
    root = Path(lab.root)
    found = {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir()}
    return sorted(found - {"content/index.json", "content/oci-layout"})


# --- load


@pytest.mark.parametrize(
    "data",
    [
        docker_archive("a:1"),
        tar(layout_files("docker.io/library/a:1")),
        tar(layout_files("a:1", compress=bytes)),
        tar(layout_files("a:1", compress=zstandard.compress)),
        gzip.compress(docker_archive("a:1")),
        zstandard.compress(docker_archive("a:1")),
        lzma.compress(docker_archive("a:1")),
        bz2.compress(docker_archive("a:1")),
    ],
    ids=["docker", "oci gzip layers", "oci plain", "oci zstd layers", "gzip", "zstd", "xz", "bzip2"],
)
async def test_load_in_every_form(lab: Lab, data: bytes) -> None:
    assert await lab.load(data) == [{"stream": "Loaded image: a:1\n"}]
    image = await lab.images.get("a:1")
    assert (image.id, image.layers, image.config.config.cmd) == (IMAGE_ID, CHAIN, ["tool"])
    upper = Path(lab.snapshots.prepare("c", image.layers).lower[0])
    assert (upper / "etc/name").read_bytes() == b"top"


async def test_load_tells_progress_layer_by_layer(lab: Lab) -> None:
    *progress, last = await lab.load(docker_archive("a:1"), quiet=False)
    assert [(m["status"], m["id"], m["progressDetail"]["current"]) for m in progress] == [
        ("Loading layer", Digest.of(layer).short, len(layer)) for layer in (BASE, TOP)
    ]
    assert last == {"stream": "Loaded image: a:1\n"}
    assert await lab.load(docker_archive("a:1"), quiet=False) == [last]


async def test_load_without_a_name_and_over_a_name_that_is_taken(lab: Lab) -> None:
    assert await lab.load(docker_archive()) == [{"stream": f"Loaded image ID: {IMAGE_ID}\n"}]
    await lab.load(docker_archive("a:1", "b:1"))
    other = docker_archive("a:1", layers=[TOP])
    taken = f"The image a:1 already exists, renaming the old one with ID {IMAGE_ID} to empty string\n"
    assert await lab.load(other) == [{"stream": taken}, {"stream": "Loaded image: a:1\n"}]
    assert (await lab.images.get(IMAGE_ID)).repo_tags == ["b:1"]


async def test_a_layout_s_manifest_keeps_its_digest(lab: Lab) -> None:
    files = layout_files("a:1")
    await lab.load(tar(files))
    entry = json.loads(files["index.json"])["manifests"][0]
    assert lab.content.tags()["docker.io/library/a:1"].digest == entry["digest"]


async def test_old_archives_with_links_for_repeated_layers(lab: Lab) -> None:
    document = config([TOP, TOP])
    manifest = [{"Config": "c.json", "RepoTags": ["a:1"], "Layers": ["1/layer.tar", "2/layer.tar"]}]
    files = {"c.json": document, "1/layer.tar": TOP, "manifest.json": json.dumps(manifest).encode()}
    assert await lab.load(tar(files, {"2/layer.tar": "../1/layer.tar"})) == [{"stream": "Loaded image: a:1\n"}]


MANIFEST = [{"Config": "c.json", "RepoTags": ["a:1"], "Layers": ["l.tar"]}]
FILES = {"c.json": config([TOP]), "l.tar": TOP}


def variant(links: dict[str, str] | None = None, **changes: Any) -> bytes:
    """A small archive whose files or manifest differ from a good one."""
    manifest = [{**MANIFEST[0], **changes.pop("manifest", {})}]
    files = {**FILES, "manifest.json": json.dumps(manifest).encode(), **changes.pop("files", {})}
    return tar({name: data for name, data in files.items() if data is not None}, links)


def layout_variant(edit: dict[str, bytes]) -> bytes:
    return tar({**layout_files("a:1"), **edit})


BLOB = f"blobs/sha256/{Digest.of(gzip.compress(TOP)).hex}"
BAD: dict[str, tuple[bytes, type[PierError]]] = {
    "link out of the archive": (variant({"l.tar": "../../etc/shadow"}, files={"l.tar": None}), HostileEntry),
    "absolute link": (variant({"x": "/etc/shadow"}), HostileEntry),
    "links in a circle": (variant({"l.tar": "m", "m": "l.tar"}, files={"l.tar": None}), NotAnImageArchive),
    "parent in a name": (variant(files={"../../evil": b"x"}), HostileEntry),
    "names a file outside": (variant(manifest={"Config": "../../etc/passwd"}), NotAnImageArchive),
    "names an absolute file": (variant(manifest={"Layers": ["/etc/passwd"]}), NotAnImageArchive),
    "layer is no archive": (variant(files={"l.tar": b"x" * 1024}), PierError),
    "layer is another": (variant(files={"l.tar": BASE}), ContentMismatch),
    "layer is an image archive": (variant(files={"l.tar": docker_archive("b:1")}), ContentMismatch),
    "layer missing": (variant(files={"l.tar": None}), NotAnImageArchive),
    "config is null": (variant(files={"c.json": b"null"}), InvalidParameter),
    "config without rootfs": (variant(files={"c.json": b'{"architecture":"a","os":"linux"}'}), InvalidParameter),
    "more layers than diff_ids": (variant(manifest={"Layers": ["l.tar", "l.tar"]}), InvalidParameter),
    "name in capitals": (variant(manifest={"RepoTags": ["A:1"]}), InvalidParameter),
    "manifest.json is no list": (variant(files={"manifest.json": b"{}"}), InvalidParameter),
    "manifest.json is deep": (variant(files={"manifest.json": b"[" * 100_000}), InvalidParameter),
    "manifest.json is empty": (variant(files={"manifest.json": b"[]"}), NotAnImageArchive),
    "nothing in it": (tar({}), NotAnImageArchive),
    "no table of contents": (tar({"file": b"x"}), NotAnImageArchive),
    "no archive": (b"hello" * 500, BadArchive),
    "empty": (b"", NotAnImageArchive),
    "cut": (docker_archive("a:1")[:3000], TruncatedArchive),
    "cut gzip": (gzip.compress(docker_archive("a:1"))[:-100], BadArchive),
    "blob is not its digest": (layout_variant({BLOB: b"x" * 100}), ContentMismatch),
    "blob name is a path": (layout_variant({"blobs/sha256/..%2f..%2fetc": b"x"}), HostileEntry),
    "index names what is missing": (
        layout_variant({"index.json": layout_files("a:1", [TOP])["index.json"]}),
        ContentNotFound,
    ),
    "index is a manifest": (layout_variant({"index.json": b'{"schemaVersion":2,"config":{},"layers":[]}'}), PierError),
}


@pytest.mark.parametrize(("data", "error"), BAD.values(), ids=BAD)
async def test_attack_10_and_11_bad_archives_are_refused_and_leave_nothing(
    lab: Lab, data: bytes, error: type[PierError]
) -> None:
    with pytest.raises(error) as caught:
        await lab.load(data)
    assert caught.value.status in (400, 404)
    assert await lab.images.list() == []
    assert left_over(lab) == []


async def test_a_bad_archive_after_a_good_one_takes_nothing_with_it(lab: Lab) -> None:
    await lab.load(docker_archive("a:1"))
    with pytest.raises(PierError):
        await lab.load(variant(files={"l.tar": BASE}))
    image = await lab.images.get("a:1")
    assert all(lab.content.has(digest) for digest in image.content)
    assert all(lab.snapshots.has_layer(chain_id) for chain_id in image.layers)


async def test_devices_in_an_archive_of_images(lab: Lab) -> None:
    path = Path(lab.root, "device.tar")
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("l.tar")
        info.type, info.devmajor, info.devminor = tarfile.BLKTYPE, 8, 0
        archive.addfile(info)
    with pytest.raises(HostileEntry):
        await lab.load(path.read_bytes())


async def test_a_client_that_goes_away_leaves_nothing(lab: Lab) -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield docker_archive("a:1")[:3000]
        await asyncio.sleep(3600)

    async def load() -> None:
        async for _ in lab.images.archives.load(endless()):
            pass

    task = asyncio.create_task(load())
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)
    assert left_over(lab) == []


# --- import


async def test_import_makes_an_image_of_one_layer(lab: Lab) -> None:
    changes = ['CMD ["sh"]', "EXPOSE 80"]
    id = await lab.import_(ROOT_FS, repo="a", tag="1", message="hello", changes=changes, platform="linux/arm64")
    shown = wire.to_builtins(await lab.images.inspect("a:1"))
    assert (shown["Id"], shown["RepoTags"], shown["Comment"]) == (id, ["a:1"], "hello")
    assert shown["RootFS"] == {"Type": "layers", "Layers": [str(Digest.of(ROOT_FS))]}
    assert (shown["Os"], shown["Architecture"], shown["Size"]) == ("linux", "arm64", 104)
    assert (shown["Created"], shown["Metadata"]["LastTagTime"]) == 2 * ("2023-11-14T22:13:20.5Z",)
    assert shown["Config"]["Cmd"] == ["sh"]
    assert shown["Config"]["ExposedPorts"] == {"80/tcp": {}}
    assert [(event.action, event.actor.attributes["name"]) for event in await lab.events()] == [
        ("tag", "a:1"),
        ("import", id),
    ]


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress, lzma.compress, bz2.compress])
async def test_import_of_compressed_archives_is_the_same_layer(lab: Lab, compress: Any) -> None:
    await lab.import_(compress(ROOT_FS), repo="a")
    assert (await lab.images.get("a")).config.rootfs.diff_ids == [Digest.of(ROOT_FS)]
    assert (await lab.images.inspect("a")).comment == "Imported from -"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"repo": "A"}, InvalidParameter, "invalid reference format: repository name (library/A) must be lowercase"),
        ({"repo": "a@sha256:" + "a" * 64}, DigestReference, "cannot import digest reference"),
        ({"changes": ["RUN x"]}, InvalidParameter, "RUN is not a valid change command"),
        ({"platform": "a/b/c/d"}, InvalidParameter, ""),
    ],
)
async def test_import_refuses_before_it_reads(
    lab: Lab, options: dict[str, Any], error: type[PierError], message: str
) -> None:
    with pytest.raises(error) as caught:
        await lab.import_(ROOT_FS, **options)
    assert caught.value.message.startswith(message)
    assert left_over(lab) == []


@pytest.mark.parametrize("data", [ROOT_FS[:580], gzip.compress(ROOT_FS)[:-20], b"hello" * 300])
async def test_import_of_broken_archives_leaves_nothing(lab: Lab, data: bytes) -> None:
    with pytest.raises(BadArchive):
        await lab.import_(data)
    assert left_over(lab) == []


# --- trap 3


@pytest.mark.parametrize("data", [ROOT_FS, gzip.compress(ROOT_FS), tar({"usr/bin/x": b""}), tar({".dockerenv": b""})])
async def test_t3_load_knows_a_root_filesystem(lab: Lab, data: bytes) -> None:
    with pytest.raises(RootFilesystemArchive, match="take it in with `import"):
        await lab.load(data)


@pytest.mark.parametrize("data", [docker_archive("a:1"), tar(layout_files("a:1")), gzip.compress(docker_archive())])
async def test_t3_import_knows_images(lab: Lab, data: bytes) -> None:
    with pytest.raises(ImageArchive, match="take it in with `load"):
        await lab.import_(data)
    assert left_over(lab) == []


# --- names, list, inspect


async def test_names_ids_and_beginnings_of_ids(lab: Lab) -> None:
    await lab.load(docker_archive("a:latest"))
    for text in (
        "a",
        "a:latest",
        "library/a",
        "docker.io/library/a:latest",
        IMAGE_ID,
        IMAGE_ID[7:],
        IMAGE_ID[7:19],
        IMAGE_ID[:19],
    ):
        assert (await lab.images.get(text)).id == IMAGE_ID
    for text, shown in (
        ("b", "b:latest"),
        ("a:2", "a:2"),
        ("deadbeef", "deadbeef:latest"),
        ("sha256:" + "0" * 64,) * 2,
    ):
        with pytest.raises(NoSuchImage) as caught:
            await lab.images.get(text)
        assert str(caught.value) == f"No such image: {shown}"
    with pytest.raises(InvalidParameter):
        await lab.images.get("A B")


async def test_tag_moves_names_and_tells(lab: Lab) -> None:
    await lab.load(docker_archive("a:1"))
    await lab.images.tag("a:1", "localhost:5000/b", "2")
    await lab.images.tag("a:1", "c")
    assert (await lab.images.get(IMAGE_ID)).repo_tags == ["a:1", "c:latest", "localhost:5000/b:2"]
    with pytest.raises(NotFound):
        await lab.images.tag("nothing", "d")
    with pytest.raises(InvalidParameter):
        await lab.images.tag("a:1", "d@sha256:" + "a" * 64)
    assert [event.actor.attributes["name"] for event in await lab.events() if event.action == "tag"] == [
        "localhost:5000/b:2",
        "c:latest",
    ]


async def test_list_has_sizes_containers_and_survives_a_restart(lab: Lab) -> None:
    await lab.load(docker_archive("a:1", document=config(Labels={"x": "y"})))
    again = lab.service()
    again.users = lambda: {str(Digest.of(config(Labels={"x": "y"}))): [("c" * 64, True), ("d" * 64, False)]}
    await again.start()
    [row] = await again.list()
    assert wire.to_builtins(row) == {
        "Id": str(Digest.of(config(Labels={"x": "y"}))),
        "ParentId": "",
        "RepoTags": ["a:1"],
        "RepoDigests": [],
        "Created": 1714979289,
        "Size": 107,
        "SharedSize": -1,
        "Labels": {"x": "y"},
        "Containers": 2,
    }
    shown = await again.inspect("a:1")
    assert (shown.created, shown.metadata.last_tag_time) == (CREATED, "2023-11-14T22:13:20.5Z")
    assert shown.graph_driver is not None
    assert set(shown.graph_driver.data or {}) == {"LowerDir", "UpperDir"}
    await again.close()


async def test_a_damaged_image_hides_itself_and_spares_the_others(lab: Lab) -> None:
    await lab.load(docker_archive("a:1"))
    await lab.load(docker_archive("b:1", layers=[TOP]))
    Path(lab.content.path(Digest(IMAGE_ID))).write_bytes(b"{}")
    again = lab.service()
    await again.start()
    assert [row.repo_tags for row in await again.list()] == [["b:1"]]
    await again.delete("b:1")
    assert lab.content.has(Digest.of(BASE))
    await again.close()


# --- delete


async def test_delete_takes_layers_and_blobs_that_nothing_else_needs(lab: Lab) -> None:
    await lab.load(docker_archive("a:1"))
    await lab.load(docker_archive("base:1", layers=[BASE]))
    deeds = [wire.to_builtins(item) for item in await lab.images.delete("a:1")]
    assert deeds == [{"Untagged": "a:1"}, {"Deleted": IMAGE_ID}, {"Deleted": str(CHAIN[1])}]
    assert (lab.content.has(Digest.of(BASE)), lab.content.has(Digest.of(TOP))) == (True, False)
    deeds = [wire.to_builtins(item) for item in await lab.images.delete("base:1")]
    assert deeds[-1] == {"Deleted": str(CHAIN[0])}
    assert left_over(lab) == []
    assert lab.store.records == {}
    actions = [event.action for event in await lab.events()]
    assert actions == ["load", "load", "untag", "delete", "untag", "delete"]


async def test_delete_of_an_image_whose_container_stays(lab: Lab) -> None:
    await lab.load(docker_archive("a:1"))
    lab.images.users = lambda: {IMAGE_ID: [("c" * 64, False)]}
    lab.snapshots.prepare("c" * 64, CHAIN)
    deeds = [wire.to_builtins(item) for item in await lab.images.delete("a:1", force=True)]
    assert deeds == [{"Untagged": "a:1"}, {"Deleted": IMAGE_ID}]
    assert all(os.path.isdir(path) for path in lab.snapshots.root("c" * 64, CHAIN).lower)
    lab.snapshots.remove("c" * 64)
    await lab.images.start()
    assert left_over(lab) == []


async def test_delete_of_nothing(lab: Lab) -> None:
    with pytest.raises(NoSuchImage, match="No such image: a:latest"):
        await lab.images.delete("a")


async def test_blobs_of_a_running_load_survive_a_delete(lab: Lab) -> None:
    await lab.load(docker_archive("a:1", layers=[TOP]))
    data, gate = docker_archive("b:1"), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield data[:-5000]
        await gate.wait()
        yield data[-5000:]

    async def load() -> list[dict[str, Any]]:
        return [message async for message in lab.images.archives.load(slow())]

    task = asyncio.create_task(load())
    await asyncio.sleep(0.1)
    await lab.images.delete("a:1")
    gate.set()
    assert await task == [{"stream": "Loaded image: b:1\n"}]
    image = await lab.images.get("b:1")
    assert all(lab.content.has(digest) for digest in image.content)


async def test_what_a_kill_left_is_cleared_away_at_the_start(lab: Lab) -> None:
    await lab.load(docker_archive("a:1"))
    lab.content.put(b"orphan", "text/plain")
    lab.snapshots.unpack(Digest.of(TOP), None, io.BytesIO(TOP))
    again = lab.service()
    await again.start()
    assert not lab.content.has(Digest.of(b"orphan"))
    assert not lab.snapshots.has_layer(Digest.of(TOP))
    assert (await again.get("a:1")).id == IMAGE_ID
    await again.close()


async def test_the_loop_stays_free_while_an_image_is_loaded(lab: Lab) -> None:
    """Architecture, rule 8: the longest gap between two turns of the loop, while 30 MB are read and unpacked."""
    big = tar({f"bin/{number}": os.urandom(1 << 20) for number in range(30)})
    document = config([big])
    task = asyncio.create_task(lab.load(gzip.compress(docker_archive("a:1", layers=[big], document=document), 1)))
    loop, gaps = asyncio.get_running_loop(), []
    while not task.done():
        before = loop.time()
        await asyncio.sleep(0.001)
        gaps.append(loop.time() - before)
    await task
    assert sorted(gaps)[len(gaps) // 2] < 0.05
    assert len(gaps) > 20


def test_pieces_is_the_whole_body() -> None:
    async def collect() -> bytes:
        return b"".join([piece async for piece in pieces(TOP, 7)])

    assert asyncio.run(collect()) == TOP
