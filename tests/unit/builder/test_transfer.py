"""The build cache in an archive: out of one builder, into another."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator

import pytest

from fixtures.registry import FakeRegistry
from pier.builder.cache_form import Form
from pier.builder.cacheconfig import NoCache
from pier.builder.graph import CacheMount, Mount, MountType
from pier.builder.progress import Finished
from pier.builder.session import Given
from pier.builder.tree import Tree
from pier.errors import InvalidParameter
from pier.model.filters import Filters
from pier.oci import Digest, Reference

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
