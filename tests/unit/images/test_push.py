"""Push: the messages Docker's clients draw, nothing sent twice, digests kept, cuts survived."""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fixtures.registry import FakeRegistry, Pushed, tar
from pier.distribution import Backoff, Registries, RegistryConfig
from pier.distribution import upload as upload_module
from pier.distribution.errors import AccessDenied, ContentRefused, RedirectRefused, ServerFailed, UploadRefused
from pier.events.bus import EventBus
from pier.images.push import DigestPush, NoSuchTag, NothingToPush, Pusher
from pier.images.push_plan import NoSuchPlatform, NotAllPlatforms
from pier.model.filters import Filters
from pier.oci import Descriptor, Digest, host_platform
from pier.oci.manifest import DOCKER_CONFIG, DOCKER_LAYER, DOCKER_MANIFEST, DOCKER_MANIFEST_LIST
from pier.oci.reference import InvalidReference
from pier.storage.content import ContentStore

HOST = str(host_platform())
BASE, TOP = tar({"base": os.urandom(3_000_000)}), tar({"top": os.urandom(5_000)})
Message = dict[str, Any]


class Machine:
    """A pusher with its store."""

    def __init__(self, root: Path) -> None:
        self.content = ContentStore(str(root / "content"))
        self.events = EventBus()
        self.registries = Registries(RegistryConfig(), backoff=Backoff(retries=3, first_s=0.01))
        self.known: tuple[str, ...] = ()
        self.pusher = Pusher(self.registries, self.content, self.events, mounts=lambda blob, registry: self.known)
        self.source = FakeRegistry()

    def image(
        self, name: str, layers: list[bytes], *, platform: str = HOST, more: dict[str, Any] | None = None
    ) -> Pushed:
        """An image in the store, under a full name unless that is empty."""
        made = self.source.add_image("x", "", layers, platform=platform, layer_more=more)
        data = self.source.manifests[f"x@{made.digest}"][1]
        for blob, kind in [(data, DOCKER_MANIFEST), (self.source.blobs[made.config], DOCKER_CONFIG)]:
            self.content.put(blob, kind)
        for digest in made.layers:
            self.content.put(self.source.blobs[digest], DOCKER_LAYER)
        if name:
            self.content.set_tag(name, Descriptor(DOCKER_MANIFEST, made.digest, made.size))
        return made

    def index(self, name: str, images: dict[str, Pushed]) -> Digest:
        digest = self.source.add_index("x", "", images)
        data = self.source.manifests[f"x@{digest}"][1]
        self.content.put(data, DOCKER_MANIFEST_LIST)
        self.content.set_tag(name, Descriptor(DOCKER_MANIFEST_LIST, digest, len(data)))
        return digest

    def images(self, *platforms: str) -> dict[str, Pushed]:
        """One image a platform, without names."""
        return {one: self.image("", [tar({"a": one.encode()})], platform=one) for one in platforms}

    async def push(self, reference: str, **more: Any) -> list[Message]:
        return [message async for message in self.pusher.push(reference, **more)]


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[Machine]:
    machine = Machine(tmp_path)
    yield machine
    await machine.registries.close()


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry().serving() as server:
        yield server


def stages(messages: list[Message], id: str) -> list[str]:
    """The stages one layer went through, each once."""
    return list(dict.fromkeys(message["status"] for message in messages if message.get("id") == id))


def bodies(registry: FakeRegistry) -> list[tuple[str, int, int]]:
    """The parts of bodies that carried a large layer."""
    return [one for one in registry.uploads.received if one[0] == "PATCH"]


async def test_messages_are_dockers(registry: FakeRegistry, machine: Machine) -> None:
    name = f"{registry.host}/team/app"
    made = machine.image(f"{name}:1", [BASE, TOP])
    messages = await machine.push(f"{name}:1")
    assert messages[0] == {"status": f"The push refers to repository [{name}]"}
    assert messages[1:3] == [
        {"status": "Preparing", "progressDetail": {}, "id": diff_id.short} for diff_id in reversed(made.diff_ids)
    ]
    assert messages[-2:] == [
        {"status": f"1: digest: {made.digest} size: {made.size}"},
        {
            "progressDetail": {},
            "aux": {"Tag": "1", "Digest": made.digest, "Size": made.size, "Previous": ""},
        },
    ]
    for diff_id in made.diff_ids:
        seen = [stage for stage in stages(messages, diff_id.short) if stage != "Waiting"]
        assert seen == ["Preparing", "Pushing", "Pushed"]
    assert registry.manifests["team/app:1"] == machine.source.manifests[f"x@{made.digest}"]
    assert set(registry.blobs) == {made.config, *made.layers}


async def test_the_event_and_the_digest_that_is_remembered(registry: FakeRegistry, machine: Machine) -> None:
    name = f"{registry.host}/app"
    made = machine.image(f"{name}:1", [TOP])
    await machine.push(f"{name}:1")
    assert f"{name}@{made.digest}" in machine.content.tags()
    async with machine.events.subscribe(filters=Filters(), since_ns=1, until_ns=2**62) as events:
        event = await anext(aiter(events))
    assert (event.type, event.action, event.actor.id) == ("image", "push", f"{name}:1")
    assert event.actor.attributes["name"] == name


async def test_what_is_there_is_not_sent_again(registry: FakeRegistry, machine: Machine) -> None:
    name = f"{registry.host}/app:1"
    made = machine.image(name, [BASE, TOP])
    await machine.push(name)
    registry.seen.clear()
    messages = await machine.push(name)
    assert [request.method for request in registry.seen if "/blobs/" in request.path] == ["HEAD"] * 3
    for diff_id in made.diff_ids:
        assert stages(messages, diff_id.short)[-1] == "Layer already exists"
    assert messages[-1]["aux"]["Previous"] == made.digest
    assert not [m for m in messages if "updated:" in m.get("status", "")]


async def test_wish_07_a_push_says_what_it_replaced(registry: FakeRegistry, machine: Machine) -> None:
    name = f"{registry.host}/app:1"
    first = machine.image(name, [BASE])
    await machine.push(name)
    second = machine.image(name, [TOP])
    messages = await machine.push(name)
    assert messages[-3] == {"status": f"1: updated: {first.digest} -> {second.digest}"}
    assert messages[-1]["aux"]["Previous"] == first.digest


async def test_a_blob_is_mounted_from_where_it_is_known_to_be(registry: FakeRegistry, machine: Machine) -> None:
    made = machine.image(f"{registry.host}/a:1", [BASE])
    await machine.push(f"{registry.host}/a:1")
    registry.per_repository = True
    machine.image(f"{registry.host}/b:1", [BASE])
    machine.known = ("b", "a")
    sent = len(registry.uploads.received)
    messages = await machine.push(f"{registry.host}/b:1")
    assert stages(messages, made.diff_ids[0].short)[-1] == "Mounted from a"
    assert len(registry.uploads.received) == sent
    # a registry that does not mount gets it sent
    registry.uploads.mounts = False
    machine.image(f"{registry.host}/c:1", [BASE])
    messages = await machine.push(f"{registry.host}/c:1")
    assert stages(messages, made.diff_ids[0].short)[-1] == "Pushed"


@pytest.mark.parametrize("cut", [1, 1000, 1 << 20, 2_999_999])
async def test_an_upload_that_was_cut_goes_on_there(registry: FakeRegistry, machine: Machine, cut: int) -> None:
    name = f"{registry.host}/app:1"
    made = machine.image(name, [BASE])
    registry.uploads.cuts = [cut]
    await machine.push(name)
    assert made.layers[0] in registry.blobs
    assert [start for _, start, _ in bodies(registry)] == [0, cut if cut > 1 else 0]


async def test_a_small_blob_that_was_cut(registry: FakeRegistry, machine: Machine) -> None:
    made = machine.image(f"{registry.host}/app:1", [TOP])
    registry.uploads.cuts, registry.uploads.cut_method = [0, 10, 300], "PUT"
    await machine.push(f"{registry.host}/app:1")
    assert {made.config, *made.layers} == set(registry.blobs)


async def test_an_upload_that_the_registry_forgot_begins_anew(registry: FakeRegistry, machine: Machine) -> None:
    name = f"{registry.host}/app:1"
    made = machine.image(name, [BASE])
    registry.uploads.cuts, registry.uploads.forgets = [1 << 20], True
    await machine.push(name)
    assert [start for _, start, _ in bodies(registry)] == [0, 0]
    assert made.layers[0] in registry.blobs


async def test_a_body_that_is_too_large_goes_in_pieces(
    registry: FakeRegistry, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload_module, "PIECE_BYTES", 1 << 20)
    registry.uploads.most_bytes = 1 << 20
    name = f"{registry.host}/app:1"
    made = machine.image(name, [BASE])
    await machine.push(name)
    size = len(registry.blobs[made.layers[0]])
    assert bodies(registry) == [
        ("PATCH", 0, 1 << 20),
        ("PATCH", 1 << 20, 1 << 20),
        ("PATCH", 2 << 20, size - (2 << 20)),
    ]


async def test_endless_failures_end_the_push(registry: FakeRegistry, machine: Machine) -> None:
    machine.image(f"{registry.host}/app:1", [TOP])
    registry.manifest_status = [500]
    with pytest.raises(ServerFailed):
        await machine.push(f"{registry.host}/app:1")
    assert registry.manifests == {}


# --- names


async def test_all_tags(registry: FakeRegistry, machine: Machine) -> None:
    name = f"{registry.host}/app"
    for tag in ("2", "1"):
        machine.image(f"{name}:{tag}", [BASE])
    machine.image(f"{name}er:3", [TOP])
    messages = await machine.push(name)
    assert [m["status"].partition(":")[0] for m in messages if " digest: " in m.get("status", "")] == ["1", "2"]
    assert sorted(key for key in registry.manifests if ":" in key.partition("@")[0]) == ["app:1", "app:2"]


async def test_names_that_cannot_be_pushed(registry: FakeRegistry, machine: Machine) -> None:
    for name in ("localhost:5000/app:1", "localhost:5000/app"):
        with pytest.raises(NothingToPush, match=r"^An image does not exist locally with the tag: localhost:5000/app$"):
            await machine.push(name)
    machine.image("localhost:5000/app:2", [TOP])
    with pytest.raises(NoSuchTag, match=r"^tag does not exist: localhost:5000/app:1$"):
        await machine.push("localhost:5000/app:1")
    with pytest.raises(DigestPush):
        await machine.push("a@sha256:" + 64 * "a")
    with pytest.raises(InvalidReference):
        await machine.push("../x")


# --- indexes


async def test_an_index_goes_whole(registry: FakeRegistry, machine: Machine) -> None:
    name = f"{registry.host}/app:1"
    images = {
        platform: machine.image("", [tar({"a": platform.encode()})], platform=platform)
        for platform in (HOST, "linux/s390x")
    }
    index = machine.index(name, images)
    messages = await machine.push(name)
    assert messages[-1]["aux"]["Digest"] == index
    assert registry.manifests["app:1"][0] == DOCKER_MANIFEST_LIST
    assert {f"app@{made.digest}" for made in images.values()} < set(registry.manifests)


async def test_one_platform_of_an_index(registry: FakeRegistry, machine: Machine) -> None:
    name = f"{registry.host}/app:1"
    images = {
        platform: machine.image("", [tar({"a": platform.encode()})], platform=platform)
        for platform in (HOST, "linux/s390x")
    }
    machine.index(name, images)
    messages = await machine.push(name, platform="linux/s390x")
    assert messages[-1]["aux"]["Digest"] == images["linux/s390x"].digest
    with pytest.raises(NoSuchPlatform):
        await machine.push(name, platform="linux/ppc64le")


async def test_an_index_that_is_not_whole(registry: FakeRegistry, machine: Machine) -> None:
    name = f"{registry.host}/app:1"
    elsewhere = machine.source.add_image("x", "", [tar({"a": b"s390x"})], platform="linux/s390x")
    here = machine.image("", [TOP])
    index = machine.index(name, {HOST: here, "linux/s390x": elsewhere})
    messages = await machine.push(name)
    assert messages[-2]["aux"]["Digest"] == here.digest
    assert messages[-1]["aux"]["originalIndex"]["digest"] == index
    assert messages[-1]["aux"]["selectedManifest"]["digest"] == here.digest
    # the registry has the other one: the index can be pushed
    registry.manifests[f"app@{elsewhere.digest}"] = machine.source.manifests[f"x@{elsewhere.digest}"]
    assert (await machine.push(name))[-1]["aux"]["Digest"] == index


async def test_the_host_s_image_stands_for_an_index_that_is_not_whole(registry: FakeRegistry, machine: Machine) -> None:
    name = f"{registry.host}/app:1"
    missing = machine.source.add_image("x", "", [b"x"])
    here = machine.images(HOST, "linux/s390x", "linux/riscv64")
    machine.index(name, {**here, "linux/ppc64le": missing})
    assert (await machine.push(name))[-1]["aux"]["selectedManifest"]["digest"] == here.pop(HOST).digest
    assert not [key for key in machine.content.tags() if "@" in key]
    machine.index(name, {**here, "linux/ppc64le": missing})
    with pytest.raises(NotAllPlatforms, match="ppc64le"):
        await machine.push(name)


async def test_a_platform_that_is_not_here_is_refused_before_anything_is_said(machine: Machine) -> None:
    machine.index("localhost:5000/app:1", machine.images(HOST, "linux/s390x"))
    with pytest.raises(NoSuchPlatform):
        await anext(aiter(machine.pusher.push("localhost:5000/app:1", platform="linux/ppc64le")))


async def test_foreign_layers_stay_where_they_are(registry: FakeRegistry, machine: Machine) -> None:
    name = f"{registry.host}/app:1"
    foreign = {
        "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "urls": ["https://elsewhere.invalid/layer"],
    }
    made = machine.image(name, [TOP], more=foreign)
    messages = await machine.push(name)
    assert stages(messages, made.diff_ids[0].short)[-1] == "Skipped foreign layer"
    assert made.layers[0] not in registry.blobs


# --- hostile registries


async def test_trap_25_who_may_not_push_is_told_as_whom(registry: FakeRegistry, machine: Machine) -> None:
    registry.login, registry.user = "bearer", "alice"
    machine.image(f"{registry.host}/app:1", [TOP])
    with pytest.raises(AccessDenied) as caught:
        await machine.push(f"{registry.host}/app:1", auth={"username": "mallory", "password": "x"})
    said = str(caught.value)
    assert "user mallory" in said
    assert registry.host in said
    assert "repository:app:pull,push" in said


async def test_the_scope_of_a_push(registry: FakeRegistry, machine: Machine) -> None:
    registry.login = "bearer"
    machine.image(f"{registry.host}/app:1", [BASE])
    machine.known = ("other",)
    await machine.push(f"{registry.host}/app:1", auth={"username": "alice", "password": "s3cret"})
    scopes = [request.path.partition("?")[2] for request in registry.asked("/token")]
    assert any("scope=repository:app:pull,push&scope=repository:other:pull" in query for query in scopes)


async def test_attack_18_an_upload_sent_elsewhere_carries_no_login(registry: FakeRegistry, machine: Machine) -> None:
    async with FakeRegistry().serving() as other:
        registry.login = "basic"
        registry.uploads.location = other.url
        other.uploads = registry.uploads
        other.blobs = registry.blobs
        made = machine.image(f"{registry.host}/app:1", [BASE])
        await machine.push(f"{registry.host}/app:1", auth={"username": "alice", "password": "s3cret"})
        assert made.layers[0] in registry.blobs
        assert other.asked("/blobs/uploads/", "PATCH")
        assert other.leaked() == []


async def test_attack_18_an_upload_is_not_sent_to_a_plain_host(registry: FakeRegistry, machine: Machine) -> None:
    registry.uploads.location = "http://192.0.2.1"
    machine.image(f"{registry.host}/app:1", [BASE])
    with pytest.raises(RedirectRefused):
        await machine.push(f"{registry.host}/app:1")


async def test_attack_11_a_registry_that_stores_something_else(registry: FakeRegistry, machine: Machine) -> None:
    made = machine.image(f"{registry.host}/app:1", [BASE])
    registry.blobs[made.layers[0]] = b"short"
    with pytest.raises(ContentRefused, match="5 bytes there"):
        await machine.push(f"{registry.host}/app:1")


async def test_attack_11_a_blob_that_rotted_here_is_refused_there(registry: FakeRegistry, machine: Machine) -> None:
    made = machine.image(f"{registry.host}/app:1", [BASE])
    path = Path(machine.content.path(made.layers[0]))
    path.write_bytes(os.urandom(path.stat().st_size))
    with pytest.raises(UploadRefused):
        await machine.push(f"{registry.host}/app:1")
    assert registry.manifests == {}
    assert made.layers[0] not in registry.blobs
