"""Operations on images."""

from __future__ import annotations

import base64
import binascii
from typing import TypeVar

import msgspec
from aiohttp import web

from pier.distribution.login import server_domain
from pier.errors import InvalidParameter
from pier.model import wire
from pier.model.image import AuthConfig, OCIPlatform
from pier.oci import Reference

from .call import Call, empty
from .router import Route
from .stream import send_progress

MAX_AUTH_BYTES = 64 << 10
T = TypeVar("T")


class BadAuthHeader(InvalidParameter):
    """invalid {name} header: {reason}"""


class BadPlatform(InvalidParameter):
    """invalid platform: {reason}"""

    remedy = 'JSON is wanted: {{"os": "linux", "architecture": "arm64"}}'


async def list_(call: Call) -> web.StreamResponse:
    query = call.query
    found = await call.engine.images.list(
        all=query.flag("all"),
        filters=query.filters(),
        manifests=query.flag("manifests"),
        shared_size=query.flag("shared-size"),
    )
    return call.answer(found)


async def inspect(call: Call) -> web.StreamResponse:
    platform, manifests = json_platform(call.query.text("platform")), call.query.flag("manifests")
    return call.answer(await call.engine.images.inspect(call.id, platform=platform, manifests=manifests))


async def history(call: Call) -> web.StreamResponse:
    platform = json_platform(call.query.text("platform"))
    return call.answer(await call.engine.images.history(call.id, platform=platform))


async def delete(call: Call) -> web.StreamResponse:
    query = call.query
    deeds = await call.engine.images.delete(
        call.id,
        force=query.flag("force"),
        noprune=query.flag("noprune"),
        platforms=[json_platform(text) for text in query.texts("platforms")],
    )
    return call.answer(deeds)


async def tag(call: Call) -> web.StreamResponse:
    repo, name = call.query.text("repo"), call.query.text("tag")
    await call.engine.images.tag(call.id, f"{repo}:{name}" if name else repo)
    return empty(201)


async def push(call: Call) -> web.StreamResponse:
    """Push a tag, or without one all tags. Failures come as the last line of the stream, as Docker sends them."""
    query = call.query
    reference = with_tag(call.id, query.text("tag"))
    Reference.parse(reference)
    auth = registry_auth(call, reference)
    messages = call.engine.images.push(reference, platform=json_platform(query.text("platform")), auth=auth)
    return await send_progress(call.request, messages)


def json_platform(text: str) -> str:
    """The JSON of an OCI platform (API 1.46) in the form `os/arch[/variant]`. Raises BadPlatform."""
    if not text:
        return ""
    try:
        platform = msgspec.json.decode(text, type=OCIPlatform)
    except msgspec.MsgspecError as error:
        raise BadPlatform(reason=str(error)) from None
    return "/".join(part for part in (platform.os, platform.architecture, platform.variant) if part)


def registry_auth(call: Call, reference: str) -> dict[str, str] | None:
    """X-Registry-Auth, else what X-Registry-Config has for the name's registry. Raises BadAuthHeader."""
    headers = call.request.headers
    auth = parse_auth(headers.get("X-Registry-Auth", ""))
    return auth or auth_for(headers.get("X-Registry-Config", ""), Reference.parse(reference).domain)


def auth_for(header: str, domain: str) -> dict[str, str] | None:
    """The entry of X-Registry-Config (base64url JSON, server -> AuthConfig) for a registry. Raises BadAuthHeader."""
    if not header:
        return None
    for server, config in decode_header(header, dict[str, AuthConfig], "X-Registry-Config").items():
        if server_domain(server) == domain:
            return _given(config)
    return None


def with_tag(image: str, tag: str) -> str:
    """`fromImage` and `tag` as one reference; a tag with a colon in it is a digest."""
    if not tag:
        return image
    return f"{image}@{tag}" if ":" in tag else f"{image}:{tag}"


def parse_auth(header: str) -> dict[str, str] | None:
    """X-Registry-Auth: base64url JSON of AuthConfig, padded or not. None: none given. Raises BadAuthHeader."""
    return _given(decode_header(header, AuthConfig, "X-Registry-Auth")) if header else None


def decode_header(header: str, kind: type[T], name: str) -> T:
    """Base64url JSON, padded or not. Raises BadAuthHeader."""
    if len(header) > MAX_AUTH_BYTES:
        raise BadAuthHeader(name=name, reason="too long")
    try:
        standard = header.translate(str.maketrans("-_", "+/")).rstrip("=")
        raw = base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
        return wire.decode(raw or b"{}", kind)
    except (binascii.Error, msgspec.MsgspecError, ValueError) as error:
        raise BadAuthHeader(name=name, reason="it is not base64-encoded JSON") from error


def _given(config: AuthConfig) -> dict[str, str] | None:
    return {key: value for key, value in msgspec.to_builtins(config).items() if value} or None


ROUTES = (
    Route("GET", "/images/json", "ImageList", list_),
    Route("GET", "/images/{name...}/json", "ImageInspect", inspect),
    Route("GET", "/images/{name...}/history", "ImageHistory", history),
    Route("POST", "/images/{name...}/tag", "ImageTag", tag),
    Route("POST", "/images/{name...}/push", "ImagePush", push, streams=True),
    Route("DELETE", "/images/{name...}", "ImageDelete", delete),
)
