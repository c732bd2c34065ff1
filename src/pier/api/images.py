"""Operations on images."""

from __future__ import annotations

import base64
import binascii

import msgspec
from aiohttp import web

from pier.errors import InvalidParameter
from pier.model import wire
from pier.model.image import AuthConfig

from .call import Call, empty
from .router import Route
from .stream import send_progress

MAX_AUTH_BYTES = 64 << 10


class NothingToCreateFrom(InvalidParameter):
    """an image is made from something: fromImage names one to pull, fromSrc=- imports the request's body"""


class NoRemoteSource(InvalidParameter):
    """fromSrc {source} is not the request's body"""

    remedy = "fetch it and send it as the body with fromSrc=-, as `docker import -` does"


class BadAuthHeader(InvalidParameter):
    """invalid X-Registry-Auth header: {reason}"""


async def list_(call: Call) -> web.StreamResponse:
    query = call.query
    return call.answer(await call.engine.images.list(all=query.flag("all"), filters=query.filters()))


async def inspect(call: Call) -> web.StreamResponse:
    return call.answer(await call.engine.images.inspect(call.id))


async def delete(call: Call) -> web.StreamResponse:
    query = call.query
    deeds = await call.engine.images.delete(call.id, force=query.flag("force"), noprune=query.flag("noprune"))
    return call.answer(deeds)


async def tag(call: Call) -> web.StreamResponse:
    repo, name = call.query.text("repo"), call.query.text("tag")
    await call.engine.images.tag(call.id, f"{repo}:{name}" if name else repo)
    return empty(201)


async def load(call: Call) -> web.StreamResponse:
    messages = call.engine.images.load(call.stream(), quiet=call.query.flag("quiet", default=True))
    return await send_progress(call.request, messages, head_first=True)


async def create(call: Call) -> web.StreamResponse:
    """Pull (`fromImage`) or import (`fromSrc`)."""
    query, images = call.query, call.engine.images
    if query.text("fromImage"):
        reference = with_tag(query.text("fromImage"), query.text("tag"))
        auth = parse_auth(call.request.headers.get("X-Registry-Auth", ""))
        messages = images.pull(reference, platform=query.text("platform"), auth=auth)
    elif query.text("fromSrc") == "-":
        messages = images.import_(
            call.stream(),
            repo=query.text("repo"),
            tag=query.text("tag"),
            message=query.text("message"),
            changes=query.texts("changes"),
            platform=query.text("platform"),
        )
    elif query.text("fromSrc"):
        raise NoRemoteSource(source=query.text("fromSrc")[:256])
    else:
        raise NothingToCreateFrom
    return await send_progress(call.request, messages)


def with_tag(image: str, tag: str) -> str:
    """`fromImage` and `tag` as one reference; a tag with a colon in it is a digest."""
    if not tag:
        return image
    return f"{image}@{tag}" if ":" in tag else f"{image}:{tag}"


def parse_auth(header: str) -> dict[str, str] | None:
    """X-Registry-Auth: base64url JSON of AuthConfig, padded or not. None: none given. Raises BadAuthHeader."""
    if not header:
        return None
    if len(header) > MAX_AUTH_BYTES:
        raise BadAuthHeader(reason="too long")
    try:
        standard = header.translate(str.maketrans("-_", "+/")).rstrip("=")
        raw = base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
        config = wire.decode(raw or b"{}", AuthConfig)
    except (binascii.Error, msgspec.MsgspecError, ValueError) as error:
        raise BadAuthHeader(reason="it is not base64-encoded JSON") from error
    given = {key: value for key, value in msgspec.to_builtins(config).items() if value}
    return given or None


ROUTES = (
    Route("GET", "/images/json", "ImageList", list_),
    Route("POST", "/images/create", "ImageCreate", create, streams=True),
    Route("POST", "/images/load", "ImageLoad", load, streams=True),
    Route("GET", "/images/{name...}/json", "ImageInspect", inspect),
    Route("POST", "/images/{name...}/tag", "ImageTag", tag),
    Route("DELETE", "/images/{name...}", "ImageDelete", delete),
)
