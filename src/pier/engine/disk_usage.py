"""`docker system df`: what containers, images, volumes, the build cache and logs take on the disk, kind by kind."""

from __future__ import annotations

import builtins
from collections.abc import Collection
from typing import Final, Protocol

from pier.images.usage import Usage
from pier.model.container import ContainerSummary
from pier.model.disk_usage import (
    BuildCacheUsage,
    ContainersUsage,
    DiskUsage,
    ImagesUsage,
    LogFileUsage,
    LogsUsage,
    VolumesUsage,
)
from pier.model.filters import Filters
from pier.model.image import ImageSummary

DOCKER_KINDS: Final = ("container", "image", "volume", "build-cache")
KINDS: Final = (*DOCKER_KINDS, "log")
"""`log` is Pier's own, and is measured only where it is asked for by name."""
ACTIVE: Final = frozenset({"running", "paused", "restarting"})


class Containers(Protocol):
    async def list(self, *, all: bool, limit: int, size: bool, filters: Filters) -> list[ContainerSummary]: ...
    async def log_usage(self) -> builtins.list[LogFileUsage]: ...


class Images(Protocol):
    async def list(self, *, all: bool, filters: Filters, shared_size: bool = False) -> list[ImageSummary]: ...
    async def disk_usage(self) -> Usage: ...


class Volumes(Protocol):
    async def usage(self) -> VolumesUsage: ...


class Builder(Protocol):
    async def usage(self) -> BuildCacheUsage: ...


async def disk_usage(
    containers: Containers, images: Images, volumes: Volumes, builder: Builder, kinds: Collection[str]
) -> DiskUsage:
    """The kinds asked for, each with its items."""
    answer = DiskUsage()
    if "image" in kinds:
        answer.image_usage = await _images(images)
    if "container" in kinds:
        answer.container_usage = await _containers(containers)
    if "volume" in kinds:
        answer.volume_usage = await volumes.usage()
    if "build-cache" in kinds:
        answer.build_cache_usage = await builder.usage()
    if "log" in kinds:
        answer.log_usage = await _logs(containers)
    return answer


async def _images(images: Images) -> ImagesUsage:
    items = await images.list(all=False, filters=Filters(), shared_size=True)
    usage = await images.disk_usage()
    return ImagesUsage(
        active_count=sum(image.containers > 0 for image in items),
        total_count=len(items),
        reclaimable=usage.reclaimable,
        total_size=usage.total,
        items=items,
    )


async def _containers(containers: Containers) -> ContainersUsage:
    items = await containers.list(all=True, limit=0, size=True, filters=Filters())
    idle = [item for item in items if item.state not in ACTIVE]
    return ContainersUsage(
        active_count=len(items) - len(idle),
        total_count=len(items),
        reclaimable=sum(item.size_rw for item in idle),
        total_size=sum(item.size_rw for item in items),
        items=items,
    )


async def _logs(containers: Containers) -> LogsUsage:
    items = await containers.log_usage()
    states = {item.id: item.state for item in await containers.list(all=True, limit=0, size=False, filters=Filters())}
    idle = [item for item in items if states.get(item.id) not in ACTIVE]
    return LogsUsage(
        active_count=len(items) - len(idle),
        total_count=len(items),
        reclaimable=sum(item.size for item in idle),
        total_size=sum(item.size for item in items),
        items=items,
    )
