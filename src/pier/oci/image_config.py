"""Image configuration (image-spec, config.md) with Docker's extensions; its digest is the image's ID."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from pier.oci.digest import Digest
from pier.oci.document import MalformedDocument, decode
from pier.oci.manifest import MAX_LAYERS
from pier.oci.platform import Platform

MAX_CONFIG_BYTES: Final = 8 << 20
MAX_HISTORY: Final = 10_000


class HealthConfig(msgspec.Struct, frozen=True, rename="pascal", omit_defaults=True):
    """HEALTHCHECK; durations in nanoseconds, 0 meaning Docker's default."""

    test: list[str] = msgspec.field(default_factory=list)
    """`["NONE"]`, `["CMD", arg, …]` or `["CMD-SHELL", command]`; empty: inherited."""
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class RunConfig(msgspec.Struct, frozen=True, rename="pascal", omit_defaults=True):
    """How containers of the image run unless told otherwise (`config` in the document)."""

    user: str = ""
    exposed_ports: dict[str, Any] = msgspec.field(default_factory=dict)
    """`80/tcp` -> empty object."""
    env: list[str] = msgspec.field(default_factory=list)
    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    healthcheck: HealthConfig | None = None
    args_escaped: bool = False
    volumes: dict[str, Any] = msgspec.field(default_factory=dict)
    """Path in the container -> empty object."""
    working_dir: str = ""
    on_build: list[str] = msgspec.field(default_factory=list)
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    stop_signal: str = ""
    shell: list[str] = msgspec.field(default_factory=list)


class History(msgspec.Struct, frozen=True, omit_defaults=True):
    """One build step; those without `empty_layer` belong to the layers in order."""

    created: str = ""
    """RFC 3339."""
    author: str = ""
    created_by: str = ""
    comment: str = ""
    empty_layer: bool = False


class RootFS(msgspec.Struct, frozen=True):
    """The digests of the uncompressed layer archives, the base first."""

    type: str = "layers"
    diff_ids: list[Digest] = msgspec.field(default_factory=list)


class ImageConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The whole document."""

    created: str = ""
    """RFC 3339; empty where the builder left it out."""
    author: str = ""
    container: str = ""
    """Docker's: id of the container that the image is a commit of."""
    container_config: dict[str, Any] | None = None
    """Docker's: how that container was configured. Nobody acts on it."""
    docker_version: str = ""
    architecture: str
    variant: str = ""
    os: str
    os_version: str = msgspec.field(default="", name="os.version")
    os_features: list[str] = msgspec.field(default_factory=list, name="os.features")
    config: RunConfig = msgspec.field(default_factory=RunConfig)
    rootfs: RootFS
    history: list[History] = msgspec.field(default_factory=list)

    @property
    def platform(self) -> Platform:
        return Platform(
            os=self.os,
            architecture=self.architecture,
            variant=self.variant,
            os_version=self.os_version,
            os_features=tuple(self.os_features),
        )


def decode_image_config(data: bytes, *, what: str) -> ImageConfig:
    """Decode an image's configuration; `what` names the image in messages. Raises MalformedDocument."""
    config = decode(data, ImageConfig, what=what, limit_bytes=MAX_CONFIG_BYTES)
    if config.rootfs.type != "layers":
        raise MalformedDocument(what=what, reason=f"rootfs.type is {config.rootfs.type!r}, not 'layers'")
    if len(config.rootfs.diff_ids) > MAX_LAYERS:
        raise MalformedDocument(what=what, reason=f"{len(config.rootfs.diff_ids)} layers, more than {MAX_LAYERS}")
    if len(config.history) > MAX_HISTORY:
        raise MalformedDocument(what=what, reason=f"{len(config.history)} history entries, more than {MAX_HISTORY}")
    return config


def chain_ids(diff_ids: Iterable[Digest]) -> list[Digest]:
    """The name of each stack of layers up to and including that layer (config.md, "Layer ChainID").

    The first is the first diff_id itself; each next is the digest of `chain_id + " " + diff_id`.
    """
    chain: list[Digest] = []
    for diff_id in diff_ids:
        chain.append(Digest.of(f"{chain[-1]} {diff_id}".encode()) if chain else Digest(diff_id))
    return chain
