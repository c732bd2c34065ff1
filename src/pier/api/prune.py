"""Removing what nothing uses. Of build caches there are none yet that could be unused."""

from __future__ import annotations

from aiohttp import web

from pier.model.disk_usage import BuildCachePruneResponse
from pier.model.filters import Filters, pruned_before_ns

from .call import Call
from .router import Route

BUILD_FILTERS = ("description", "id", "inuse", "label", "parent", "private", "shared", "type", "unused-for", "until")


async def containers(call: Call) -> web.StreamResponse:
    return call.answer(await call.engine.containers.prune(call.query.filters()))


async def images(call: Call) -> web.StreamResponse:
    return call.answer(await call.engine.images.prune(call.query.filters()))


async def networks(call: Call) -> web.StreamResponse:
    return call.answer(await call.engine.networks.prune(call.query.filters()))


async def build_cache(call: Call) -> web.StreamResponse:
    """There is no builder yet that could have left anything."""
    _checked(call, BUILD_FILTERS)
    return call.answer(BuildCachePruneResponse())


def _checked(call: Call, accepted: tuple[str, ...]) -> Filters:
    filters = call.query.filters()
    filters.validate(accepted)
    pruned_before_ns(filters, 0)
    return filters


ROUTES = (
    Route("POST", "/containers/prune", "ContainerPrune", containers),
    Route("POST", "/images/prune", "ImagePrune", images),
    Route("POST", "/networks/prune", "NetworkPrune", networks),
    Route("POST", "/build/prune", "BuildPrune", build_cache),
)
