"""What registries have: tags, manifests, logins, search, lists put together there."""

import json
import os
from collections.abc import AsyncIterator

import pytest

from fixtures.registry import FakeRegistry, tar
from pier.distribution import Backoff, Registries, RegistryConfig
from pier.distribution.errors import AccessDenied, LoginFailed, ManifestUnknown, RegistryError, RequestRefused
from pier.images.manifest_list import (
    EmptyList,
    ListEntry,
    ListInList,
    MountRefused,
    NotAListType,
    OtherRegistry,
    list_bytes,
)
from pier.images.remote import BadStars, Remote, SearchLimit
from pier.model.filters import Filters, InvalidFilterValue, UnknownFilter
from pier.oci import Descriptor, Digest, Platform, Reference, host_platform
from pier.oci.manifest import DOCKER_MANIFEST, DOCKER_MANIFEST_LIST, OCI_INDEX, OCI_MANIFEST

HOST = str(host_platform())
LAYER = tar({"x": os.urandom(5000)})
ALICE = {"username": "alice", "password": "s3cret"}


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry().serving() as server:
        yield server


@pytest.fixture
async def remote() -> AsyncIterator[Remote]:
    registries = Registries(RegistryConfig(), backoff=Backoff(retries=1, first_s=0))
    yield Remote(registries)
    await registries.close()


# --- tags


async def test_wish_02_tags_with_digest_platforms_size_and_date(registry: FakeRegistry, remote: Remote) -> None:
    created = "2024-05-06T07:08:09Z"
    made = registry.add_image("app", "1", [LAYER], platform=HOST, config={"created": created})
    index = registry.add_index("app", "many", {HOST: made, "linux/s390x": registry.add_image("app", "", [LAYER])})
    tags = await remote.tags(f"{registry.host}/app", None, details=True)
    assert [tag.name for tag in tags] == ["1", "many"]
    size = len(registry.blobs[made.layers[0]]) + len(registry.blobs[made.config])
    assert (tags[0].digest, tags[0].platforms, tags[0].size, tags[0].created) == (made.digest, [HOST], size, created)
    assert (tags[1].digest, tags[1].platforms, tags[1].size) == (index, [HOST, "linux/s390x"], size)


async def test_wish_02_tags_come_in_pages(registry: FakeRegistry, remote: Remote) -> None:
    registry.tags_a_page = 3
    for number in range(10):
        registry.add_image("app", f"v{number}", [LAYER])
    tags = await remote.tags(f"{registry.host}/app", None, details=False)
    assert [tag.name for tag in tags] == [f"v{number}" for number in range(10)]
    assert len(registry.asked("/tags/list")) == 4


async def test_tags_of_nothing(registry: FakeRegistry, remote: Remote) -> None:
    with pytest.raises(RegistryError, match="repository name not known"):
        await remote.tags(f"{registry.host}/none", None, details=False)


# --- inspect


async def test_inspect_of_an_image_and_of_an_index(registry: FakeRegistry, remote: Remote) -> None:
    made = registry.add_image("app", "1", [LAYER], platform="linux/arm64/v8")
    index = registry.add_index("app", "many", {"linux/arm64/v8": made, "linux/s390x": made})
    one = await remote.inspect(f"{registry.host}/app:1", None)
    assert (one.descriptor.digest, one.descriptor.media_type) == (made.digest, DOCKER_MANIFEST)
    assert [(p.architecture, p.variant) for p in one.platforms] == [("arm64", "v8")]
    many = await remote.inspect(f"{registry.host}/app:many", None)
    assert (many.descriptor.digest, len(many.platforms)) == (index, 2)
    with pytest.raises(ManifestUnknown):
        await remote.inspect(f"{registry.host}/app:nope", None)


async def test_referrers_by_the_api_and_by_the_tag(registry: FakeRegistry) -> None:
    registries = Registries(RegistryConfig())
    made = registry.add_image("app", "1", [LAYER])
    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "subject": {"digest": made.digest}}
    signature = registry.add_manifest("app", "", document, OCI_MANIFEST)
    repository = registries.repository(Reference.parse(f"{registry.host}/app:1"))
    found = json.loads(await repository.referrers(made.digest))
    assert [one["digest"] for one in found["manifests"]] == [signature]
    registry.referrers_api = False
    assert json.loads(await repository.referrers(made.digest))["manifests"] == []
    fallback = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [{"digest": signature}]}
    registry.add_manifest("app", made.digest.replace(":", "-"), fallback, OCI_INDEX)
    assert json.loads(await repository.referrers(made.digest)) == fallback
    await registries.close()


# --- login


@pytest.mark.parametrize("kind", ["basic", "bearer"])
async def test_login(registry: FakeRegistry, remote: Remote, kind: str) -> None:
    registry.login = kind
    assert (await remote.log_in(registry.host, ALICE)).identity_token == ""
    with pytest.raises(LoginFailed) as caught:
        await remote.log_in(f"http://{registry.host}/v2/", {**ALICE, "password": "wrong"})
    assert caught.value.status == 401
    assert "wrong" not in caught.value.wire


async def test_login_asks_for_a_refresh_token_and_hands_it_on(registry: FakeRegistry, remote: Remote) -> None:
    registry.login, registry.offline_token = "bearer", "refresh"
    assert (await remote.log_in(registry.host, ALICE)).identity_token == "refresh"
    [asked] = registry.asked("/token")
    assert "offline_token=true" in asked.path
    made = registry.add_image("app", "1", [LAYER])
    found = await remote.manifest(f"{registry.host}/app:1", {"identitytoken": "refresh"})
    assert found.descriptor.digest == made.digest


async def test_login_at_a_registry_that_asks_for_none(registry: FakeRegistry, remote: Remote) -> None:
    assert (await remote.log_in(registry.host, ALICE)).identity_token == ""
    assert registry.leaked() == []


async def test_trap_25_no_login_and_a_wrong_one_are_told_apart(registry: FakeRegistry, remote: Remote) -> None:
    registry.login = "bearer"
    registry.add_image("app", "1", [LAYER])
    for auth, who in ((None, "nobody (not logged in)"), ({"username": "eve", "password": "x"}, "user eve")):
        with pytest.raises(AccessDenied) as caught:
            await remote.manifest(f"{registry.host}/app:1", auth)
        assert who in caught.value.wire
        assert "repository:app:pull" in caught.value.wire


# --- search


async def test_search(registry: FakeRegistry, remote: Remote) -> None:
    registry.index = [
        {"name": "busybox", "description": "A\nline", "is_official": True, "star_count": 12},
        {"name": "a/b", "star_count": 1},
    ]
    found = await remote.search(f"{registry.host}/busybox", limit=1)
    assert [(one.name, one.description, one.star_count) for one in found] == [("busybox", "A line", 12)]
    assert registry.asked("/v1/search")[-1].path == "/v1/search?q=busybox&n=1"
    for terms, names in (
        ({"stars": ("2",)}, ["busybox"]),
        ({"is-official": ("false",)}, ["a/b"]),
        ({"is-official": ("true",)}, ["busybox"]),
    ):
        found = await remote.search(f"{registry.host}/busybox", filters=Filters(terms))
        assert [one.name for one in found] == names


async def test_search_refusals(registry: FakeRegistry, remote: Remote) -> None:
    for problem, more in (
        (SearchLimit, {"limit": 101}),
        (BadStars, {"filters": Filters({"stars": ("x",)})}),
        (InvalidFilterValue, {"filters": Filters({"is-official": ("x",)})}),
        (UnknownFilter, {"filters": Filters({"foo": ("x",)})}),
    ):
        with pytest.raises(problem):
            await remote.search("x", **more)  # type: ignore[arg-type]
    registry.login = "basic"
    with pytest.raises(RequestRefused, match="Unexpected status code 401"):
        await remote.search(f"{registry.host}/x")


# --- lists


async def test_a_list_is_made_of_manifests_of_other_repositories(registry: FakeRegistry, remote: Remote) -> None:
    registry.per_repository = True
    images = [registry.add_image(name, "1", [tar({name: b"x"})], platform=HOST) for name in ("a", "b")]
    for name, made in zip(("a", "b"), images, strict=True):
        registry.uploads.linked |= {(name, digest) for digest in (made.config, *made.layers)}
    entries = [
        ListEntry(f"{registry.host}/a@{images[0].digest}", Platform.parse("linux/amd64")),
        ListEntry(f"{registry.host}/b:1", Platform.parse("linux/arm64")),
    ]
    pushed = await remote.push_list(f"{registry.host}/all:1", DOCKER_MANIFEST_LIST, entries, None)
    kind, data = registry.manifests["all:1"]
    assert kind == DOCKER_MANIFEST_LIST
    assert pushed.size == len(data)
    listed = json.loads(data)["manifests"]
    assert [(one["digest"], one["platform"]["architecture"]) for one in listed] == [
        (images[0].digest, "amd64"),
        (images[1].digest, "arm64"),
    ]
    assert {f"all@{made.digest}" for made in images} < set(registry.manifests)
    assert ("all", images[1].layers[0]) in registry.uploads.linked
    registry.uploads.mounts = False
    with pytest.raises(MountRefused):
        await remote.push_list(f"{registry.host}/more:1", DOCKER_MANIFEST_LIST, entries, None)


def test_a_list_has_the_digest_that_docker_s_client_gives_it() -> None:
    """`docker manifest push` of the same two manifests printed this digest."""
    v8 = Platform("arm64", "linux", variant="v8")
    entries = [
        ("de87eb18742773b049ac3a7086f3740912ac82e0387d4522d7e24d4853acdea3", 581, Platform("amd64", "linux")),
        ("53c75efe145ba3d268c39f31e67c318b8693b9d5735f3f1ab91b384755659d1e", 418, v8),
    ]
    manifests = [
        Descriptor(OCI_MANIFEST, Digest(f"sha256:{hex}"), size, platform=platform) for hex, size, platform in entries
    ]
    wanted = "sha256:3f5a8ff116f9472c9a78f23b50af90a9a84b96c73cc4138120ba2a6152db0321"
    assert Digest.of(list_bytes(OCI_INDEX, manifests)) == wanted


async def test_lists_that_cannot_be(registry: FakeRegistry, remote: Remote) -> None:
    made = registry.add_image("a", "1", [LAYER])
    registry.add_index("a", "many", {HOST: made})
    target, amd64 = f"{registry.host}/all:1", Platform.parse("linux/amd64")
    for problem, kind, entries in (
        (EmptyList, OCI_INDEX, []),
        (NotAListType, DOCKER_MANIFEST, [ListEntry(f"{registry.host}/a:1", amd64)]),
        (OtherRegistry, OCI_INDEX, [ListEntry("other.test/a:1", amd64)]),
        (ListInList, OCI_INDEX, [ListEntry(f"{registry.host}/a:many", amd64)]),
    ):
        with pytest.raises(problem):
            await remote.push_list(target, kind, entries, None)
    assert not [key for key in registry.manifests if key.startswith("all")]
