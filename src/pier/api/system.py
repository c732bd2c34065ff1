"""The daemon itself: ping, version, info, events."""

from __future__ import annotations

from aiohttp import web

from pier.model import wire

from .call import Call
from .router import Route
from .stream import Encoder, json_line, json_seq, open_stream
from .versions import EVENT_TYPES_SINCE, IMAGE_CREATE_SINCE, Version, adapt_answer

PING_HEADERS = {
    "Builder-Version": "2",
    "Cache-Control": "no-cache, no-store, must-revalidate",
    "Pragma": "no-cache",
    "Swarm": "inactive",
    "Content-Type": "text/plain; charset=utf-8",
}


async def ping(call: Call) -> web.StreamResponse:
    return web.Response(body=b"" if call.request.method == "HEAD" else b"OK", headers=PING_HEADERS)


async def version(call: Call) -> web.StreamResponse:
    return call.answer(await call.engine.system.version())


async def info(call: Call) -> web.StreamResponse:
    return call.answer(await call.engine.system.info())


async def events(call: Call) -> web.StreamResponse:
    """Ends at `until`; the head goes at once, so that a client knows it will miss nothing from here on."""
    query = call.query
    filters, since_ns, until_ns = query.filters(), query.moment_ns("since"), query.moment_ns("until")
    content_type, encode = event_format(call.request.headers.get("Accept", ""), call.version)
    subscription = call.engine.events.subscribe(filters=filters, since_ns=since_ns, until_ns=until_ns)
    async with subscription as stream:
        response = await open_stream(call.request, content_type)
        async for event in stream:
            if call.version < IMAGE_CREATE_SINCE and (event.type, event.action) == ("image", "create"):
                continue
            raw = adapt_answer(call.operation, call.version, wire.to_builtins(event))
            await response.write(encode(raw))
    await response.write_eof()
    return response


def event_format(accept: str, version: Version) -> tuple[str, Encoder]:
    """The Content-Type and encoder for events; Docker's media types from 1.52 on, JSON lines for all others."""
    if version >= EVENT_TYPES_SINCE:
        for item in accept.lower().split(","):
            media = item.partition(";")[0].strip()
            if media == "application/json-seq":
                return media, json_seq
            if media in ("application/x-ndjson", "application/jsonl"):
                return media, json_line
    return "application/json", json_line


async def plugins(call: Call) -> web.StreamResponse:
    """There are none, and there is no way to install one yet."""
    return call.answer([])


ROUTES = (
    Route("GET", "/_ping", "SystemPing", ping),
    Route("HEAD", "/_ping", "SystemPingHead", ping),
    Route("GET", "/version", "SystemVersion", version),
    Route("GET", "/info", "SystemInfo", info),
    Route("GET", "/events", "SystemEvents", events, streams=True),
    Route("GET", "/plugins", "PluginList", plugins),
)
