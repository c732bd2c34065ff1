"""Images of results: history and times, reproducibility, squashing."""

from __future__ import annotations

import os
from typing import Any

import pytest

from pier.builder import layers
from pier.builder.exporting import ImageWish, completed, make_image
from pier.builder.graph import Copy, MakeFile
from pier.builder.session import Given
from pier.builder.tree import SCRATCH, LayerRef, Tree
from pier.model.filters import Filters
from pier.oci import Digest, ImageConfig
from pier.oci.image_config import History, RootFS
from pier.storage.verify import verify

from .conftest import Lab, base, file, local, sh

NOW = "2026-01-02T03:04:05Z"


def config(*history: History) -> ImageConfig:
    return ImageConfig(architecture="amd64", os="linux", rootfs=RootFS(), history=list(history))


def layer(seconds: int) -> LayerRef:
    return LayerRef(Digest.of(b"%d" % seconds), None, seconds * 10**9)


BASE = LayerRef(Digest.of(b"base"))
OLD = History(created="2001-01-01T00:00:00Z", created_by="base")


def step(words: str, *, empty: bool = False) -> History:
    return History(created_by=words, empty_layer=empty)


@pytest.mark.parametrize(
    ("tree", "history", "expected"),
    [
        pytest.param(
            Tree((BASE, layer(60))),
            [OLD, step("ENV", empty=True), step("RUN"), step("CMD", empty=True)],
            [("base", "2001", 0), *((by, "1970-01-01T00:01:00Z", n) for by, n in (("ENV", 1), ("RUN", 0), ("CMD", 1)))],
            id="a step without a layer has the time of the one before, or of the first",
        ),
        pytest.param(
            Tree((BASE, layer(120)), gaps=(1,)),
            [OLD, step("RUN true"), step("COPY")],
            [("base", "2001", 0), ("RUN true", "1970-01-01T00:02:00Z", 1), ("COPY", "1970-01-01T00:02:00Z", 0)],
            id="a step that changed nothing is no layer",
        ),
        pytest.param(Tree((BASE,)), [OLD, step("CMD", empty=True)], [("base", "2001", 0), ("CMD", NOW, 1)], id="CMD"),
        pytest.param(
            Tree((BASE, layer(60))), [], [("", NOW, 0), ("", "1970-01-01T00:01:00Z", 0)], id="no history at all"
        ),
    ],
)
def test_a_history_has_a_step_for_each_layer(tree: Tree, history: list[History], expected: list[Any]) -> None:
    found = completed(config(*history), tree, NOW, one_time=False)
    shown = [(each.created_by, each.created, int(each.empty_layer)) for each in found.history]
    assert [(by, empty) for by, _, empty in shown] == [(by, empty) for by, _, empty in expected]
    assert all(when.startswith(time) for (_, when, _), (_, time, _) in zip(shown, expected, strict=True))
    assert found.created == shown[-1][1]
    assert found.rootfs.diff_ids == tree.diff_ids


@pytest.mark.root
async def test_an_image_is_in_the_store_and_whole(lab: Lab) -> None:
    async with lab.service.build("b", _nobody()) as build:
        [tree] = await lab.service.solve(build, [sh("echo 1 > /one")])
        assert isinstance(tree, Tree)
        made = await lab.service.export_image(ImageWish(tree, config(step("base"), step("RUN"))), [])
    assert verify(lab.ground.content, lab.ground.snapshots) == []
    image = await lab.ground.images.get(made.id)
    assert image.layers == tree.chain
    await lab.ground.images.collect()
    assert verify(lab.ground.content, lab.ground.snapshots) == []


@pytest.mark.root
async def test_two_builds_at_two_times_are_one_image_where_the_time_is_given(lab: Lab) -> None:
    files = lab.context({"a": b"A", "d/b": b"B"})
    found = []
    for number in range(2):
        os.utime(f"{files.path}/a", (1.8e9 + number, 1.8e9 + number))
        copied = file(Copy("/", "/in", dir_copy_contents=True, create_dest_path=True), base(), local())
        step_ = sh("echo made > /made; touch /in/d/b", copied)
        async with lab.service.build(f"b{number}", _nobody(files)) as build:
            [tree] = await lab.service.solve(build, [step_])
            assert isinstance(tree, Tree)
            wish = ImageWish(tree, config(OLD, step("COPY"), step("RUN")), epoch_s=1_700_000_000)
            made = await lab.service.export_image(wish, [])
        assert made.config.created == "2023-11-14T22:13:20Z"
        found.append(made.id)
        await lab.service.prune(Filters(), everything=True)
    assert found[0] == found[1]
    image = await lab.ground.images.get(found[0])
    with lab.ground.snapshots.layer_view(image.layers) as fd:
        assert os.stat("made", dir_fd=fd).st_mtime == 1_700_000_000
        assert os.stat("in/a", dir_fd=fd).st_mtime == 1_700_000_000
        assert os.stat("bin/busybox", dir_fd=fd).st_mtime == 1_000_000_000


@pytest.mark.root
async def test_squash_makes_one_layer_of_the_new_ones(lab: Lab) -> None:
    steps = sh("rm /x; echo 2 > /y", sh("echo 1 > /x; echo 1 > /y"))
    async with lab.service.build("b", _nobody()) as build:
        [tree] = await lab.service.solve(build, [steps])
        assert isinstance(tree, Tree)
        made = await lab.service.export_image(ImageWish(tree, config(step("base")), squash_from=1), [])
    assert len(made.config.rootfs.diff_ids) == 2
    image = await lab.ground.images.get(made.id)
    with lab.ground.snapshots.layer_view(image.layers) as fd:
        assert "x" not in os.listdir(fd)
        assert "y" in os.listdir(fd)


@pytest.mark.root
async def test_an_image_of_nothing(lab: Lab) -> None:
    made = make_image(lab.ground, ImageWish(SCRATCH, config()))
    assert made.config.rootfs.diff_ids == []


@pytest.mark.root
async def test_layers_are_made_again_of_their_trees_when_an_image_wants_them(lab: Lab) -> None:
    [tree] = await lab.solve(file(MakeFile("/f", b"F" * 5000)))
    assert isinstance(tree, Tree)
    [ref] = tree.layers
    assert ref.blob is None
    assert not lab.ground.content.has(ref.diff_id)
    blob = layers.blob_of(lab.ground, ref, tree.chain[0], None)
    assert blob.digest == ref.diff_id


def _nobody(files: Any = None) -> Given:
    return Given(locals={"context": files} if files else {})
