"""`docker commit`: a container in, an image out."""

from __future__ import annotations

from aiohttp import web

from pier.errors import InvalidParameter
from pier.images.archives import import_reference
from pier.model.container import CommitResponse, ContainerConfig

from .call import Call
from .router import Route


class NoContainer(InvalidParameter):
    """invalid name or ID supplied: \"\""""


async def commit(call: Call) -> web.StreamResponse:
    """The body, where there is one, is a configuration to put over the container's own."""
    query = call.query
    name = import_reference(query.text("repo"), query.text("tag"))
    if not query.text("container"):
        raise NoContainer
    config = await call.body(ContainerConfig, optional=True) if call.request.can_read_body else None
    image_id = await call.engine.containers.commit(
        query.text("container"),
        name=name,
        author=query.text("author"),
        comment=query.text("comment"),
        changes=query.texts("changes"),
        pause=query.flag("pause", default=True),
        config=config,
    )
    return call.answer(CommitResponse(id=str(image_id)), status=201)


ROUTES = (Route("POST", "/commit", "ImageCommit", commit),)
