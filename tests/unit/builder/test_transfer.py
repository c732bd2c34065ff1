"""The build cache in an archive: out of one builder, into another."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from fixtures.registry import FakeRegistry
from pier.builder.cache_form import Form
from pier.builder.cacheconfig import CONFIG, NoCache
from pier.builder.graph import CacheMount, Mount, MountType, Output
from pier.builder.progress import Finished, Warned
from pier.builder.session import Given
from pier.builder.tree import Tree
from pier.errors import InvalidParameter
from pier.model.filters import Filters
from pier.oci import Digest, Reference
from pier.oci.manifest import OCI_MANIFEST

from ..storage.archives import archive, member
from .conftest import Lab, base, sh

pytestmark = pytest.mark.root


async def exported(lab: Lab) -> bytes:
    return b"".join([chunk async for chunk in lab.service.caches.export_archive()])


async def pieces(raw: bytes) -> AsyncIterator[bytes]:
    stream = io.BytesIO(raw)
    while data := stream.read(1 << 16):
        yield data


async def test_what_was_done_on_one_machine_is_cached_on_another(lab: Lab) -> None:
    mount = Mount("/c", type=MountType.CACHE, cache=CacheMount("m"))
    step = sh("true", sh("echo kept >> /c/f; cat /c/f > /made", base(), mount))
    await lab.solve(step)
    raw = await exported(lab)
    assert raw == await exported(lab)
    await lab.service.prune(Filters(), everything=True)
    assert not lab.service.cache.records
    assert await lab.service.caches.import_archive(pieces(raw)) == (3, 3)
    assert await lab.service.caches.import_archive(pieces(raw)) == (0, 3)
    tree = await lab.tree(step)
    assert tree["made"] == b"kept\n"
    ended = [event for event in await lab.events() if isinstance(event, Finished)]
    assert [event.cached for event in ended] == [False, True, True]  # the image is looked up, nothing is run
    await lab.solve(sh("cat /c/f", base(), mount))
    assert await lab.printed() == "kept\n"
    assert lab.problems() == []


@pytest.mark.parametrize(
    "raw",
    [archive([]), archive([member("index.json", data=b'{"schemaVersion":2,"manifests":[]}')]), b"no archive" * 100],
)
async def test_what_is_no_cache_is_refused(lab: Lab, raw: bytes) -> None:
    with pytest.raises(InvalidParameter):
        await lab.service.caches.import_archive(pieces(raw))
    assert lab.problems() == []


async def test_a_layer_that_was_changed_on_its_way_is_refused(lab: Lab) -> None:
    await lab.solve(sh("echo 0123456789 > /made"))
    raw = bytearray(await exported(lab))
    at = raw.index(b"0123456789")
    raw[at] = ord("x")
    await lab.service.prune(Filters(), everything=True)
    with pytest.raises(InvalidParameter, match="digest"):
        await lab.service.caches.import_archive(pieces(bytes(raw)))
    assert not lab.service.cache.records
    assert lab.problems() == []


def test_the_error_says_what_is_missing() -> None:
    assert "no build cache" in NoCache(reason="x").message


@pytest.mark.parametrize(
    "form", [Form(), Form(image_manifest=False), Form(oci=False, image_manifest=False), Form(compression="zstd")]
)
async def test_a_cache_at_a_registry(lab: Lab, form: Form) -> None:
    async with FakeRegistry().serving() as registry:
        name = Reference.parse(f"{registry.host}/team/cache:1")
        step = sh("true", sh("echo kept > /made"))
        async with lab.service.build("first", Given()) as build:
            [result] = await lab.service.solve(build, [step])
            assert isinstance(result, Tree)
            await lab.service.caches.push(build, name, [result], form, everything=True)
        await lab.service.prune(Filters(), everything=True)
        async with lab.service.build("second", Given()) as build:
            assert await lab.service.caches.offer_registry(build, name) == 2
            assert not lab.service.cache.records
            [result] = await lab.service.solve(build, [step])
            assert lab.read(result)["made"] == b"kept\n"
            assert len(lab.service.cache.records) == 1
            ended = [event for event in build.journal.told if isinstance(event, Finished)]
            assert ended[-1].cached
            # what was found at its last step alone is sent on as a whole
            again = await lab.service.caches.push(build, name, [result], form, everything=False)
            assert len(lab.service.cache.records) == 2
        assert await lab.service.prune(Filters(), everything=True)
        async with lab.service.build("third", Given()) as build:
            assert await lab.service.caches.offer_registry(build, name) == 2
        assert again.digest in {Digest.of(data) for _, data in registry.manifests.values()}
    assert lab.problems() == []


async def _sent(lab: Lab, registry: FakeRegistry, step: Output) -> Reference:
    """A cache of one step at a registry, and nowhere else."""
    name = Reference.parse(f"{registry.host}/team/cache:1")
    async with lab.service.build("first", Given()) as build:
        [result] = await lab.service.solve(build, [step])
        assert isinstance(result, Tree)
        await lab.service.caches.push(build, name, [result], Form(), everything=True)
    await lab.service.prune(Filters(), everything=True)
    return name


def _without_the_new_layer(registry: FakeRegistry) -> None:
    smallest = min((blob for blob in registry.blobs.values() if not blob.startswith(b"{")), key=len)
    del registry.blobs[str(Digest.of(smallest))]


def _with_another_claim(registry: FakeRegistry) -> None:
    """The document says of the upper layer that its content is another."""
    _changed(registry, lambda layers: layers[-1]["annotations"].update(diffID=str(Digest.of(b"something else"))))


def _with_another_blob(registry: FakeRegistry) -> None:
    """The document gives another layer's archive for the base, which is here."""
    _changed(registry, lambda layers: layers[0].update(blob=layers[1]["blob"]))


def _changed(registry: FakeRegistry, change: Callable[[list[Any]], None]) -> None:
    [(media_type, raw)] = {data: (kind, data) for kind, data in registry.manifests.values()}.values()
    manifest = json.loads(raw)
    document = json.loads(registry.blobs[manifest["config"]["digest"]])
    change(document["layers"])
    config = json.dumps(document).encode()
    manifest["config"] |= registry.add_blob(config)
    registry.manifests.clear()
    registry.add_manifest("team/cache", "1", manifest, media_type)


@pytest.mark.parametrize("spoil", [_without_the_new_layer, _with_another_claim, _with_another_blob])
async def test_attack_10_a_cache_that_is_not_what_it_says_is_left_alone(
    lab: Lab, spoil: Callable[[FakeRegistry], None]
) -> None:
    async with FakeRegistry().serving() as registry:
        step = sh("echo kept > /made")
        name = await _sent(lab, registry, step)
        spoil(registry)
        async with lab.service.build("second", Given()) as build:
            assert await lab.service.caches.offer_registry(build, name) == 1
            [result] = await lab.service.solve(build, [step])
            assert lab.read(result)["made"] == b"kept\n"
            warned = [event.text for event in build.journal.told if isinstance(event, Warned)]
            assert [f"the cache of {name.familiar} is not used any further: " in text for text in warned] == [True]
            assert not [event for event in build.journal.told if isinstance(event, Finished)][-1].cached
    assert lab.problems() == []


async def test_a_step_with_other_outputs_than_it_has_is_not_believed(lab: Lab) -> None:
    step = sh("echo kept > /made")
    await lab.solve(step)
    [record] = [each for each in lab.service.cache.records.values() if each.results]
    record.results.append(record.results[0])
    assert (await lab.tree(step))["made"] == b"kept\n"
    assert not [event for event in await lab.events() if isinstance(event, Finished)][-1].cached


async def test_a_cache_of_buildkits_own_is_of_no_use_and_no_error(lab: Lab) -> None:
    async with FakeRegistry().serving() as registry:
        document = json.dumps({"records": [{"digest": str(Digest.of(b"x"))}]}).encode()
        config = {"mediaType": CONFIG, **registry.add_blob(document)}
        manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": []}
        registry.add_manifest("team/cache", "1", manifest, OCI_MANIFEST)
        async with lab.service.build("one", Given()) as build:
            name = Reference.parse(f"{registry.host}/team/cache:1")
            assert await lab.service.caches.offer_registry(build, name) == 1
            [warned] = [event.text for event in build.journal.told if isinstance(event, Warned)]
            assert "made by another builder" in warned
