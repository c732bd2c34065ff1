"""Files into and out of containers: `/containers/{id}/archive`."""

from __future__ import annotations

from aiohttp import web

from pier.errors import InvalidParameter

from .call import Call, empty
from .router import Route
from .stream import STARTED

STAT_HEADER = "X-Docker-Container-Path-Stat"


class NoPath(InvalidParameter):
    """bad parameter: path cannot be empty"""


async def info(call: Call) -> web.StreamResponse:
    found = await call.engine.containers.path_stat(call.id, _path(call))
    return web.Response(headers={STAT_HEADER: found.header()})


async def get(call: Call) -> web.StreamResponse:
    async with call.engine.containers.archive(call.id, _path(call)) as archive:
        headers = {STAT_HEADER: archive.stat.header(), "Content-Type": "application/x-tar"}
        response = web.StreamResponse(headers=headers)
        call.request[STARTED] = True
        await response.prepare(call.request)
        async for chunk in archive.chunks:
            await response.write(chunk)
        await response.write_eof()
        return response


async def put(call: Call) -> web.StreamResponse:
    query = call.query
    await call.engine.containers.extract(
        call.id,
        _path(call),
        call.stream(),
        keep_kinds=query.flag("noOverwriteDirNonDir"),
        copy_owner=query.flag("copyUIDGID"),
    )
    return empty(200)


def _path(call: Call) -> str:
    path = call.query.text("path")
    if not path:
        raise NoPath
    return path


ROUTES = (
    Route("HEAD", "/containers/{id}/archive", "ContainerArchiveInfo", info),
    Route("GET", "/containers/{id}/archive", "ContainerArchive", get, streams=True),
    Route("PUT", "/containers/{id}/archive", "PutContainerArchive", put, streams=True),
)
