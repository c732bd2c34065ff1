"""Images that come in and go out: pull and import (which share an operation), load, save."""

from __future__ import annotations

from aiohttp import web

from pier.errors import InvalidParameter

from .call import Call
from .images import json_platform, registry_auth, with_tag
from .router import Route
from .stream import send_bytes, send_progress

TAR = "application/x-tar"


class NothingToCreateFrom(InvalidParameter):
    """an image is made from something: fromImage names one to pull, fromSrc is - or a URL to import"""


async def create(call: Call) -> web.StreamResponse:
    """Pull (`fromImage`) or import (`fromSrc`)."""
    query, images = call.query, call.engine.images
    if query.text("fromImage"):
        reference = with_tag(query.text("fromImage"), query.text("tag"))
        auth = registry_auth(call, reference)
        messages = images.pull(reference, platform=query.text("platform"), auth=auth)
    elif query.text("fromSrc"):
        messages = images.archives.import_(
            call.stream(),
            origin=query.text("fromSrc"),
            repo=query.text("repo"),
            tag=query.text("tag"),
            message=query.text("message"),
            changes=query.texts("changes"),
            platform=query.text("platform"),
        )
    else:
        raise NothingToCreateFrom
    return await send_progress(call.request, messages)


async def load(call: Call) -> web.StreamResponse:
    """Load; `tag` (again and again) names the one image of the archive: an addition to the contract."""
    query = call.query
    messages = call.engine.images.archives.load(
        call.stream(),
        quiet=query.flag("quiet", default=True),
        platform=json_platform(query.text("platform")),
        tags=query.texts("tag"),
    )
    return await send_progress(call.request, messages, head_first=True)


async def save_one(call: Call) -> web.StreamResponse:
    return await _save(call, [call.id])


async def save_all(call: Call) -> web.StreamResponse:
    return await _save(call, call.query.texts("names"))


async def _save(call: Call, names: list[str]) -> web.StreamResponse:
    platform = json_platform(call.query.text("platform"))
    pieces = await call.engine.images.archives.save(names, platform=platform)
    return await send_bytes(call.request, pieces, content_type=TAR)


ROUTES = (
    Route("POST", "/images/create", "ImageCreate", create, streams=True),
    Route("POST", "/images/load", "ImageLoad", load, streams=True),
    Route("GET", "/images/get", "ImageGetAll", save_all, streams=True),
    Route("GET", "/images/{name...}/get", "ImageGet", save_one, streams=True),
)
