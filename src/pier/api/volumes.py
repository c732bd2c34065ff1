"""Operations on volumes."""

from __future__ import annotations

from aiohttp import web

from pier.errors import Unavailable
from pier.model.volume import VolumeCreateRequest, VolumeListResponse

from .call import Call, empty
from .router import Route
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


ROUTES = (
    Route("GET", "/volumes", "VolumeList", list_),
    Route("POST", "/volumes/create", "VolumeCreate", create),
    Route("POST", "/volumes/prune", "VolumePrune", prune),
    Route("GET", "/volumes/{name}", "VolumeInspect", inspect),
    Route("PUT", "/volumes/{name}", "VolumeUpdate", update),
    Route("DELETE", "/volumes/{name}", "VolumeDelete", remove),
)
