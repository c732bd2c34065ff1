"""Images in the Engine API: list, inspect, history, delete. (The image's own manifests are in `pier.oci`.)"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import field

from .health import HealthConfig
from .wire import OMIT, StrSlice, Struct


class OCIPlatform(msgspec.Struct, kw_only=True):
    """Keys as in the OCI image specification."""

    architecture: str = ""
    os: str = ""
    os_version: Annotated[str, OMIT] = field(name="os.version", default="")
    os_features: Annotated[list[str] | None, OMIT] = field(name="os.features", default=None)
    variant: Annotated[str, OMIT] = ""


class OCIDescriptor(msgspec.Struct, kw_only=True, rename="camel"):
    """Keys as in the OCI image specification."""

    media_type: str = ""
    digest: str = ""
    size: int = 0
    urls: Annotated[list[str] | None, OMIT] = None
    annotations: Annotated[dict[str, str] | None, OMIT] = None
    data: Annotated[str, OMIT] = ""
    """Base64."""
    platform: Annotated[OCIPlatform | None, OMIT] = None
    artifact_type: Annotated[str, OMIT] = ""


class DriverData(Struct):
    """What the snapshot driver says of a container or an image: `LowerDir`, `UpperDir`, … (To API 1.51.)."""

    data: dict[str, str] | None
    name: str


class RootFSStorageSnapshot(Struct):
    name: str


class RootFSStorage(Struct):
    snapshot: Annotated[RootFSStorageSnapshot | None, OMIT] = None


class Storage(Struct):
    root_fs: Annotated[RootFSStorage | None, OMIT] = field(name="RootFS", default=None)


class ImageConfig(Struct):
    """`Config` of an image's inspect."""

    args_escaped: Annotated[bool, OMIT] = False
    cmd: StrSlice | None = None
    entrypoint: StrSlice | None = None
    env: list[str] | None = None
    exposed_ports: Annotated[dict[str, dict[str, Any]] | None, OMIT] = None
    healthcheck: Annotated[HealthConfig | None, OMIT] = None
    labels: dict[str, str] | None = None
    on_build: list[str] | None = None
    shell: Annotated[StrSlice | None, OMIT] = None
    stop_signal: Annotated[str, OMIT] = ""
    user: str = ""
    volumes: dict[str, dict[str, Any]] | None = None
    working_dir: str = ""


class RootFS(Struct):
    """`layers`: the diff ids, bottom first."""

    type: str = "layers"
    layers: Annotated[list[str], OMIT] = field(default_factory=list)


class ImageMetadata(Struct):
    """What this machine knows of an image beyond its content."""

    last_tag_time: str = "0001-01-01T00:00:00Z"


class UnpackedSize(Struct):
    """Bytes of an image's files."""

    unpacked: int = 0


class ImageManifestData(Struct):
    """Of a manifest that is an image."""

    platform: OCIPlatform
    containers: list[str] = field(default_factory=list)
    size: UnpackedSize = field(default_factory=UnpackedSize)


class AttestationData(Struct):
    """Of a manifest that attests another one."""

    for_: str = field(name="For", default="")


class ImageManifestSize(Struct):
    """Bytes: of the blobs that are here, and with the unpacked files."""

    total: int = 0
    content: int = 0


class ImageManifestSummary(Struct):
    """One manifest of an image; `kind` is image, attestation or unknown."""

    id: str = field(name="ID")
    descriptor: OCIDescriptor
    available: bool
    kind: str
    size: ImageManifestSize = field(default_factory=ImageManifestSize)
    image_data: Annotated[ImageManifestData | None, OMIT] = None
    attestation_data: Annotated[AttestationData | None, OMIT] = None


class ImageInspect(Struct):
    """The answer of GET /images/{name}/json; sizes in bytes."""

    id: str
    repo_tags: list[str] = field(default_factory=list)
    repo_digests: list[str] = field(default_factory=list)
    parent: str = ""
    comment: str = ""
    created: str = ""
    """RFC 3339 with nanoseconds; empty: the image does not say."""
    container: Annotated[str, OMIT] = ""
    """Id of the container that the image is a commit of. (To API 1.44.)"""
    container_config: Annotated[dict[str, Any] | None, OMIT] = None
    """How that container was configured. (To API 1.44.)"""
    docker_version: str = ""
    author: str = ""
    architecture: str = ""
    variant: Annotated[str, OMIT] = ""
    os: str = "linux"
    os_version: Annotated[str, OMIT] = ""
    size: int = 0
    graph_driver: Annotated[DriverData | None, OMIT] = None
    root_fs: RootFS = field(name="RootFS", default_factory=RootFS)
    metadata: ImageMetadata = field(default_factory=ImageMetadata)
    descriptor: Annotated[OCIDescriptor | None, OMIT] = None
    manifests: Annotated[list[ImageManifestSummary] | None, OMIT] = None
    config: ImageConfig | None = None


class ImageSummary(Struct, kw_only=True):
    """One line of GET /images/json; `created` in seconds, `containers` and `shared_size` -1 when not counted."""

    containers: int = -1
    created: int = 0
    id: str
    labels: dict[str, str] | None = None
    parent_id: str = ""
    repo_digests: list[str] = field(default_factory=list)
    repo_tags: list[str] = field(default_factory=list)
    shared_size: int = -1
    size: int = 0
    descriptor: Annotated[OCIDescriptor | None, OMIT] = None
    manifests: Annotated[list[ImageManifestSummary] | None, OMIT] = None


class ImageDeleteResponseItem(Struct):
    """One deed of a delete: a name taken away, or an image or layer gone."""

    deleted: Annotated[str, OMIT] = ""
    untagged: Annotated[str, OMIT] = ""


class ImagePruneResponse(Struct):
    """What POST /images/prune took away; bytes on disk."""

    images_deleted: list[ImageDeleteResponseItem] | None = None
    space_reclaimed: int = 0


class ImageHistoryResponseItem(Struct):
    """One step of an image's history, newest first."""

    comment: str = ""
    created: int = 0
    created_by: str = ""
    id: str = "<missing>"
    size: int = 0
    tags: list[str] | None = None


class AuthConfig(msgspec.Struct, kw_only=True):
    """Credentials for a registry: the body of POST /auth, and base64 JSON in the header X-Registry-Auth."""

    username: str = ""
    password: str = ""
    auth: str = ""
    """Base64 of `username:password`."""
    email: str = ""
    serveraddress: str = ""
    identitytoken: str = ""
    registrytoken: str = ""


class AuthResponse(Struct):
    """The answer of POST /auth."""

    identity_token: str = ""
    status: str = ""


class DistributionInspect(Struct):
    """What a registry has under a name."""

    descriptor: OCIDescriptor
    platforms: list[OCIPlatform] = field(default_factory=list)


class RemoteTag(Struct):
    """A tag in a registry; `size` in bytes, compressed, for this host's platform. Pier's own."""

    name: str
    digest: Annotated[str, OMIT] = ""
    platforms: Annotated[list[str], OMIT] = field(default_factory=list)
    size: Annotated[int, OMIT] = 0
    created: Annotated[str, OMIT] = ""
    """RFC 3339; empty: the image does not say."""


class ManifestListEntry(Struct):
    """A manifest of a list that is to be made, by its name in the registry. Pier's own."""

    reference: str
    platform: OCIPlatform = field(default_factory=OCIPlatform)


class ManifestListRequest(Struct):
    """A list to make and push. Pier's own."""

    media_type: str
    manifests: list[ManifestListEntry] = field(default_factory=list)
