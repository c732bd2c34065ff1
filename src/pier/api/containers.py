"""Operations on containers: query and body in, service call, answer out."""

from __future__ import annotations

from aiohttp import web

from pier.containers.attach import Attachment
from pier.containers.waiters import WAIT_CONDITIONS
from pier.errors import InvalidParameter
from pier.model.container import ContainerCreateRequest, ContainerUpdateRequest
from pier.model.wire import encode

from . import detach
from .attachment import attachment_of
from .call import Call, empty
from .errors import status_and_message
from .hijack import (
    MULTIPLEXED_STREAM,
    RAW_STREAM,
    Hijacked,
    content_type,
    head,
    hijack,
    hold_input,
    wants_upgrade,
)
from .router import NoSuchObject, Route
from .stream import closing, json_line, open_stream, send_bytes
from .versions import MULTIPLEXED_SINCE, adapt_answer


class NoStreamChosen(InvalidParameter):
    """Bad parameters: you must choose at least one stream"""


class EmptyName(InvalidParameter):
    """Neither old nor new names may be empty"""


class InvalidCondition(InvalidParameter):
    """invalid condition: "{condition}\""""


class ConflictingOptions(InvalidParameter):
    """conflicting options: {what}"""


async def changes(call: Call) -> web.StreamResponse:
    return call.answer(await call.engine.containers.changes(call.id))


async def list_(call: Call) -> web.StreamResponse:
    query = call.query
    found = await call.engine.containers.list(
        all=query.flag("all"), limit=query.integer("limit"), size=query.flag("size"), filters=query.filters()
    )
    return call.answer_list(found)


async def create(call: Call) -> web.StreamResponse:
    body = await call.body(ContainerCreateRequest)
    made = await call.engine.containers.create(body, name=call.query.text("name"), platform=call.query.text("platform"))
    return call.answer(made, status=201)


async def inspect(call: Call) -> web.StreamResponse:
    return call.answer(await call.engine.containers.inspect(call.id, size=call.query.flag("size")))


async def start(call: Call) -> web.StreamResponse:
    keys = call.query.text("detachKeys")
    if keys:
        detach.parse_keys(keys)
    done = await call.engine.containers.start_container(call.id, detach_keys=keys)
    return empty(204 if done else 304)


async def stop(call: Call) -> web.StreamResponse:
    done = await call.engine.containers.stop(
        call.id, signal=call.query.text("signal"), timeout_s=call.query.optional_integer("t")
    )
    return empty(204 if done else 304)


async def restart(call: Call) -> web.StreamResponse:
    await call.engine.containers.restart(
        call.id, signal=call.query.text("signal"), timeout_s=call.query.optional_integer("t")
    )
    return empty()


async def kill(call: Call) -> web.StreamResponse:
    await call.engine.containers.kill(call.id, call.query.text("signal") or "SIGKILL")
    return empty()


async def pause(call: Call) -> web.StreamResponse:
    await call.engine.containers.pause(call.id)
    return empty()


async def unpause(call: Call) -> web.StreamResponse:
    await call.engine.containers.unpause(call.id)
    return empty()


async def update(call: Call) -> web.StreamResponse:
    body = await call.body(ContainerUpdateRequest, optional=True)
    return call.answer(await call.engine.containers.update(call.id, body))


async def top(call: Call) -> web.StreamResponse:
    return call.answer(await call.engine.containers.top(call.id, call.query.text("ps_args") or "-ef"))


async def rename(call: Call) -> web.StreamResponse:
    name = call.query.text("name")
    if not name:
        raise EmptyName
    await call.engine.containers.rename(call.id, name)
    return empty()


async def resize(call: Call) -> web.StreamResponse:
    height, width = call.query.size()
    await call.engine.containers.resize(call.id, height, width)
    return empty(200)


async def delete(call: Call) -> web.StreamResponse:
    query = call.query
    await call.engine.containers.remove(
        call.id,
        force=query.flag("force"),
        volumes=query.flag("v"),
        link=query.flag("link"),
        keep_data=query.flag("keep-data"),  # Pier's own
    )
    return empty()


async def delete_link(call: Call) -> web.StreamResponse:
    """`rm --link NAME/ALIAS`, whose slash Docker's client sends as it is."""
    name = f"{call.id}/{call.params['alias']}"
    if not call.query.flag("link"):
        raise NoSuchObject(kind="container", name=name)
    await call.engine.containers.remove(name, force=False, volumes=False, link=True)
    return empty()


async def wait(call: Call) -> web.StreamResponse:
    """The head is sent once the wait is registered, so that a client may start the container right after it."""
    condition = call.query.text("condition") or WAIT_CONDITIONS[0]
    if condition not in WAIT_CONDITIONS:
        raise InvalidCondition(condition=condition[:64])
    end = call.engine.containers.wait(call.id, condition)
    response = await open_stream(call.request, "application/json")
    try:
        line = encode(await end) + b"\n"
    except Exception as error:
        line = json_line({"StatusCode": -1, "Error": {"Message": status_and_message(error)[1]}})
    await response.write(line)
    await response.write_eof()
    return response


async def logs(call: Call) -> web.StreamResponse:
    query = call.query
    stdout, stderr = query.flag("stdout"), query.flag("stderr")
    if not stdout and not stderr:
        raise NoStreamChosen
    containers = call.engine.containers
    tty = (await containers.inspect(call.id, size=False)).config.tty
    chunks = containers.logs(
        call.id,
        stdout=stdout,
        stderr=stderr,
        follow=query.flag("follow"),
        since_ns=query.moment_ns("since"),
        until_ns=query.moment_ns("until"),
        timestamps=query.flag("timestamps"),
        tail=tail_lines(query.text("tail")),
        details=query.flag("details"),
    )
    named = not tty and call.version >= MULTIPLEXED_SINCE
    return await send_bytes(call.request, chunks, content_type=MULTIPLEXED_STREAM if named else RAW_STREAM)


async def export(call: Call) -> web.StreamResponse:
    pieces = call.engine.containers.export(call.id)
    return await send_bytes(call.request, pieces, content_type="application/octet-stream")


def tail_lines(text: str) -> int | None:
    """`tail`: a number of lines; anything else, and a negative one, is all of them (None), as with Docker."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else None


async def stats(call: Call) -> web.StreamResponse:
    stream, one_shot = call.query.flag("stream", default=True), call.query.flag("one-shot")
    if stream and one_shot:
        raise ConflictingOptions(what="cannot have stream=true and one-shot=true")
    readings = call.engine.containers.stats(call.id, stream=stream, one_shot=one_shot)
    response: web.StreamResponse | None = None
    async with closing(readings):
        async for reading in readings:
            line = json_line(adapt_answer(call.operation, call.version, reading))
            if response is None:
                response = await open_stream(call.request, "application/json")
            await response.write(line)
    if response is None:
        response = await open_stream(call.request, "application/json")
    await response.write_eof()
    return response


async def attach(call: Call) -> web.StreamResponse:
    query, request = call.query, call.request
    keys = detach.parse_keys(query.text("detachKeys"))
    hold_input(request)
    attachment = await attachment_of(call)
    upgrade = wants_upgrade(request)
    kind = content_type(tty=attachment.tty, upgrade=upgrade, version=call.version)
    answer = head(upgrade=upgrade, content_type=kind, headers={})
    looked_for = keys if attachment.tty and query.flag("stdin") else None

    async def streams() -> Attachment:
        return attachment

    if await hijack(request, streams, answer, looked_for):
        call.engine.containers.detached(call.id)
    return Hijacked()


ROUTES = (
    Route("GET", "/containers/json", "ContainerList", list_),
    Route("POST", "/containers/create", "ContainerCreate", create),
    Route("GET", "/containers/{id}/json", "ContainerInspect", inspect),
    Route("POST", "/containers/{id}/start", "ContainerStart", start),
    Route("POST", "/containers/{id}/stop", "ContainerStop", stop),
    Route("POST", "/containers/{id}/restart", "ContainerRestart", restart),
    Route("POST", "/containers/{id}/kill", "ContainerKill", kill),
    Route("POST", "/containers/{id}/pause", "ContainerPause", pause),
    Route("POST", "/containers/{id}/unpause", "ContainerUnpause", unpause),
    Route("POST", "/containers/{id}/update", "ContainerUpdate", update),
    Route("GET", "/containers/{id}/changes", "ContainerChanges", changes),
    Route("GET", "/containers/{id}/top", "ContainerTop", top),
    Route("POST", "/containers/{id}/rename", "ContainerRename", rename),
    Route("POST", "/containers/{id}/resize", "ContainerResize", resize),
    Route("DELETE", "/containers/{id}", "ContainerDelete", delete),
    Route("DELETE", "/containers/{id}/{alias}", "ContainerLinkDelete", delete_link),
    Route("POST", "/containers/{id}/wait", "ContainerWait", wait, streams=True),
    Route("GET", "/containers/{id}/logs", "ContainerLogs", logs, streams=True),
    Route("GET", "/containers/{id}/export", "ContainerExport", export, streams=True),
    Route("GET", "/containers/{id}/stats", "ContainerStats", stats, streams=True),
    Route("POST", "/containers/{id}/attach", "ContainerAttach", attach, streams=True),
)
