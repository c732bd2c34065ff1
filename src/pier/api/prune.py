"""Removing what nothing uses."""

from __future__ import annotations

from aiohttp import web

from .call import Call
from .router import Route


async def containers(call: Call) -> web.StreamResponse:
    return call.answer(await call.engine.containers.prune(call.query.filters()))


async def images(call: Call) -> web.StreamResponse:
    return call.answer(await call.engine.images.prune(call.query.filters()))


async def networks(call: Call) -> web.StreamResponse:
    return call.answer(await call.engine.networks.prune(call.query.filters()))


ROUTES = (
    Route("POST", "/containers/prune", "ContainerPrune", containers),
    Route("POST", "/images/prune", "ImagePrune", images),
    Route("POST", "/networks/prune", "NetworkPrune", networks),
)
