"""Images of several platforms under one name: kept whole, chosen from, pushed on, removed together."""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fixtures.registry import FakeRegistry, Pushed, tar
from pier.images import NoSuchImage
from pier.images.attestations import ATTESTATION, REFERENCE_DIGEST, REFERENCE_TYPE
from pier.images.delete import ImageInUse
from pier.images.push_plan import NoSuchPlatform
from pier.images.service import BothAsked, NotThatPlatform
from pier.oci import host_platform
from pier.oci.manifest import OCI_INDEX

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


async def pull(lab: Lab, name: str, platform: str = "") -> list[dict[str, Any]]:
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


async def test_one_platform_goes_and_the_others_stay(registry: FakeRegistry, lab: Lab) -> None:
    images, proofs = attested(registry, HOST, OTHER)
    name = f"{registry.host}/app:1"
    for platform in (HOST, OTHER):
        await pull(lab, name, platform)
    gone = await lab.images.get(name, OTHER)
    deeds = await lab.images.delete(name, platforms=[OTHER])
    assert [deed.deleted for deed in deeds] == [str(gone.id), *map(str, gone.layers)]
    assert not any(map(lab.content.has, (images[OTHER].digest, images[OTHER].config, proofs[OTHER].digest)))
    image = await lab.images.get(name)
    assert (image.id, image.others) == (images[HOST].config, ())
    with pytest.raises(NoSuchPlatform):
        await lab.images.delete(name, platforms=[OTHER])
    await pull(lab, name, OTHER)
    await lab.images.delete(name, platforms=[HOST])
    assert (await lab.images.get(name)).id == images[OTHER].config
    assert [deed.untagged for deed in await lab.images.delete(name, platforms=[OTHER]) if deed.untagged][:1] == [name]
    with pytest.raises(NoSuchImage):
        await lab.images.get(name)


async def test_a_platform_that_something_else_needs_stays(registry: FakeRegistry, lab: Lab) -> None:
    made, name = index(registry, OTHER, HOST), f"{registry.host}/app:1"
    for platform in (OTHER, HOST):
        await pull(lab, name, platform)
    lab.images.users = lambda: {str(made[OTHER].config): [("c" * 64, True)]}
    with pytest.raises(ImageInUse, match="running container"):
        await lab.images.delete(name, platforms=[OTHER], force=True)
    lab.images.users = dict
    await pull(lab, f"{registry.host}/app@{made[OTHER].digest}")
    with pytest.raises(ImageInUse, match="cannot be forced"):
        await lab.images.delete(name, platforms=[OTHER], force=True)
    assert lab.content.has(made[OTHER].digest)


async def test_a_container_of_any_platform_holds_the_image(registry: FakeRegistry, lab: Lab) -> None:
    made, name = index(registry, OTHER, HOST), f"{registry.host}/app:1"
    for platform in (OTHER, HOST):
        await pull(lab, name, platform)
    lab.images.users = lambda: {str(made[OTHER].config): [("c" * 64, True)]}
    await lab.images.delete(name, force=True)
    assert lab.content.has(made[OTHER].config)


def attested(registry: FakeRegistry, *platforms: str) -> tuple[dict[str, Pushed], dict[str, Pushed]]:
    """`app:1` for these platforms as BuildKit leaves it: each image with an attestation."""
    entries, images, proofs = [], dict[str, Pushed](), dict[str, Pushed]()
    for one in platforms:
        images[one] = registry.add_image("app", "", [tar({"a": one.encode()})], platform=one)
        proofs[one] = registry.add_image("app", "", [tar({"proof": one.encode()})], platform="unknown/unknown")
        about = {REFERENCE_TYPE: ATTESTATION, REFERENCE_DIGEST: images[one].digest}
        entries += [images[one].as_entry(one), {**proofs[one].as_entry("unknown/unknown"), "annotations": about}]
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    registry.add_manifest("app", "1", index, OCI_INDEX)
    return images, proofs


async def test_an_attestation_comes_with_its_image_and_is_none(registry: FakeRegistry, lab: Lab) -> None:
    images, proofs = attested(registry, HOST, OTHER)
    messages = await pull(lab, f"{registry.host}/app:1")
    assert {m["id"] for m in messages if "id" in m} == {"1", images[HOST].layers[0].short}
    found = await lab.images.get(f"{registry.host}/app:1")
    assert (found.id, found.others) == (images[HOST].config, ())
    assert {one: lab.content.has(proof.digest) for one, proof in proofs.items()} == {HOST: True, OTHER: False}
    assert lab.content.has(proofs[HOST].layers[0])
    [row] = await lab.images.list(manifests=True)
    assert row.manifests is not None
    assert [one.kind for one in row.manifests] == ["image", "attestation"] * 2
    assert [one.attestation_data.for_ for one in row.manifests if one.attestation_data] == [
        images[HOST].digest,
        images[OTHER].digest,
    ]


async def test_all_platforms_make_the_index_whole_again(registry: FakeRegistry, lab: Lab) -> None:
    attested(registry, HOST, OTHER)
    name = f"{registry.host}/app:1"
    for platform in (HOST, OTHER):
        await pull(lab, name, platform)
    async with FakeRegistry().serving() as elsewhere:
        await lab.images.tag(name, f"{elsewhere.host}/copy:1")
        async for _ in lab.images.push(f"{elsewhere.host}/copy:1"):
            pass
        assert elsewhere.manifests["copy:1"] == registry.manifests["app:1"]
        assert {f"copy@{key.partition('@')[2]}" for key in registry.manifests if "@" in key} <= set(elsewhere.manifests)


async def test_an_attestation_that_cannot_be_had_does_not_hold_the_image_up(registry: FakeRegistry, lab: Lab) -> None:
    images, proofs = attested(registry, HOST)
    del registry.manifests[f"app@{proofs[HOST].digest}"]
    await pull(lab, f"{registry.host}/app:1")
    assert (await lab.images.get(f"{registry.host}/app:1")).id == images[HOST].config


async def test_an_index_over_an_image_that_is_here(registry: FakeRegistry, lab: Lab) -> None:
    """As after `docker manifest push`: nothing is to be fetched, and nothing is told of layers."""
    image = registry.add_image("app", "plain", [tar({"a": b"1"})], platform=HOST)
    registry.add_index("app", "list", {HOST: image})
    await pull(lab, f"{registry.host}/app:plain")
    messages = await pull(lab, f"{registry.host}/app:list")
    assert [m["status"].partition(" ")[0] for m in messages] == ["Pulling", "Digest:", "Status:"]
    names = (await lab.images.get(f"{registry.host}/app:list")).repo_tags
    assert names == [f"{registry.host}/app:list", f"{registry.host}/app:plain"]


async def test_the_manifests_of_an_image(registry: FakeRegistry, lab: Lab) -> None:
    made, name = index(registry, OTHER, HOST, THIRD), f"{registry.host}/app:1"
    for platform in (OTHER, HOST):
        await pull(lab, name, platform)
    lab.images.users = lambda: {str(made[OTHER].config): [("c" * 64, False)]}
    [row] = await lab.images.list(manifests=True)
    assert row.containers == 1
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
    with pytest.raises(BothAsked):
        await lab.images.inspect(name, platform=OTHER, manifests=True)
    assert (await lab.images.list())[0].manifests is None
