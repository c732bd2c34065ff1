"""Operations of the builder: the classic build, its end, and the build cache."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
from aiohttp import web

from pier.builder.graph import HostIP, Limits, NetMode, Ulimit
from pier.distribution.login import server_domain
from pier.errors import InvalidParameter, NotFound, NotImplementedYet
from pier.model import wire
from pier.model.build import BuildCacheImported
from pier.model.host_config import Ulimit as HostUlimit
from pier.model.image import AuthConfig
from pier.oci import Platform, Reference

from .build_stream import build_on_stream, lend_on_stream
from .call import Call, empty
from .hijack import RAW_STREAM, Hijacked, head, take_over, wants_upgrade
from .images import decode_header
from .query import Query
from .router import Route
from .stream import STARTED, send_bytes, send_progress

if TYPE_CHECKING:
    from pier.builder.classic_build import ClassicRequest

T = TypeVar("T")
SESSION: Final = "client-session"
CLASSIC, BUILDKIT = "1", "2"
WORDS: Final = {"": NetMode.UNSET, "default": NetMode.UNSET, "host": NetMode.HOST, "none": NetMode.NONE}


class BadParameter(InvalidParameter):
    """invalid parameter: {name}: {reason}"""


class NoSuchBuild(NotFound):
    """no build with the id {id} is running"""


class NeedsSession(InvalidParameter):
    """this build needs a session: version=2 and remote=client-session are built over /session and /grpc"""

    remedy = "`docker buildx build` and `DOCKER_BUILDKIT=1 docker build` go that way"


async def build(call: Call) -> web.StreamResponse:
    """A classic build: an error before the first step is the answer's status, a later one the stream's last line.

    With `Upgrade: tcp`, Pier's own, the context comes over as far as it has changed, and the stream is what the build
    tells. With `call`, Pier's own, nothing is built: `check`, `outline`, `targets` answer what BuildKit's subrequests
    do.
    """
    from pier.builder.classic_build import classic_build  # noqa: PLC0415 - most daemons serve many requests before one

    query = call.query
    version = query.text("version") or CLASSIC
    if version not in (CLASSIC, BUILDKIT):
        raise InvalidParameter(f"invalid version {version}")
    if version == BUILDKIT or query.text("remote") == SESSION:
        raise NeedsSession
    if wants_upgrade(call.request):
        return await build_on_stream(call.request, call.engine.builder, request_of(call))
    if question := query.text("call"):
        from pier.builder.asking import ask  # noqa: PLC0415

        return web.json_response(await ask(call.engine.builder, request_of(call), question, call.stream()))
    return await send_progress(call.request, classic_build(call.engine.builder, request_of(call), call.stream()))


def request_of(call: Call) -> ClassicRequest:
    """The query of POST /build. Raises BadParameter, InvalidReference, InvalidPlatform, BadInteger."""
    from pier.builder.classic_build import ClassicRequest  # noqa: PLC0415
    from pier.builder.dockerfile.options import Options  # noqa: PLC0415

    query = call.query
    if query.texts("securityopt"):
        raise InvalidParameter("The daemon on this platform does not support setting security options on build")
    network, named = network_of(query.text("networkmode"))
    build_args = _json(query, "buildargs", dict[str, str | None])
    ulimits = _json(query, "ulimits", list[HostUlimit])
    cache_from = _json(query, "cachefrom", list[str])
    events = query.flag("events")
    platforms = [Platform.parse(each) for each in platform_texts(query.text("platform"), several=events)]
    options = Options(
        target=query.text("target"),
        build_args={key: value for key, value in build_args.items() if value is not None},
        labels=_json(query, "labels", dict[str, str]),
        target_platform=platforms[0] if platforms else None,
        no_cache=query.flag("nocache"),
        no_cache_stages=frozenset(name.lower() for name in query.texts("nocachefilter") if name),
        network=network,
        extra_hosts=tuple(_host(text) for text in query.texts("extrahosts")),
        ulimits=tuple(Ulimit(one.name, one.soft, one.hard) for one in ulimits),
        cgroup_parent=query.text("cgroupparent"),
        limits=Limits(
            memory=query.integer("memory"),
            memory_swap=query.integer("memswap"),
            cpu_shares=query.integer("cpushares"),
            cpu_period=query.integer("cpuperiod"),
            cpu_quota=query.integer("cpuquota"),
            cpuset_cpus=query.text("cpusetcpus"),
            cpuset_mems=query.text("cpusetmems"),
            shm_size=query.integer("shmsize"),
            network=named,
        ),
        image_resolve_mode="pull" if query.flag("pull") else "",
    )
    return ClassicRequest(
        options,
        dockerfile=query.text("dockerfile"),
        remote=query.text("remote"),
        names=tuple(Reference.parse(name) for name in query.texts("t") if name),
        quiet=query.flag("q"),
        squash=query.flag("squash"),
        id=query.text("buildid"),
        auths=_auths(call.request.headers.get("X-Registry-Config", "")),
        events=events,
        platforms=tuple(platforms) if len(platforms) > 1 else (),
        cache_from=tuple(cache_from),
    )


def platform_texts(text: str, *, several: bool) -> list[str]:
    """`linux/amd64,linux/arm64` -> both; the classic builder knows one platform, which nothing is a comma in."""
    return list(dict.fromkeys(text.split(","))) if text and several else [text] if text else []


def network_of(mode: str) -> tuple[NetMode, str]:
    """(network of the steps, its name where it is none of the words). Raises NotImplementedYet."""
    if mode.startswith("container:"):
        raise NotImplementedYet(what=f"a build in the network of a container ({mode})")
    return (WORDS[mode], "") if mode in WORDS else (NetMode.UNSET, mode)


def _host(text: str) -> HostIP:
    """`NAME:ADDRESS`, or with `=`."""
    name, _, address = text.replace("=", ":", 1).partition(":")
    if not name or not address:
        raise BadParameter(name="extrahosts", reason=f"{text!r} is not of the form NAME:ADDRESS")
    return HostIP(name, address)


def _json(query: Query, name: str, kind: type[T]) -> T:
    """A parameter that is JSON; missing: empty."""
    text = query.text(name)
    try:
        return wire.decode(text.encode() or b"null", kind) or kind()
    except (msgspec.MsgspecError, ValueError) as error:
        raise BadParameter(name=name, reason=str(error)) from None


def _auths(header: str) -> Mapping[str, Mapping[str, Any]]:
    """X-Registry-Config by the domain of the registry."""
    if not header:
        return {}
    entries = decode_header(header, dict[str, AuthConfig], "X-Registry-Config")
    return {server_domain(server): msgspec.to_builtins(config) for server, config in entries.items()}


async def ssh(call: Call) -> web.StreamResponse:
    """Pier's own: a connection to an agent of the client's, for the next program of a build that wants one."""
    from pier.builder.agents import Line  # noqa: PLC0415

    build_id, id = call.query.text("buildid"), call.query.text("id")
    if not build_id or not id:
        raise BadParameter(name="buildid" if id else "id", reason="it is missing")
    if not wants_upgrade(call.request):
        raise BadParameter(name="Upgrade", reason="this operation becomes a stream of bytes")
    line = Line()
    call.request[STARTED] = True
    take_over(call.request, line, head(upgrade=True, content_type=RAW_STREAM, headers={}))
    await call.engine.builder.agents.serve(build_id, id, line)
    return Hijacked()


async def lend(call: Call) -> web.StreamResponse:
    """Pier's own: a further folder of the client's for one build."""
    build_id, name = call.query.text("buildid"), call.query.text("name")
    if not build_id or not name:
        raise BadParameter(name="name" if build_id else "buildid", reason="it is missing")
    if not wants_upgrade(call.request):
        raise BadParameter(name="Upgrade", reason="this operation becomes a stream of bytes")
    return await lend_on_stream(call.request, call.engine.builder, build_id, name)


async def cancel(call: Call) -> web.StreamResponse:
    """End a build by the id that its client gave it."""
    id = call.query.text("id")
    if not id:
        raise InvalidParameter("build ID not provided")
    if not call.engine.builder.cancel(id):
        raise NoSuchBuild(id=id)
    return empty()


async def prune(call: Call) -> web.StreamResponse:
    """Forget what nothing uses; `keep-storage` and its successors say how much may stay."""
    query = call.query
    keep = max(query.integer(name) for name in ("keep-storage", "reserved-space", "max-used-space"))
    pruned = await call.engine.builder.prune(query.filters(), everything=query.flag("all"), keep_bytes=keep)
    return call.answer(pruned)


async def export_cache(call: Call) -> web.StreamResponse:
    """Pier's own: the build cache as an archive."""
    return await send_bytes(call.request, call.engine.builder.caches.export_archive(), content_type="application/x-tar")


async def import_cache(call: Call) -> web.StreamResponse:
    """Pier's own: what another machine's builder has exported."""
    added, records = await call.engine.builder.caches.import_archive(call.stream())
    return call.answer(BuildCacheImported(added=added, records=records))


ROUTES = (
    Route("GET", "/build/cache", "BuildCacheExport", export_cache),
    Route("POST", "/build/cache", "BuildCacheImport", import_cache, streams=True),
    Route("POST", "/build", "ImageBuild", build, streams=True),
    Route("POST", "/build/cancel", "BuildCancel", cancel),
    Route("POST", "/build/ssh", "BuildSsh", ssh, streams=True),
    Route("POST", "/build/context", "BuildContext", lend, streams=True),
    Route("POST", "/build/prune", "BuildPrune", prune),
)
