"""Operations on what registries have. Those below `/distribution/` beside `/json` are Pier's own, for `pier`."""

from __future__ import annotations

import msgspec
from aiohttp import web

from pier.images.manifest_list import ListEntry
from pier.model.image import AuthConfig, AuthResponse, ManifestListRequest, OCIDescriptor
from pier.oci import Platform

from .call import Call
from .images import parse_auth, registry_auth
from .router import Route


async def auth(call: Call) -> web.StreamResponse:
    """Try credentials, as `docker login` does before it keeps them."""
    given = await call.body(AuthConfig)
    config = {key: value for key, value in msgspec.to_builtins(given).items() if value}
    found = await call.engine.remote.log_in(given.serveraddress, config)
    return call.answer(AuthResponse(identity_token=found.identity_token, status="Login Succeeded"))


async def search(call: Call) -> web.StreamResponse:
    query = call.query
    credentials = parse_auth(call.request.headers.get("X-Registry-Auth", ""))
    limit, filters = query.integer("limit"), query.filters()
    found = await call.engine.remote.search(query.text("term"), limit=limit, filters=filters, auth=credentials)
    return call.answer(found)


async def inspect(call: Call) -> web.StreamResponse:
    return call.answer(await call.engine.remote.inspect(call.id, registry_auth(call, call.id)))


async def tags(call: Call) -> web.StreamResponse:
    details = call.query.flag("details", default=True)
    return call.answer(await call.engine.remote.tags(call.id, registry_auth(call, call.id), details=details))


async def manifest(call: Call) -> web.StreamResponse:
    """The bytes of a manifest or index, as the registry has them."""
    found = await call.engine.remote.manifest(call.id, registry_auth(call, call.id))
    headers = {"Content-Type": found.descriptor.media_type, "Docker-Content-Digest": found.descriptor.digest}
    return web.Response(body=found.data, headers=headers)


async def push_list(call: Call) -> web.StreamResponse:
    """Make a manifest list in the registry out of manifests it has."""
    body = await call.body(ManifestListRequest)
    entries = [
        ListEntry(
            entry.reference,
            Platform(
                architecture=entry.platform.architecture,
                os=entry.platform.os,
                os_version=entry.platform.os_version,
                os_features=tuple(entry.platform.os_features or ()),
                variant=entry.platform.variant,
            ),
        )
        for entry in body.manifests
    ]
    pushed = await call.engine.remote.push_list(call.id, body.media_type, entries, registry_auth(call, call.id))
    return call.answer(OCIDescriptor(media_type=pushed.media_type, digest=str(pushed.digest), size=pushed.size))


ROUTES = (
    Route("POST", "/auth", "SystemAuth", auth),
    Route("GET", "/images/search", "ImageSearch", search),
    Route("GET", "/distribution/{name...}/json", "DistributionInspect", inspect),
    Route("GET", "/distribution/{name...}/tags", "DistributionTags", tags),
    Route("GET", "/distribution/{name...}/manifest", "DistributionManifest", manifest),
    Route("POST", "/distribution/{name...}/manifest-list", "DistributionPushList", push_list),
)
