"""`docker system df`: GET /system/df, in the shape of before API 1.52 and in the present one."""

from __future__ import annotations

import msgspec
from aiohttp import web

from pier.engine.disk_usage import DOCKER_KINDS, KINDS
from pier.errors import InvalidParameter
from pier.model import wire
from pier.model.disk_usage import DiskUsage, LegacyDiskUsage

from .call import Call
from .router import Route
from .versions import USAGE_IMAGES, adapt_answer

SUMS_SINCE = (1, 52)
"""Sums by kind; the lists only where `verbose` asks for them."""
TYPES_SINCE = (1, 42)
TRUE, FALSE = {"1", "t", "true"}, {"0", "f", "false"}


class UnknownType(InvalidParameter):
    """unknown object type: {type}"""


class BadVerbose(InvalidParameter):
    """invalid value for verbose: {text}"""


async def disk_usage(call: Call) -> web.StreamResponse:
    query = call.query
    asked = query.texts("type") if call.version >= TYPES_SINCE else []
    for kind in asked:
        if kind not in KINDS:
            raise UnknownType(type=kind[:64])
    verbose = query.text("verbose") if call.version >= SUMS_SINCE else ""
    if verbose.lower() not in {"", *TRUE, *FALSE}:
        raise BadVerbose(text=verbose[:64])
    found = await call.engine.system.disk_usage(asked or DOCKER_KINDS)
    if not verbose:
        answer = wire.to_builtins(legacy(found, sums=call.version >= SUMS_SINCE))
    else:
        answer = wire.to_builtins(found)
        if verbose.lower() in FALSE:
            for kind in answer.values():
                kind.pop("Items", None)
    for operation, name, usage in (
        (USAGE_IMAGES, "Images", "ImageUsage"),
        ("ContainerList", "Containers", "ContainerUsage"),
    ):
        items = answer.get(name) or answer.get(usage, {}).get("Items") or []
        adapt_answer(operation, call.version, items)
    return call.answer(answer)


def legacy(found: DiskUsage, *, sums: bool) -> LegacyDiskUsage:
    """The lists beside each other; with `sums` also what newer clients look at, without items."""
    images, containers, logs = found.image_usage, found.container_usage, found.log_usage
    answer = LegacyDiskUsage(
        layers_size=images.total_size if images else 0,
        images=images.items if images else None,
        containers=containers.items if containers else None,
        volumes=found.volume_usage.items if found.volume_usage else None,
        build_cache=found.build_cache_usage.items if found.build_cache_usage else None,
        log_usage=logs,
    )
    if sums:
        replace = msgspec.structs.replace
        answer.image_usage = images and replace(images, items=None)
        answer.container_usage = containers and replace(containers, items=None)
        answer.volume_usage = found.volume_usage and replace(found.volume_usage, items=None)
        answer.build_cache_usage = found.build_cache_usage and replace(found.build_cache_usage, items=None)
    return answer


ROUTES = (Route("GET", "/system/df", "SystemDataUsage", disk_usage),)
