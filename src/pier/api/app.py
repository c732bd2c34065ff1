"""The Engine API as an aiohttp application: find the operation, call it, turn what goes wrong into Docker's JSON."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from aiohttp import web

import pier

from . import (
    archive,
    build,
    buildkit,
    commit,
    containers,
    disk_usage,
    distribution,
    exec,
    image_archives,
    images,
    networks,
    prune,
    system,
    truncate,
    unimplemented,
    volumes,
    websocket,
)
from .call import Call
from .errors import PageNotFound, error_response
from .hijack import Hijacked, wants_upgrade
from .query import Query
from .router import Route, Router
from .services import Engine
from .stream import STARTED
from .versions import NEWEST, negotiate, text

if TYPE_CHECKING:
    from pier.buildkit.door import Door

log = logging.getLogger("pier.api")

GROUPS: Final = (
    system,
    disk_usage,
    prune,
    containers,
    archive,
    websocket,
    truncate,
    commit,
    exec,
    distribution,
    image_archives,
    images,
    networks,
    volumes,
    build,
    buildkit,
    unimplemented,
)
ROUTES: Final = tuple(route for group in GROUPS for route in group.ROUTES)


def make_app(engine: Engine, *, experimental: bool = False, door: Callable[[], Door] | None = None) -> web.Application:
    """The whole API over an engine. `server.Server` serves it. `door` is asked for with BuildKit's first client."""
    dispatcher = Dispatcher(engine, Router(ROUTES), standard_headers(experimental=experimental))
    app = web.Application()
    if door is not None:
        app[buildkit.DOOR] = door
    app.router.add_route("*", r"/{path:[\s\S]*}", dispatcher.handle)
    app.on_response_prepare.append(dispatcher.add_headers)
    app.on_shutdown.append(dispatcher.finish)
    return app


def standard_headers(*, experimental: bool) -> dict[str, str]:
    """The headers of every answer."""
    return {
        "Api-Version": text(NEWEST),
        "Docker-Experimental": "true" if experimental else "false",
        "Ostype": "linux",
        "Server": f"Pier/{pier.__version__} (linux)",
    }


class Dispatcher:
    """One request to one operation.

    When a client goes away, aiohttp cancels its handler. That is right for streams; an operation that changes things
    runs on in a task of its own, which `finish` waits for.
    """

    def __init__(self, engine: Engine, router: Router, headers: dict[str, str]) -> None:
        self._engine = engine
        self._router = router
        self._headers = headers
        self._running: set[asyncio.Task[web.StreamResponse]] = set()
        self._streams: set[asyncio.Task[web.StreamResponse]] = set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """aiohttp's handler for every request."""
        try:
            response = await self._dispatch(request)
        except (asyncio.CancelledError, ConnectionError):
            raise
        except Exception as error:
            response = self._failed(request, error)
        if wants_upgrade(request):
            response.force_close()  # what was sent behind the request is no HTTP
        return response

    async def add_headers(self, _: web.Request, response: web.StreamResponse) -> None:
        """aiohttp's signal before the head of an answer is sent."""
        response.headers.update(self._headers)

    async def finish(self, _: web.Application) -> None:
        """The daemon stops: end the streams, wait for what else runs."""
        for stream in tuple(self._streams):
            stream.cancel()
        ending = self._streams | self._running
        if ending:
            await asyncio.wait(ending)

    async def _dispatch(self, request: web.Request) -> web.StreamResponse:
        version, path = negotiate(request.rel_url.raw_path)
        found = self._router.match(request.method, path)
        if found is None:
            raise PageNotFound
        route, params = found
        query = Query(request.query)
        call = Call(request, self._engine, version, route.operation, route.path, params, query, self._headers)
        if route.streams:
            return await self._run_in(self._streams, route, call)
        if route.method in ("GET", "HEAD"):
            return await route.handler(call)
        return await asyncio.shield(self._run_in(self._running, route, call))

    def _run_in(
        self, tasks: set[asyncio.Task[web.StreamResponse]], route: Route, call: Call
    ) -> asyncio.Task[web.StreamResponse]:
        async def run() -> web.StreamResponse:
            return await route.handler(call)

        task = asyncio.create_task(run(), name=route.operation)
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[web.StreamResponse]) -> None:
        if not task.cancelled() and task.exception() is not None:  # its handler says so, if it still listens
            log.debug("%s: %s", task.get_name(), task.exception())

    def _failed(self, request: web.Request, error: Exception) -> web.StreamResponse:
        response = error_response(error)
        if STARTED not in request:
            return response
        log.warning("%s %s failed after its answer had begun: %s", request.method, request.path, error)
        if request.transport is not None:
            request.transport.abort()  # the client sees a truncated stream, not a complete one
        return Hijacked()
