"""Networks: list, inspect, create, delete, connect, disconnect (prune is in `prune`)."""

from __future__ import annotations

from aiohttp import web

from pier.model.networks import NetworkConnectRequest, NetworkCreateRequest, NetworkDisconnectRequest

from .call import Call, empty
from .router import Route


async def list_networks(call: Call) -> web.StreamResponse:
    return call.answer(call.engine.networks.list(call.query.filters()))


async def inspect(call: Call) -> web.StreamResponse:
    """`verbose` adds the tasks of services, of which there are none outside a swarm."""
    call.query.flag("verbose")
    return call.answer(call.engine.networks.inspect(call.id, scope=call.query.text("scope")))


async def create(call: Call) -> web.StreamResponse:
    body = await call.body(NetworkCreateRequest)
    return call.answer(await call.engine.networks.create(body), status=201)


async def delete(call: Call) -> web.StreamResponse:
    await call.engine.networks.remove(call.id)
    return empty()


async def connect(call: Call) -> web.StreamResponse:
    body = await call.body(NetworkConnectRequest, optional=True)
    await call.engine.containers.join_network(call.id, body)
    return empty(200)


async def disconnect(call: Call) -> web.StreamResponse:
    body = await call.body(NetworkDisconnectRequest, optional=True)
    await call.engine.containers.leave_network(call.id, body)
    return empty(200)


ROUTES = (
    Route("GET", "/networks", "NetworkList", list_networks),
    Route("POST", "/networks/create", "NetworkCreate", create),
    Route("GET", "/networks/{id...}", "NetworkInspect", inspect),
    Route("DELETE", "/networks/{id...}", "NetworkDelete", delete),
    Route("POST", "/networks/{id...}/connect", "NetworkConnect", connect),
    Route("POST", "/networks/{id...}/disconnect", "NetworkDisconnect", disconnect),
)
