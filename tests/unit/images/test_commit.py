"""Images made of containers: what goes into one, what it is the child of, and what goes when it goes."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pier.errors import NotFound
from pier.images.commit import BaseImageGone, Commit
from pier.images.delete import ImageInUse
from pier.model.filters import Filters
from pier.oci import Digest, Manifest, Reference, RunConfig
from pier.oci.manifest import OCI_LAYER, OCI_MANIFEST
from pier.storage.verify import verify

from .lab import BASE, TOP, Lab, config, docker_archive, layout_files, tar

pytestmark = pytest.mark.root

IMAGE_ID = Digest.of(config())
CONTAINER = "c" * 64
NAME = Reference.parse("made:1")


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    lab = Lab(str(tmp_path))
    await lab.images.start()
    await lab.load(docker_archive("a:1"))
    yield lab
    await lab.close()


async def container(lab: Lab, id: str = CONTAINER, *, of: str = "a:1", files: dict[str, bytes] | None = None) -> None:
    """A container with these files in its writable layer."""
    lab.snapshots.prepare(id, (await lab.images.get(of)).layers)
    for name, data in (files or {}).items():
        path = Path(lab.root, "snapshots/overlay2/containers", id, "diff", name)
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(data)


def asked(id: str = CONTAINER, *, base: Digest = IMAGE_ID) -> Commit:
    return Commit(
        container_id=id,
        base=base,
        config=RunConfig(cmd=["new"], labels={"k": "v"}),
        container_config={"Cmd": ["sh", "-c", "x"]},
        created_by="sh -c x",
        author="Me",
        comment="because",
    )


async def test_a_commit_is_the_base_and_one_layer_more(lab: Lab) -> None:
    await container(lab, files={"added": b"12345"})
    made = await lab.images.commit(asked(), NAME)
    image, base = await lab.images.get("made:1"), await lab.images.get("a:1")
    assert image.id == made
    assert image.layers[:-1] == base.layers
    assert image.config.history[:-1] == base.config.history
    step = image.config.history[-1]
    assert (step.author, step.created_by, step.comment, step.empty_layer) == ("Me", "sh -c x", "because", False)
    assert (image.config.container, image.config.container_config) == (CONTAINER, {"Cmd": ["sh", "-c", "x"]})
    assert (image.config.config.cmd, image.labels) == (["new"], {"k": "v"})
    shown = await lab.images.inspect("made:1")
    assert (shown.parent, shown.size, shown.comment, shown.author) == (str(IMAGE_ID), 107 + 5, "because", "Me")
    assert [event.action for event in await lab.events()][1:] == ["create", "tag"]
    assert verify(lab.content, lab.snapshots) == []


async def test_no_change_is_no_layer(lab: Lab) -> None:
    await container(lab)
    await lab.images.commit(asked(), NAME)
    image, base = await lab.images.get("made:1"), await lab.images.get("a:1")
    assert image.layers == base.layers
    assert image.config.history[-1].empty_layer


async def test_the_manifest_s_media_types_are_of_one_family(lab: Lab) -> None:
    await lab.load(tar(layout_files("docker.io/library/zipped:1")))
    zipped = await lab.images.get("zipped:1")
    await container(lab, of="zipped:1", files={"x": b"x"})
    await lab.images.commit(asked(base=zipped.id), NAME)
    image = await lab.images.get("made:1")
    manifest = msgspec.json.decode(
        lab.content.read(image.manifest.digest, limit_bytes=9999), type=Manifest, dec_hook=lambda _, text: Digest(text)
    )
    assert image.manifest.media_type == manifest.media_type == OCI_MANIFEST
    assert {layer.media_type for layer in manifest.layers} <= {OCI_LAYER, OCI_LAYER + "+gzip"}


async def test_a_base_that_is_gone_is_named(lab: Lab) -> None:
    await container(lab)
    gone = Digest("sha256:" + "9" * 64)
    with pytest.raises(BaseImageGone, match=f"No such image: {gone}") as caught:
        await lab.images.commit(asked(base=gone), None)
    assert isinstance(caught.value, NotFound)


async def chain(lab: Lab) -> tuple[Digest, Digest]:
    """a:1 <- a nameless image <- child:1"""
    await container(lab, files={"one": b"1"})
    middle = await lab.images.commit(asked(), None)
    await container(lab, "d" * 64, of=str(middle), files={"two": b"22"})
    child = await lab.images.commit(asked("d" * 64, base=middle), Reference.parse("child:1"))
    return middle, child


async def test_steps_between_images_are_listed_only_with_all(lab: Lab) -> None:
    middle, child = await chain(lab)
    shown = {row.id: row.parent_id for row in await lab.images.list()}
    assert shown == {str(child): str(middle), str(IMAGE_ID): ""}
    assert str(middle) in {row.id for row in await lab.images.list(all=True)}
    assert await lab.images.list(all=True, filters=Filters({"dangling": ("1",)})) == []


async def test_history_names_the_images_it_leads_through(lab: Lab) -> None:
    middle, child = await chain(lab)
    rows = [(row.id, row.size, row.tags) for row in await lab.images.history("child:1")]
    base_id = str(IMAGE_ID)
    assert rows == [
        (str(child), 2, ["child:1"]),
        (str(middle), 1, None),
        (base_id, 3, ["a:1"]),
        ("<missing>", 104, None),
    ]


async def test_an_image_that_others_were_made_from_stays(lab: Lab) -> None:
    middle, _child = await chain(lab)
    with pytest.raises(ImageInUse, match=r"\(cannot be forced\) - image has dependent child images"):
        await lab.images.delete(str(middle), force=True)
    assert [deed.untagged for deed in await lab.images.delete("a:1")] == ["a:1"]
    assert (await lab.images.get(str(IMAGE_ID))).names == ()


async def test_nameless_ancestors_go_with_their_last_child(lab: Lab) -> None:
    middle, child = await chain(lab)
    child_layer, middle_layer = reversed((await lab.images.get("child:1")).layers[-2:])
    for id in (CONTAINER, "d" * 64):
        lab.snapshots.remove(id)
    deeds = await lab.images.delete("child:1")
    assert [deed.untagged or deed.deleted for deed in deeds] == [
        "child:1",
        str(child),
        str(child_layer),
        str(middle),
        str(middle_layer),
    ]
    assert [row.id for row in await lab.images.list(all=True)] == [str(IMAGE_ID)]


async def test_no_prune_keeps_ancestors(lab: Lab) -> None:
    middle, _ = await chain(lab)
    await lab.images.delete("child:1", noprune=True)
    assert (await lab.images.get(str(middle))).id == middle


async def test_an_ancestor_with_a_container_stays(lab: Lab) -> None:
    middle, _ = await chain(lab)
    lab.images.users = lambda: {str(middle): [("e" * 64, False)]}
    await lab.images.delete("child:1")
    assert (await lab.images.get(str(middle))).id == middle


async def test_prune_takes_nameless_images_and_says_what_it_freed(lab: Lab) -> None:
    await container(lab, files={"one": b"1" * 100_000})
    nameless = await lab.images.commit(asked(), None)
    lab.snapshots.remove(CONTAINER)
    done = await lab.images.prune(Filters())
    assert done.images_deleted is not None
    assert done.images_deleted[0].deleted == str(nameless)
    assert done.space_reclaimed > 200_000  # the blob and the layer
    assert [row.repo_tags for row in await lab.images.list(all=True)] == [["a:1"]]
    assert (await lab.events())[-1].actor.attributes == {"reclaimed": str(done.space_reclaimed)}


@pytest.mark.parametrize(
    ("terms", "left"),
    [
        ({}, ["a:1", "child:1"]),
        ({"dangling": ("false",)}, []),
        ({"dangling": ("false",), "label": ("k",)}, ["a:1"]),
        ({"dangling": ("false",), "label!": ("k",)}, ["a:1", "child:1"]),
        ({"dangling": ("false",), "until": ("2023-01-01T00:00:00Z",)}, ["a:1", "child:1"]),
        ({"dangling": ("false",), "until": ("2024-01-01T00:00:00Z",)}, ["a:1"]),
    ],
)
async def test_prune_by_filters(lab: Lab, terms: dict[str, tuple[str, ...]], left: list[str]) -> None:
    await chain(lab)
    await lab.images.prune(Filters(terms))
    assert sorted(tag for row in await lab.images.list() for tag in row.repo_tags) == left


async def test_prune_spares_images_with_containers(lab: Lab) -> None:
    lab.images.users = lambda: {str(IMAGE_ID): [("e" * 64, False)]}
    done = await lab.images.prune(Filters({"dangling": ("0",)}))
    assert (done.images_deleted, done.space_reclaimed) == (None, 0)


async def test_shared_sizes_and_disk_usage(lab: Lab) -> None:
    await chain(lab)
    rows = {row.repo_tags[0]: row for row in await lab.images.list(shared_size=True)}
    assert {name: (row.size, row.shared_size) for name, row in rows.items()} == {
        "a:1": (107, 107),
        "child:1": (110, 108),
    }
    usage = await lab.images.disk_usage()
    assert usage.layers == 100 + 4 + 3 + 1 + 2
    assert usage.reclaimable == usage.total - (usage.layers - 2)  # the child's layer alone has no container
    assert usage.total > usage.layers + len(BASE) + len(TOP)
    lab.images.users = lambda: {str(IMAGE_ID): [("e" * 64, True)]}
    assert 0 < (await lab.images.disk_usage()).reclaimable < usage.reclaimable


async def test_layers_of_a_container_whose_image_is_gone_count(lab: Lab) -> None:
    await container(lab)
    await lab.images.delete("a:1", force=True)
    usage = await lab.images.disk_usage()
    assert (usage.layers, usage.blobs, usage.reclaimable) == (107, 0, 0)


async def test_trap_13_holes_of_a_layer_take_no_disk(lab: Lab, tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(50_000_000)
        file.seek(1_000_000)
        file.write(b"x" * 4096)
    made = subprocess.run(
        ["tar", "-C", str(tmp_path), "--sparse", "-cf", "-", "sparse"], capture_output=True, check=True, timeout=20
    )
    await lab.load(docker_archive("sparse:1", layers=[made.stdout]))
    assert (await lab.images.inspect("sparse:1")).size == 50_000_000
    assert (await lab.images.disk_usage()).total < 200_000


async def test_the_base_may_be_removed_while_it_is_committed(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    await container(lab, files={"one": b"1"})
    diff = lab.snapshots.diff
    loop = asyncio.get_running_loop()

    def slow(*arguments: Any) -> Any:
        asyncio.run_coroutine_threadsafe(lab.images.delete("a:1", force=True), loop).result(10)
        return diff(*arguments)

    monkeypatch.setattr(lab.snapshots, "diff", slow)
    await lab.images.commit(asked(), NAME)
    assert [row.repo_tags for row in await lab.images.list()] == [["made:1"]]
    assert verify(lab.content, lab.snapshots) == []
