"""`layer-blobs: rebuild`: blobs go in the background, and images are what they were."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from fixtures.registry import FakeRegistry
from pier.distribution import Backoff, Registries, RegistryConfig
from pier.images import ImageService
from pier.oci import Digest
from pier.storage.verify import verify

from .lab import Lab, docker_archive, tar

pytestmark = pytest.mark.root

BIG = tar({f"etc/{number}": b"%d " % number * 9000 for number in range(30)})
SMALL = tar({"etc/small": b"small"})


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    lab = Lab(str(tmp_path), rebuilds_blobs=True)
    await lab.images.start()
    yield lab
    await lab.close()


async def test_a_loaded_image_loses_its_blobs_and_none_of_its_contents(lab: Lab) -> None:
    await lab.load(docker_archive("loaded:1", layers=[BIG, SMALL]))
    await lab.images.compactor.settled()
    assert not os.path.exists(lab.content.path(Digest.of(BIG)))
    assert lab.content.read(Digest.of(BIG), limit_bytes=1 << 24) == BIG
    assert lab.content.read(Digest.of(SMALL), limit_bytes=1 << 24) == SMALL
    assert verify(lab.content, lab.snapshots) == []
    await lab.images.delete("loaded:1")
    await lab.images.compactor.settled()
    assert lab.content.blobs() == set()
    assert lab.snapshots.layers() == set()


async def test_what_was_dropped_is_saved_all_the_same(lab: Lab) -> None:
    """Also when the image is removed while its layers are made again."""
    await lab.load(docker_archive("loaded:1", layers=[BIG, SMALL]))
    whole = await lab.save("loaded:1")
    await lab.images.compactor.settled()
    assert not os.path.exists(lab.content.path(Digest.of(BIG)))
    async with aclosing(await lab.images.archives.save(["loaded:1"])) as pieces:
        again = await anext(pieces)
        await lab.images.delete("loaded:1")
        again += b"".join([piece async for piece in pieces])
    assert again == whole
    await lab.images.compactor.settled()
    assert lab.content.blobs() == set()


async def test_without_the_setting_nothing_is_dropped(tmp_path: Path) -> None:
    lab = Lab(str(tmp_path))
    await lab.images.start()
    await lab.load(docker_archive("loaded:1", layers=[BIG, SMALL]))
    await lab.images.compactor.settled()
    assert lab.content.recipes.all() == set()
    await lab.close()


async def test_a_pulled_image_that_is_pushed_elsewhere_keeps_its_digest(lab: Lab) -> None:
    async with FakeRegistry().serving() as one, FakeRegistry().serving() as other:
        pushed = one.add_image("app", "1", [BIG, SMALL], platform="linux/amd64")
        registries = Registries(RegistryConfig(), backoff=Backoff(retries=2, first_s=0.01))
        service = lab.service(registries)
        try:
            await said(service, f"{one.host}/app:1")
            image = await service.get(f"{one.host}/app:1")
            await service.compactor.settled()
            assert all(not os.path.exists(lab.content.path(digest)) for digest in pushed.layers[:1])
            await service.tag(str(image.id), f"{other.host}/copy", "2")
            async for _ in service.push(f"{other.host}/copy:2"):
                pass
        finally:
            await service.close()
        assert other.manifests["copy:2"] == one.manifests["app:1"]
        assert all(other.blobs[digest] == one.blobs[digest] for digest in pushed.layers)


async def said(service: ImageService, reference: str) -> list[str]:
    return [str(message.get("status")) async for message in service.pull(reference)]
