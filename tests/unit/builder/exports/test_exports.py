"""Exports of what was built: to the store, to a registry, to the client."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from fixtures.registry import FakeRegistry
from pier.builder.exports import Job, NothingToReceiveIt, PlatformResult, Results, export, read
from pier.builder.graph import MakeFile
from pier.builder.session import Given
from pier.errors import InvalidParameter, PierError
from pier.oci import Descriptor, Platform, Reference
from pier.storage.tree_tar import walk
from pier.storage.verify import verify

from ..conftest import Lab, base, file

pytestmark = pytest.mark.root

AMD64, ARM64 = Platform.parse("linux/amd64"), Platform.parse("linux/arm64")


@dataclass
class Receiver:
    """A client that keeps what it is given."""

    archives: dict[int, bytes] = field(default_factory=dict)
    files: dict[str, dict[str, int]] = field(default_factory=dict)
    """Folder -> path -> time in nanoseconds that it was given."""
    blobs: list[Descriptor] = field(default_factory=list)

    async def take_archive(self, number: int, pieces: AsyncIterator[bytes], facts: Mapping[str, str]) -> None:
        self.archives[number] = b"".join([piece async for piece in pieces])

    async def take_files(
        self, number: int, folder: str, root_fd: int, told: Callable[[int], None], *, time_ns: int | None = None
    ) -> None:
        self.files[folder] = {node.path.decode(): time_ns or 0 for node in walk(root_fd)}

    async def take_blobs(self, number: int, blobs: Sequence[Descriptor], told: Callable[[Descriptor], None]) -> None:
        self.blobs += blobs

    def documents(self, number: int = 0) -> dict[str, Any]:
        """Name or digest -> JSON of an archive."""
        with tarfile.open(fileobj=io.BytesIO(self.archives[number])) as archive:
            found = {entry.name: archive.extractfile(entry).read() for entry in archive if entry.isfile()}  # type: ignore[union-attr]
        return {
            name.replace("blobs/sha256/", "sha256:"): json.loads(data)
            for name, data in found.items()
            if data.startswith((b"{", b"["))
        }


Exporting = Callable[..., Any]


@pytest.fixture
def exporting(lab: Lab) -> Exporting:
    async def run(*wishes: tuple[str, dict[str, str]], several: bool = True, client: Receiver | None = None) -> Any:
        """Build one file for one platform or for two, and export it; the answers merged."""
        answers: dict[str, str] = {}
        async with lab.service.build("b", Given()) as build:
            names = {"linux/amd64": AMD64, "linux/arm64": ARM64} if several else {"": AMD64}
            outputs = [file(MakeFile(f"/{platform.architecture}", b"x" * 3000), base()) for platform in names.values()]
            trees = await lab.service.solve(build, outputs)
            parts = {
                name: PlatformResult(tree, None, platform)
                for (name, platform), tree in zip(names.items(), trees, strict=True)
            }
            job = Job(lab.service, build, Results(parts), client)
            for number, (kind, attrs) in enumerate(wishes):
                answers |= await export(job, read(kind, attrs, number))
        return answers

    return run


async def test_an_index_in_the_store(lab: Lab, exporting: Exporting) -> None:
    answer = await exporting(("image", {"name": "two:1,two:2", "annotation-index.a": "b"}))
    image = await lab.ground.images.get("two:1")
    assert {str(one.config.platform) for one in image.platforms} == {"linux/amd64", "linux/arm64"}
    assert image.root.digest == answer["containerimage.digest"]
    assert answer["image.name"] == "docker.io/library/two:1,docker.io/library/two:2"
    assert "containerimage.config.digest" not in answer
    index = json.loads(lab.ground.content.read(image.root.digest, limit_bytes=1 << 20))
    assert index["mediaType"] == "application/vnd.oci.image.index.v1+json"
    assert index["annotations"] == {"a": "b"}
    assert [each["platform"] for each in index["manifests"]] == [
        {"architecture": "amd64", "os": "linux"},
        {"architecture": "arm64", "os": "linux"},
    ]
    assert verify(lab.ground.content, lab.ground.snapshots) == []


@pytest.mark.parametrize(
    ("attrs", "wanted"),
    [
        ({"compression": "zstd", "force-compression": "true"}, ["tar+zstd", "tar+zstd"]),
        ({}, ["tar+gzip", "tar+gzip"]),
        ({"compression": "uncompressed"}, ["tar", "tar"]),
        ({"compression-level": "9", "oci-mediatypes": "false"}, ["tar.gzip", "tar.gzip"]),
    ],
)
async def test_an_archive_in_its_compression(
    lab: Lab, exporting: Exporting, attrs: dict[str, str], wanted: list[str]
) -> None:
    client = Receiver()
    answer = await exporting(("oci", {"name": "x/y", **attrs}), client=client)
    documents = client.documents()
    [entry] = documents["index.json"]["manifests"]
    assert entry["annotations"]["io.containerd.image.name"] == "docker.io/x/y:latest" == answer["image.name"]
    assert "org.opencontainers.image.created" in entry["annotations"]
    for each in documents[entry["digest"]]["manifests"]:
        layers = [layer["mediaType"] for layer in documents[each["digest"]]["layers"]]
        assert [kind.rpartition(".v1.")[2].rpartition("diff.")[2] for kind in layers] == wanted
    images = (await lab.ground.images.current()).images.values()
    assert [image.repo_tags for image in images] == [["base:latest"]], "nothing is left here"


async def test_dockers_archive_is_of_one_platform(lab: Lab, exporting: Exporting) -> None:
    client = Receiver()
    with pytest.raises(InvalidParameter, match="docker exporter does not currently support exporting manifest lists"):
        await exporting(("docker", {}), client=client)
    answer = await exporting(("docker", {"name": "x"}), several=False, client=client)
    [row] = client.documents()["manifest.json"]
    assert row["RepoTags"] == ["x:latest"]
    assert row["Config"] == answer["containerimage.config.digest"].replace(":", "/", 1).replace(
        "sha256", "blobs/sha256"
    )
    with pytest.raises(NothingToReceiveIt):
        await exporting(("docker", {}), several=False)


async def test_a_registry_gets_the_index_and_the_store_nothing(lab: Lab, exporting: Exporting) -> None:
    async with FakeRegistry().serving() as registry:
        answer = await exporting(("image", {"name": f"{registry.host}/a/b:1", "push": "true", "store": "false"}))
        kind, data = registry.manifests["a/b:1"]
        assert kind == "application/vnd.oci.image.index.v1+json"
        for entry in json.loads(data)["manifests"]:
            assert f"a/b@{entry['digest']}" in registry.manifests
        assert answer["containerimage.digest"] == Reference.parse(f"x@{answer['containerimage.digest']}").digest
        assert len((await lab.ground.images.current()).images) == 1
        name = f"{registry.host}/a/c"
        pushed = await exporting(("image", {"name": name, "push": "true", "push-by-digest": "true"}), several=False)
        assert f"a/c@{pushed['containerimage.digest']}" in registry.manifests
        assert "a/c:latest" not in registry.manifests
        assert pushed["image.name"] == name
        with pytest.raises(InvalidParameter, match=r"can't push tagged ref .*/a/c:1 by digest"):
            await exporting(("image", {"name": f"{name}:1", "push": "true", "push-by-digest": "true"}))
        registry.manifest_status = [403]
        with pytest.raises(PierError, match=f"failed to push {name}:latest: "):
            await exporting(("image", {"name": name, "push": "true"}), several=False)


async def test_names_by_digest(lab: Lab, exporting: Exporting) -> None:
    answer = await exporting(("image", {"name": "x", "name-canonical": "true"}), several=False)
    assert (await lab.ground.images.get("x")).repo_digests == [f"x@{answer['containerimage.digest']}"]
    answer = await exporting(("image", {"dangling-name-prefix": "loose", "annotation.a": "b"}), several=False)
    assert answer["image.name"] == f"docker.io/library/loose@{answer['containerimage.digest']}"


async def test_files_of_several_platforms(lab: Lab, exporting: Exporting) -> None:
    client = Receiver()
    await exporting(("local", {"source-date-epoch": "5"}), ("tar", {"source-date-epoch": "5"}), client=client)
    assert list(client.files) == ["linux_amd64", "linux_arm64"]
    assert client.files["linux_amd64"]["amd64"] == 5_000_000_000
    with tarfile.open(fileobj=io.BytesIO(client.archives[1])) as archive:
        assert archive.getmember("linux_arm64/arm64").mtime == 5
        assert archive.getmember("linux_amd64").isdir()
    await exporting(("local", {"platform-split": "true"}), several=False, client=client)
    with pytest.raises(InvalidParameter, match="cannot overwrite bin/busybox from linux/amd64 with linux/arm64 when"):
        await exporting(("local", {"platform-split": "false"}), client=client)


async def test_a_layout_for_the_client_to_index(lab: Lab, exporting: Exporting) -> None:
    client = Receiver()
    answer = await exporting(("oci", {"tar": "false"}), client=client)
    assert client.blobs[-1].digest == answer["containerimage.digest"], "what others need comes first"
    assert len(client.blobs) == 8
