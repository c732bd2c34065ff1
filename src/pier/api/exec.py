"""Operations on execs: processes started in a running container."""

from __future__ import annotations

import socket

from aiohttp import web

from pier.containers.attach import Attachment
from pier.errors import InvalidParameter, PierError
from pier.model.exec import ExecConfig, ExecCreateResponse, ExecStartConfig

from . import detach
from .call import Call, empty, send
from .hijack import Hijacked, content_type, head, hijack, hold_input, wants_upgrade
from .router import Route

STDOUT = 1


class NoCommand(InvalidParameter):
    """No exec command specified"""


class BadConsoleSize(InvalidParameter):
    """ConsoleSize must be a height and a width, both 0 or more"""


async def create(call: Call) -> web.StreamResponse:
    config = await call.body(ExecConfig)
    if not config.cmd:
        raise NoCommand
    console_size(config.console_size)
    if config.detach_keys:
        detach.parse_keys(config.detach_keys)
    id = await call.engine.containers.exec_create(call.id, config)
    answer = call.answer(ExecCreateResponse(id=id), status=201)
    await send(call.request, answer)
    call.engine.containers.exec_prepare(id)
    return answer


async def start(call: Call) -> web.StreamResponse:
    """The head goes first: its client has read it, and expects the streams, by the time the program runs. A failure to
    start is therefore written to the exec's own output, as Docker does; the client takes the exit code from inspect."""
    body = await call.body(ExecStartConfig, optional=True)
    size = console_size(body.console_size)
    containers, request = call.engine.containers, call.request
    if body.detach:
        await containers.exec_start(call.id, detach=True, tty=body.tty, console_size=size)
        return empty(200)
    hold_input(request)
    exec_ = await containers.exec_inspect(call.id)
    tty = exec_.process_config.tty

    async def streams() -> Attachment:
        try:
            attachment = await containers.exec_start(call.id, detach=False, tty=body.tty, console_size=size)
        except PierError as error:
            return _message_only(error, tty=tty)
        assert attachment is not None, "an exec that is not detached has streams"
        return attachment

    upgrade = wants_upgrade(request)
    kind = content_type(tty=tty, upgrade=upgrade, version=call.version)
    answer = head(upgrade=upgrade, content_type=kind, headers=call.standard_headers)
    if await hijack(request, streams, answer, detach.parse_keys(exec_.detach_keys) if tty else None):
        containers.exec_detached(call.id)
    return Hijacked()


async def inspect(call: Call) -> web.StreamResponse:
    return call.answer(await call.engine.containers.exec_inspect(call.id))


async def resize(call: Call) -> web.StreamResponse:
    height, width = call.query.size()
    await call.engine.containers.exec_resize(call.id, height, width)
    return empty(200)


def console_size(size: list[int] | None) -> tuple[int, int] | None:
    """Height and width of a request; raises BadConsoleSize."""
    if not size:
        return None
    if len(size) != 2 or not all(0 <= side <= 65535 for side in size):
        raise BadConsoleSize
    return size[0], size[1]


def _message_only(error: PierError, *, tty: bool) -> Attachment:
    """An attachment whose only output is one line."""
    line = f"{error.wire}\r\n".encode()
    frame = line if tty else bytes([STDOUT, 0, 0, 0]) + len(line).to_bytes(4, "big") + line
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    with ours:
        ours.sendall(frame)  # far below the socket's buffer
    return Attachment(sock=theirs, tty=tty)


ROUTES = (
    Route("POST", "/containers/{id}/exec", "ContainerExec", create),
    Route("POST", "/exec/{id}/start", "ExecStart", start, streams=True),
    Route("POST", "/exec/{id}/resize", "ExecResize", resize),
    Route("GET", "/exec/{id}/json", "ExecInspect", inspect),
)
