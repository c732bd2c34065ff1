"""Emptying a container's log: Pier's own, below a path of the contract's."""

from __future__ import annotations

from aiohttp import web

from .call import Call
from .router import Route


async def truncate_logs(call: Call) -> web.StreamResponse:
    return call.answer({"SpaceReclaimed": await call.engine.containers.truncate_logs(call.id)})


ROUTES = (Route("POST", "/containers/{id}/logs/truncate", "ContainerLogsTruncate", truncate_logs),)
