"""Operations on volumes."""

from __future__ import annotations

from aiohttp import web

from pier.errors import Unavailable
from pier.model.volume import VolumeCreateRequest, VolumeListResponse

from .archive import STAT_HEADER
from .call import Call, empty
from .router import Route
from .stream import send_bytes
from .unimplemented import NotInASwarm

PRUNE_ANONYMOUS_SINCE = (1, 42)
"""Before that, a prune took the volumes with names, too."""


class OnlyClusterVolumes(Unavailable):
    """volume update only valid for cluster volumes, but swarm is unavailable"""


async def list_(call: Call) -> web.StreamResponse:
    return call.answer(VolumeListResponse(await call.engine.volumes.list(call.query.filters())))


async def create(call: Call) -> web.StreamResponse:
    body = await call.body(VolumeCreateRequest, optional=True)
    if body.cluster_volume_spec is not None:
        raise NotInASwarm
    made = await call.engine.volumes.create(
        name=body.name, driver=body.driver, driver_opts=body.driver_opts, labels=body.labels
    )
    return call.answer(made, status=201)


async def inspect(call: Call) -> web.StreamResponse:
    """`size` is Pier's own."""
    return call.answer(await call.engine.volumes.inspect(call.params["name"], size=call.query.flag("size")))


async def remove(call: Call) -> web.StreamResponse:
    await call.engine.volumes.remove(call.params["name"], force=call.query.flag("force"))
    return empty()


async def prune(call: Call) -> web.StreamResponse:
    every = call.version < PRUNE_ANONYMOUS_SINCE
    return call.answer(await call.engine.volumes.prune(call.query.filters(), every=every))


async def update(call: Call) -> web.StreamResponse:
    raise OnlyClusterVolumes


# --- Pier's own: the files in a volume (wish 16)


async def archive_info(call: Call) -> web.StreamResponse:
    found = await call.engine.volume_files.stat(call.params["name"], call.query.text("path", "/"))
    return web.Response(headers={STAT_HEADER: found.header()})


async def get_archive(call: Call) -> web.StreamResponse:
    async with call.engine.volume_files.archive(call.params["name"], call.query.text("path", "/")) as archive:
        headers = {STAT_HEADER: archive.stat.header()}
        return await send_bytes(call.request, archive.chunks, content_type="application/x-tar", headers=headers)


async def put_archive(call: Call) -> web.StreamResponse:
    query = call.query
    await call.engine.volume_files.extract(
        call.params["name"],
        query.text("path", "/"),
        call.stream(),
        keep_kinds=query.flag("noOverwriteDirNonDir"),
        root_too=query.flag("attributes"),
    )
    return empty(200)


async def files(call: Call) -> web.StreamResponse:
    name, query = call.params["name"], call.query
    path, recursive = query.text("path", "/"), query.flag("recursive")
    async with call.engine.volume_files.listing(name, path, recursive=recursive) as lines:
        return await send_bytes(call.request, lines, content_type="application/jsonl")


async def clone(call: Call) -> web.StreamResponse:
    """The body is that of VolumeCreate: name and labels of the new volume."""
    body = await call.body(VolumeCreateRequest, optional=True)
    made = await call.engine.volume_files.clone(call.params["name"], body.name, body.labels)
    return call.answer(made, status=201)


ROUTES = (
    Route("GET", "/volumes", "VolumeList", list_),
    Route("POST", "/volumes/create", "VolumeCreate", create),
    Route("POST", "/volumes/prune", "VolumePrune", prune),
    Route("GET", "/volumes/{name}", "VolumeInspect", inspect),
    Route("PUT", "/volumes/{name}", "VolumeUpdate", update),
    Route("DELETE", "/volumes/{name}", "VolumeDelete", remove),
    Route("HEAD", "/volumes/{name}/archive", "VolumeArchiveInfo", archive_info),
    Route("GET", "/volumes/{name}/archive", "VolumeArchive", get_archive, streams=True),
    Route("PUT", "/volumes/{name}/archive", "PutVolumeArchive", put_archive, streams=True),
    Route("GET", "/volumes/{name}/files", "VolumeFiles", files, streams=True),
    Route("POST", "/volumes/{name}/clone", "VolumeClone", clone),
)
