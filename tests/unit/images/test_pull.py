"""Pull: the messages Docker's clients draw, one download for all, nothing half done."""

import asyncio
import hashlib
import os
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from fixtures.registry import FakeRegistry, Misbehaviour, Pushed, always, cut_after, failing, ranged, tar
from pier.distribution import Backoff, Registries, RegistryConfig
from pier.distribution.errors import AccessDenied, ManifestUnknown
from pier.errors import PierError
from pier.events.bus import EventBus
from pier.images.pull import Puller
from pier.images.resolve import NoMatchingManifest, UnsupportedArtifact, UnsupportedOS
from pier.model.filters import Filters
from pier.oci import Digest, MalformedDocument, chain_ids, host_platform
from pier.oci.manifest import OCI_INDEX, OCI_MANIFEST, AmbiguousManifest
from pier.oci.reference import UppercaseName
from pier.storage.compression import decompressed
from pier.storage.content import ContentStore
from pier.storage.errors import ContentMismatch
from pier.storage.overlay2 import Overlay2

HOST = str(host_platform())
BASE, TOP = tar({"base": os.urandom(200_000)}), tar({"top": os.urandom(5_000)})
Message = dict[str, Any]


class FakeSnapshots:
    """Layers without a tree: a set of chain ids, and the same checks as a driver."""

    def __init__(self) -> None:
        self.known: set[Digest] = set()
        self.unpacked: list[Digest] = []
        self.gate: threading.Event | None = None
        self.working = 0

    def has_layer(self, chain_id: Digest) -> bool:
        return chain_id in self.known

    def unpack(self, chain_id: Digest, parent: Digest | None, layer: Any) -> Digest:
        self.working += 1
        try:
            assert parent is None or parent in self.known
            _, plain = decompressed(layer)
            state = hashlib.sha256()
            while data := plain.read(1 << 16):
                state.update(data)
                while self.gate is not None and not self.gate.wait(0.01):
                    layer._report(0, 0)
            diff_id = Digest.finish(state)
            if chain_ids([*([parent] if parent else []), diff_id])[-1] != chain_id:
                raise ContentMismatch(digest=chain_id, reason="another layer")
            self.unpacked.append(chain_id)
            self.known.add(chain_id)
            return diff_id
        finally:
            self.working -= 1


class Machine:
    """A puller with its store."""

    def __init__(self, root: Path, snapshots: Any = None) -> None:
        self.content = ContentStore(str(root / "content"))
        self.snapshots = snapshots or FakeSnapshots()
        self.events = EventBus()
        self.registries = Registries(RegistryConfig(), backoff=Backoff(retries=2, first_s=0.01))
        self.puller = Puller(self.registries, self.content, self.snapshots, self.events)

    async def pull(self, reference: str, **more: Any) -> list[Message]:
        return [message async for message in self.puller.pull(reference, **more)]

    def kept(self, images: dict[str, Pushed]) -> set[str]:
        """The platforms whose manifest, configuration and layers are all here."""
        return {
            platform
            for platform, made in images.items()
            if all(map(self.content.has, (made.digest, made.config, *made.layers)))
        }

    def partial_files(self) -> list[str]:
        return os.listdir(os.path.join(self.content.root, "ingest"))


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


async def test_messages_are_dockers(registry: FakeRegistry, machine: Machine) -> None:
    pushed = registry.add_image("team/app", "1", [BASE, TOP], platform=HOST)
    name = f"{registry.host}/team/app"
    messages = await machine.pull(f"{name}:1")
    assert messages[0] == {"status": "Pulling from team/app", "id": "1"}
    assert messages[-2:] == [
        {"status": f"Digest: {pushed.digest}"},
        {"status": f"Status: Downloaded newer image for {name}:1"},
    ]
    for layer in pushed.layers:
        seen = [stage for stage in stages(messages, layer.short) if stage not in ("Waiting", "Downloading")]
        assert seen == ["Pulling fs layer", "Verifying Checksum", "Download complete", "Extracting", "Pull complete"]
    assert messages[1:3] == [
        {"status": "Pulling fs layer", "progressDetail": {}, "id": layer.short} for layer in pushed.layers
    ]
    size = len(registry.blobs[pushed.layers[0]])
    [last] = [
        m
        for m in messages
        if m.get("progressDetail") == {"current": size, "total": size} and m["status"] == "Extracting"
    ]
    assert last["id"] == pushed.layers[0].short
    assert last["progress"].startswith("[==================================================>]")


async def test_the_image_is_there_under_its_names(registry: FakeRegistry, machine: Machine) -> None:
    pushed = registry.add_image("app", "1", [BASE, TOP], platform=HOST)
    await machine.pull(f"{registry.host}/app:1")
    tags = machine.content.tags()
    assert set(tags) == {f"{registry.host}/app:1", f"{registry.host}/app@{pushed.digest}"}
    assert {(d.digest, d.size, str(d.platform)) for d in tags.values()} == {(pushed.digest, pushed.size, HOST)}
    assert machine.snapshots.unpacked == chain_ids(pushed.diff_ids)
    for digest in (pushed.digest, pushed.config, *pushed.layers):
        assert machine.content.has(digest)
    assert machine.partial_files() == []


async def test_the_event_of_a_pull(registry: FakeRegistry, machine: Machine) -> None:
    registry.add_image("app", "1", [TOP], platform=HOST)
    await machine.pull(f"{registry.host}/app:1")
    async with machine.events.subscribe(filters=Filters(), since_ns=1, until_ns=2**62) as events:
        event = await anext(aiter(events))
    assert (event.type, event.action, event.actor.id) == ("image", "pull", f"{registry.host}/app:1")
    assert event.actor.attributes["name"] == f"{registry.host}/app"


async def test_an_image_that_is_up_to_date_costs_one_request(registry: FakeRegistry, machine: Machine) -> None:
    pushed = registry.add_image("app", "1", [TOP], platform=HOST)
    index = registry.add_index("app", "many", {HOST: pushed})
    for tag, digest in (("1", pushed.digest), ("many", index)):
        name = f"{registry.host}/app:{tag}"
        await machine.pull(name)
        registry.seen.clear()
        assert await machine.pull(name) == [
            {"status": "Pulling from app", "id": tag},
            {"status": f"Digest: {digest}"},
            {"status": f"Status: Image is up to date for {name}"},
            {"progressDetail": {}, "aux": {"Previous": digest, "Digest": digest, "Tag": tag}},
        ]
        assert [(request.method, request.path) for request in registry.seen] == [("HEAD", f"/v2/app/manifests/{tag}")]


async def test_wish_07_a_tag_that_moved(registry: FakeRegistry, machine: Machine) -> None:
    older = registry.add_image("app", "1", [BASE], platform=HOST)
    await machine.pull(f"{registry.host}/app:1")
    newer = registry.add_image("app", "1", [BASE, TOP], platform=HOST)
    messages = await machine.pull(f"{registry.host}/app:1")
    assert stages(messages, newer.layers[0].short) == ["Already exists"]
    assert "Pull complete" in stages(messages, newer.layers[1].short)
    assert messages[-2:] == [
        {"status": f"Status: Downloaded newer image for {registry.host}/app:1"},
        {"status": f"updated: {older.digest} -> {newer.digest}"},
    ]
    assert machine.content.tags()[f"{registry.host}/app:1"].digest == newer.digest


async def test_all_tags(registry: FakeRegistry, machine: Machine) -> None:
    for tag, layer in (("2", TOP), ("1", BASE), ("1b", BASE)):
        registry.add_image("app", tag, [layer], platform=HOST)
    name = f"{registry.host}/app"
    messages = await machine.pull(name)
    assert [m["id"] for m in messages if m.get("status") == "Pulling from app"] == ["1", "1b", "2"]
    assert messages[-1] == {"status": f"Status: Downloaded newer image for {name}"}
    assert {key for key in machine.content.tags() if "@" not in key} == {f"{name}:1", f"{name}:1b", f"{name}:2"}
    again = await machine.pull(name)
    assert {"status": f"Status: Image is up to date for {name}"} in again


async def test_by_digest(registry: FakeRegistry, machine: Machine) -> None:
    pushed = registry.add_image("app", "", [TOP], platform=HOST)
    name = f"{registry.host}/app@{pushed.digest}"
    messages = await machine.pull(name)
    assert messages[0] == {"status": "Pulling from app", "id": name}
    assert messages[-1] == {"status": f"Status: Downloaded newer image for {name}"}
    assert set(machine.content.tags()) == {name}


async def test_the_platform_is_chosen_from_the_index(registry: FakeRegistry, machine: Machine) -> None:
    images = {
        platform: registry.add_image("app", "", [tar({"arch": platform.encode()})], platform=platform)
        for platform in ("linux/s390x", HOST, "linux/riscv64")
    }
    index = registry.add_index("app", "1", images)
    name = f"{registry.host}/app:1"
    messages = await machine.pull(name)
    assert {"status": f"Digest: {index}"} in messages
    assert (machine.content.tags()[name].digest, machine.kept(images)) == (index, {HOST})
    await machine.pull(name, platform="linux/s390x")
    assert (machine.content.tags()[name].digest, machine.kept(images)) == (index, {HOST, "linux/s390x"})
    assert str(machine.content.tags()[name].platform) == "linux/s390x"
    with pytest.raises(NoMatchingManifest) as caught:
        await machine.pull(name, platform="linux/ppc64le")
    assert caught.value.message == "no matching manifest for linux/ppc64le in the manifest list entries"
    assert "linux/riscv64, linux/s390x" in caught.value.wire


async def test_a_single_image_of_another_platform_comes_with_a_warning(
    registry: FakeRegistry, machine: Machine
) -> None:
    registry.add_image("app", "1", [TOP], platform="linux/s390x")
    name = f"{registry.host}/app:1"
    assert "WARNING" not in (await machine.pull(name))[-1]["status"]
    assert (await machine.pull(name, platform="linux/ppc64le"))[-1] == {
        "status": f"WARNING: image with reference {name} was found but its platform (linux/s390x) "
        "does not match the specified platform (linux/ppc64le)"
    }


async def test_nothing_is_said_before_the_name_is_resolved(registry: FakeRegistry, machine: Machine) -> None:
    """The API turns the first error into a status only while there was no message."""
    registry.login = "basic"
    for reference, error in [
        (f"{registry.host}/App", UppercaseName),
        (f"{registry.host}/app:1", AccessDenied),
    ]:
        messages = machine.puller.pull(reference)
        with pytest.raises(error):
            await anext(aiter(messages))
    registry.login = ""
    with pytest.raises(ManifestUnknown):
        await anext(aiter(machine.puller.pull(f"{registry.host}/app:none")))


async def test_credentials_are_used(registry: FakeRegistry, machine: Machine) -> None:
    registry.login = "bearer"
    registry.add_image("app", "1", [TOP], platform=HOST)
    await machine.pull(f"{registry.host}/app:1", auth={"username": "alice", "password": "s3cret"})
    assert len(registry.asked("/token")) == 1


async def test_three_layers_at_a_time(registry: FakeRegistry, machine: Machine) -> None:
    pushed = registry.add_image("app", "1", [tar({"n": bytes([n])}) for n in range(6)], platform=HOST)
    running, most = 0, 0
    three = asyncio.Event()

    async def slow(request: web.Request, data: bytes) -> web.StreamResponse:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == 3:
            three.set()
        await asyncio.wait_for(three.wait(), 5)
        await asyncio.sleep(0.15)
        running -= 1
        return ranged(request, data)

    registry.blob_hook = dict.fromkeys(pushed.layers, slow)
    messages = await machine.pull(f"{registry.host}/app:1")
    assert most == 3
    waited = [layer.short for layer in pushed.layers if "Waiting" in stages(messages, layer.short)]
    assert waited == [layer.short for layer in pushed.layers[3:]]
    assert machine.snapshots.unpacked == chain_ids(pushed.diff_ids)


def held(gate: asyncio.Event) -> Misbehaviour:
    """Half of a blob, and the rest when the gate opens."""

    async def answer(request: web.Request, data: bytes) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = len(data)
        await response.prepare(request)
        await response.write(data[: len(data) // 2])
        await gate.wait()
        await response.write(data[len(data) // 2 :])
        return response

    return answer


async def until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


async def test_two_pulls_of_one_layer_share_the_download(registry: FakeRegistry, machine: Machine) -> None:
    pushed = registry.add_image("app", "1", [BASE], platform=HOST)
    registry.add_image("other", "1", [BASE, TOP], platform=HOST)
    gate = asyncio.Event()
    [layer] = pushed.layers
    registry.blob_hook[layer] = held(gate)
    pulls = [asyncio.create_task(machine.pull(f"{registry.host}/{name}:1")) for name in ("app", "other", "app")]
    await until(lambda: len(registry.asked("/manifests/")) == 3)
    await asyncio.sleep(0.3)
    gate.set()
    for messages in await asyncio.gather(*pulls):
        assert stages(messages, layer.short)[-1] == "Pull complete"
    assert len(registry.asked(f"/blobs/{layer}")) == 1
    assert machine.snapshots.unpacked.count(chain_ids(pushed.diff_ids)[0]) == 1


async def test_one_of_two_pulls_is_cancelled_the_other_goes_on(registry: FakeRegistry, machine: Machine) -> None:
    pushed = registry.add_image("app", "1", [BASE], platform=HOST)
    gate = asyncio.Event()
    [layer] = pushed.layers
    registry.blob_hook[layer] = held(gate)
    first = asyncio.create_task(machine.pull(f"{registry.host}/app:1"))
    await until(lambda: registry.asked(f"/blobs/{layer}"))
    second = asyncio.create_task(machine.pull(f"{registry.host}/app:1"))
    await asyncio.sleep(0.3)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    gate.set()
    assert (await second)[-1]["status"].startswith("Status: Downloaded newer image")
    assert len(registry.asked(f"/blobs/{layer}")) == 1


async def test_the_failure_of_another_pulls_download_is_not_ours(registry: FakeRegistry, machine: Machine) -> None:
    """Its registry breaks; ours has the layer."""
    async with FakeRegistry().serving() as broken:
        pushed = broken.add_image("app", "1", [BASE], platform=HOST)
        registry.add_image("app", "1", [BASE], platform=HOST)
        [layer] = pushed.layers
        gate = asyncio.Event()

        async def stall_and_fail(request: web.Request, data: bytes) -> web.StreamResponse:
            await gate.wait()
            return web.Response(status=403)

        broken.blob_hook[layer] = stall_and_fail
        first = asyncio.create_task(machine.pull(f"{broken.host}/app:1"))
        await until(lambda: broken.asked(f"/blobs/{layer}"))
        second = asyncio.create_task(machine.pull(f"{registry.host}/app:1"))
        await until(lambda: registry.asked("/manifests/"))
        await asyncio.sleep(0.2)
        gate.set()
        with pytest.raises(AccessDenied):
            await first
        assert (await second)[-1]["status"].startswith("Status: Downloaded newer image")


@pytest.mark.parametrize("moment", ["download", "unpack", "abandoned"])
async def test_cancellation_leaves_nothing_half_done(registry: FakeRegistry, machine: Machine, moment: str) -> None:
    pushed = registry.add_image("app", "1", [BASE, TOP], platform=HOST)
    if moment == "unpack":
        machine.snapshots.gate = threading.Event()
    else:
        registry.blob_hook[pushed.layers[0]] = held(asyncio.Event())
    if moment == "abandoned":
        async with aclosing(machine.puller.pull(f"{registry.host}/app:1")) as messages:  # type: ignore[type-var]
            async for message in messages:
                if message["status"] == "Downloading":
                    break
    else:
        task = asyncio.create_task(machine.pull(f"{registry.host}/app:1"))
        await until(lambda: machine.snapshots.working if moment == "unpack" else machine.partial_files())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert machine.snapshots.working == 0
    # bytes of a download that was cut stay for the next one
    assert all(name.endswith(".part") for name in machine.partial_files())
    assert machine.content.tags() == {}
    assert [task for task in asyncio.all_tasks() if task.get_name().startswith(("pull", "download"))] == []
    if machine.snapshots.gate is not None:
        machine.snapshots.gate.set()
    registry.blob_hook.clear()
    await machine.pull(f"{registry.host}/app:1")


async def test_a_download_that_is_tried_again_says_so(registry: FakeRegistry, machine: Machine) -> None:
    pushed = registry.add_image("app", "1", [BASE], platform=HOST)
    [layer] = pushed.layers
    registry.blob_hook[layer] = cut_after([50_000])
    machine.registries._backoff = Backoff(retries=1, first_s=0.3)
    assert "Retrying in 1 second" in stages(await machine.pull(f"{registry.host}/app:1"), layer.short)


# --- attack 11


@pytest.mark.parametrize("which", ["config", "layer"])
async def test_attack_11_a_blob_that_lies_gives_no_image(registry: FakeRegistry, machine: Machine, which: str) -> None:
    pushed = registry.add_image("app", "1", [BASE, TOP], platform=HOST)
    digest = pushed.config if which == "config" else pushed.layers[1]
    registry.blob_hook[digest] = always(b"z" * len(registry.blobs[digest]))
    with pytest.raises(ContentMismatch, match="failed verification"):
        await machine.pull(f"{registry.host}/app:1")
    assert machine.content.tags() == {}
    # the other layer may have been cut short by the failure; of the lie nothing stays
    assert not [name for name in machine.partial_files() if digest.hex in name]
    assert not machine.content.has(digest)


async def test_attack_11_a_layer_that_is_not_the_configurations(registry: FakeRegistry, machine: Machine) -> None:
    """The digests of the manifest hold, but the configuration promises other layers."""
    lie = {"rootfs": {"type": "layers", "diff_ids": [Digest.of(BASE)]}}
    registry.add_image("evil", "1", [TOP], platform=HOST, config=lie)
    with pytest.raises(ContentMismatch):
        await machine.pull(f"{registry.host}/evil:1")
    # also when the promised layer is unpacked already, so that nothing needs to be
    registry.add_image("good", "1", [BASE], platform=HOST)
    await machine.pull(f"{registry.host}/good:1")
    with pytest.raises(ContentMismatch, match="unpacks to"):
        await machine.pull(f"{registry.host}/evil:1")
    assert not [name for name in machine.content.tags() if "evil" in name]


async def test_attack_11_manifest_and_index_in_one(registry: FakeRegistry, machine: Machine) -> None:
    pushed = registry.add_image("app", "1", [TOP], platform=HOST)
    _, data = registry.manifests["app:1"]
    both = data[:-1] + b',"manifests":[]}'
    for media_type in (OCI_MANIFEST, OCI_INDEX):
        registry.add_manifest(
            "app", "both", both.replace(b'"mediaType": "application/vnd.docker', b'"x": "', 1), media_type
        )
        with pytest.raises(AmbiguousManifest):
            await machine.pull(f"{registry.host}/app:both")
    assert pushed.digest not in {tag.digest for tag in machine.content.tags().values()}


async def test_attack_11_indexes_in_indexes_end(registry: FakeRegistry, machine: Machine) -> None:
    pushed = registry.add_image("app", "", [TOP], platform=HOST)
    entry = pushed.as_entry(HOST)
    for _ in range(6):
        document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}
        digest = registry.add_manifest("app", "deep", document, OCI_INDEX)
        size = len(registry.manifests["app:deep"][1])
        entry = {**entry, "mediaType": OCI_INDEX, "digest": digest, "size": size}
    with pytest.raises(MalformedDocument, match="indexes in a row"):
        await machine.pull(f"{registry.host}/app:deep")


@pytest.mark.parametrize(
    ("config", "error"),
    [
        ({"rootfs": None}, MalformedDocument),
        ({"rootfs": {"type": "layers", "diff_ids": []}}, MalformedDocument),
        ({"rootfs": {"type": "layers", "diff_ids": ["sha256:../../x"]}}, MalformedDocument),
        ({"config": "x"}, MalformedDocument),
        ({"os": "windows"}, UnsupportedOS),
    ],
)
async def test_attack_11_broken_configurations(
    registry: FakeRegistry, machine: Machine, config: dict[str, Any], error: type[PierError]
) -> None:
    registry.add_image("app", "1", [TOP], platform=HOST, config=config)
    with pytest.raises(error):
        await machine.pull(f"{registry.host}/app:1")
    assert machine.content.tags() == {}


async def test_attack_11_nil_config_is_no_crash(registry: FakeRegistry, machine: Machine) -> None:
    registry.add_image("app", "1", [TOP], platform=HOST, config={"config": None, "history": None})
    assert (await machine.pull(f"{registry.host}/app:1"))[-1]["status"].startswith("Status: Downloaded")


async def test_what_is_no_image_is_refused(registry: FakeRegistry, machine: Machine) -> None:
    registry.add_image("chart", "1", [TOP], platform=HOST)
    media_type, data = registry.manifests["chart:1"]
    helm = data.replace(b"application/vnd.docker.container.image.v1+json", b"application/vnd.cncf.helm.config.v1+json")
    registry.add_manifest("chart", "helm", helm, media_type)
    with pytest.raises(UnsupportedArtifact, match=r"unsupported media type application/vnd\.cncf\.helm"):
        await machine.pull(f"{registry.host}/chart:helm")


async def test_server_errors_at_a_layer_end_the_pull_with_one_sentence(
    registry: FakeRegistry, machine: Machine
) -> None:
    pushed = registry.add_image("app", "1", [BASE, TOP], platform=HOST)
    registry.blob_hook = dict.fromkeys(pushed.layers, failing(500, times=99))
    with pytest.raises(PierError, match="received unexpected HTTP status: 500"):
        await machine.pull(f"{registry.host}/app:1")


@pytest.mark.root
async def test_a_pulled_layer_is_a_tree(registry: FakeRegistry, tmp_path: Path) -> None:
    snapshots = Overlay2(str(tmp_path))
    machine = Machine(tmp_path, snapshots)
    try:
        registry.add_image("app", "1", [tar({"etc/motd": b"hello"})], platform=HOST)
        await machine.pull(f"{registry.host}/app:1")
    finally:
        await machine.registries.close()
        snapshots.close()
    [motd] = tmp_path.glob("snapshots/overlay2/layers/*/diff/etc/motd")
    assert motd.read_bytes() == b"hello"
