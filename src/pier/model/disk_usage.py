"""What is on the disk: GET /system/df. Bytes are those on disk, holes and shared layers counted as what they take."""

from __future__ import annotations

from typing import Annotated

from .build import BuildCache
from .container import ContainerSummary
from .image import ImageSummary
from .volume import Volume
from .wire import OMIT, Struct


class KindUsage(Struct):
    """One kind of object, as API 1.52 sums it up; `reclaimable` is what goes when the unused ones go."""

    active_count: int = 0
    total_count: int = 0
    reclaimable: int = 0
    total_size: int = 0


class ImagesUsage(KindUsage):
    items: Annotated[list[ImageSummary] | None, OMIT] = None


class ContainersUsage(KindUsage):
    items: Annotated[list[ContainerSummary] | None, OMIT] = None


class VolumesUsage(KindUsage):
    items: Annotated[list[Volume] | None, OMIT] = None


class BuildCacheUsage(KindUsage):
    items: Annotated[list[BuildCache] | None, OMIT] = None


class LogFileUsage(Struct):
    """The logs of one container, those that were rotated away included. Pier's own."""

    id: str
    name: str
    driver: str
    files: int
    size: int


class LogsUsage(KindUsage):
    """Pier's own (trap T22); `reclaimable`: the logs of containers that do not run."""

    items: Annotated[list[LogFileUsage] | None, OMIT] = None


class DiskUsage(Struct):
    """The answer; a kind that was not asked for is None."""

    image_usage: Annotated[ImagesUsage | None, OMIT] = None
    container_usage: Annotated[ContainersUsage | None, OMIT] = None
    volume_usage: Annotated[VolumesUsage | None, OMIT] = None
    build_cache_usage: Annotated[BuildCacheUsage | None, OMIT] = None
    log_usage: Annotated[LogsUsage | None, OMIT] = None


class LegacyDiskUsage(DiskUsage):
    """As API 1.51 had it, which newer clients get beside the sums unless they ask for `verbose`."""

    layers_size: int = 0
    images: list[ImageSummary] | None = None
    containers: list[ContainerSummary] | None = None
    volumes: list[Volume] | None = None
    build_cache: list[BuildCache] | None = None


class NetworksPruneResponse(Struct):
    """What POST /networks/prune took away."""

    networks_deleted: list[str] | None = None


class BuildCachePruneResponse(Struct):
    """What POST /build/prune took away."""

    caches_deleted: list[str] | None = None
    space_reclaimed: int = 0
