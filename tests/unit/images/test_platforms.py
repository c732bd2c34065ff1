"""Images of several platforms under one name: kept whole, chosen from, pushed on, removed together."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fixtures.registry import FakeRegistry, Pushed, tar
from pier.images import NoSuchImage
from pier.images.service import NotThatPlatform
from pier.oci import host_platform

from .lab import Lab

HOST = str(host_platform())
OTHER = "linux/s390x"
THIRD = "linux/riscv64"


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    lab = Lab(str(tmp_path))
    yield lab
    await lab.close()


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry().serving() as server:
        yield server


def index(registry: FakeRegistry, *platforms: str) -> dict[str, Pushed]:
    """`app:1` for these platforms."""
    made = {one: registry.add_image("app", "", [tar({"a": one.encode()})], platform=one) for one in platforms}
    registry.add_index("app", "1", made)
    return made


async def pull(lab: Lab, name: str, platform: str = "") -> list[dict[str, object]]:
    return [message async for message in lab.images.pull(name, platform=platform)]


async def test_the_host_s_image_stands_for_all(registry: FakeRegistry, lab: Lab) -> None:
    made, name = index(registry, OTHER, HOST), f"{registry.host}/app:1"
    await pull(lab, name, OTHER)
    assert (await lab.images.get(name)).id == made[OTHER].config
    await pull(lab, name)
    assert (await lab.images.get(name)).id == made[HOST].config
    await pull(lab, name, OTHER)
    image = await lab.images.get(name)
    assert (image.id, [other.id for other in image.others]) == (made[HOST].config, [made[OTHER].config])
    assert (await lab.images.get(name, OTHER)).id == made[OTHER].config
    assert (await lab.images.get(made[OTHER].config)).repo_tags == [name]
    assert len(await lab.images.list()) == 1


async def test_of_two_foreign_platforms_the_last_pulled_stands_for_both(registry: FakeRegistry, lab: Lab) -> None:
    made, name = index(registry, OTHER, THIRD), f"{registry.host}/app:1"
    for platform in (OTHER, THIRD, OTHER):
        await pull(lab, name, platform)
        assert (await lab.images.get(name)).id == made[platform].config


async def test_a_pulled_index_pushed_elsewhere_keeps_its_digest(registry: FakeRegistry, lab: Lab) -> None:
    index(registry, OTHER, HOST)
    name, copy = f"{registry.host}/app:1", f"{registry.host}/copy:2"
    for platform in (OTHER, HOST):
        await pull(lab, name, platform)
    await lab.images.tag(name, copy)
    messages = [message async for message in lab.images.push(copy)]
    assert registry.manifests["copy:2"] == registry.manifests["app:1"]
    assert [m["aux"]["Digest"] for m in messages if "aux" in m] == [(await lab.images.get(copy)).root.digest]


async def test_a_sweep_spares_every_platform_and_removal_takes_all(registry: FakeRegistry, lab: Lab) -> None:
    made, name = index(registry, OTHER, HOST), f"{registry.host}/app:1"
    for platform in (OTHER, HOST):
        await pull(lab, name, platform)
    unrelated = registry.add_image("other", "1", [tar({"b": os.urandom(100)})], platform=HOST)
    await pull(lab, f"{registry.host}/other:1")
    await lab.images.delete(f"{registry.host}/other:1")
    assert not lab.content.has(unrelated.config)
    for one in made.values():
        assert all(map(lab.content.has, (one.digest, one.config, *one.layers)))
    assert {lab.snapshots.has_layer(layer) for layer in (await lab.images.get(name)).all_layers} == {True}
    await lab.images.delete(name)
    assert not any(lab.content.has(digest) for one in made.values() for digest in (one.digest, one.config))
    with pytest.raises(NoSuchImage):
        await lab.images.get(made[OTHER].config)


async def test_a_container_of_any_platform_holds_the_image(registry: FakeRegistry, lab: Lab) -> None:
    made, name = index(registry, OTHER, HOST), f"{registry.host}/app:1"
    for platform in (OTHER, HOST):
        await pull(lab, name, platform)
    lab.images.users_of = lambda id: [("c" * 64, True)] if id == made[OTHER].config else []
    await lab.images.delete(name, force=True)
    assert lab.content.has(made[OTHER].config)


async def test_an_attestation_is_kept_and_is_no_image(registry: FakeRegistry, lab: Lab) -> None:
    image = registry.add_image("app", "", [tar({"a": b"1"})], platform=HOST)
    proof = registry.add_image("app", "", [tar({"proof": b"1"})], platform="unknown/unknown")
    registry.add_index("app", "1", {HOST: image, "unknown/unknown": proof})
    await pull(lab, f"{registry.host}/app:1")
    found = await lab.images.get(f"{registry.host}/app:1")
    assert (found.id, found.others) == (image.config, ())


async def test_the_manifests_of_an_image(registry: FakeRegistry, lab: Lab) -> None:
    made, name = index(registry, OTHER, HOST, THIRD), f"{registry.host}/app:1"
    for platform in (OTHER, HOST):
        await pull(lab, name, platform)
    lab.images.users_of = lambda id: [("c" * 64, False)] if id == made[OTHER].config else []
    [row] = await lab.images.list(manifests=True)
    assert row.descriptor is not None
    assert row.manifests is not None
    assert row.descriptor.digest == (await lab.images.get(name)).root.digest
    told = {one.id: one for one in row.manifests}
    assert {id: one.available for id, one in told.items()} == {
        made[OTHER].digest: True,
        made[HOST].digest: True,
        made[THIRD].digest: False,
    }
    other = told[made[OTHER].digest]
    assert other.image_data is not None
    assert (other.kind, other.image_data.platform.architecture) == ("image", "s390x")
    assert other.image_data.containers == ["c" * 64]
    assert other.size.content > other.image_data.size.unpacked > 0
    assert (await lab.images.inspect(name, platform=OTHER)).architecture == "s390x"
    with pytest.raises(NotThatPlatform):
        await lab.images.inspect(name, platform="linux/ppc64le")
    assert (await lab.images.list())[0].manifests is None
