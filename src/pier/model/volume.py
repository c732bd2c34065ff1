"""Volumes, as the Engine API shows them."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import field

from .wire import OMIT, Struct


class VolumeUsageData(Struct):
    """How many containers have it, and bytes of its files; -1: not counted."""

    ref_count: int = -1
    size: int = -1


class Volume(Struct):
    """One volume, its fields in Docker's order; `mountpoint` is its folder on the host."""

    created_at: Annotated[str, OMIT] = ""
    driver: str = "local"
    labels: dict[str, str] | None = None
    mountpoint: str = ""
    name: str = ""
    options: dict[str, str] | None = None
    scope: str = "local"
    status: Annotated[dict[str, Any] | None, OMIT] = None
    usage_data: Annotated[VolumeUsageData | None, OMIT] = None


class VolumeCreateRequest(Struct):
    """What POST /volumes/create takes; without a name it is an anonymous volume."""

    name: str = ""
    driver: str = ""
    driver_opts: dict[str, str] | None = None
    labels: dict[str, str] | None = None
    cluster_volume_spec: dict[str, Any] | None = None


class VolumeListResponse(Struct):
    """What GET /volumes answers."""

    volumes: list[Volume] = field(default_factory=list)
    warnings: list[str] | None = None


class VolumesPruneResponse(Struct):
    """What POST /volumes/prune took away."""

    volumes_deleted: list[str] = field(default_factory=list)
    space_reclaimed: int = 0


class VolumeFile(Struct):
    """One name in a volume (GET /volumes/{name}/files, Pier's own); `path` begins at the volume's root, without `/`."""

    path: str
    mode: str
    """As `ls -l` writes it."""
    uid: int
    gid: int
    size: int
    mtime: str
    link_target: Annotated[str, OMIT] = ""
