"""Make a container for `run` and `create`: build the body, pull the image when it is missing, write the cidfile."""

from __future__ import annotations

import os

from pier.cli.container_config import Conflict, build
from pier.cli.errors import ApiError, Failure
from pier.cli.out import complain
from pier.cli.reference import split, with_tag
from pier.cli.tty import size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pier.cli.flags import Options
    from pier.cli.main import Context

SOCKET_INSIDE = "/var/run/docker.sock"
_PULL = ("always", "missing", "never", "")


def prepare(cx: Context, opts: Options, args: list[str], *, detach: bool) -> dict[str, Any]:
    """The body to create; Conflict (exit 125) for whatever the flags get wrong together."""
    if opts["pull"] not in _PULL:
        raise Conflict(
            f'invalid pull option: \'{opts["pull"]}\': must be one of "always", "missing" or "never"', cx.path
        )
    try:
        body = build(opts, args, detach=detach, console=size() if opts["tty"] else None)
        _check_platform(opts["platform"])
        if opts["use-api-socket"]:
            _give_socket(body, cx.client.endpoint.path)
    except ValueError as error:
        raise Conflict(str(error), cx.path) from None
    if opts["cidfile"] and os.path.exists(opts["cidfile"]):
        raise Conflict(
            f"container ID file found, make sure the other container isn't running or delete {opts['cidfile']}", cx.path
        )
    return body


def _give_socket(body: dict[str, Any], path: str) -> None:
    if not path:
        raise ValueError("--use-api-socket: the daemon's address is no unix socket")
    mount = {"Type": "bind", "Source": path, "Target": SOCKET_INSIDE}
    body["HostConfig"]["Mounts"] = [*body["HostConfig"].get("Mounts", []), mount]


def _check_platform(text: str) -> None:
    if text and not 1 <= len(text.split("/")) <= 3:
        raise ValueError(
            f'error parsing specified platform: "{text}": cannot parse platform specifier: invalid argument'
        )


def create(cx: Context, opts: Options, body: dict[str, Any], *, meanwhile: Callable[[], None] | None = None) -> str:
    """POST /containers/create -> ID. A missing image is pulled first, unless --pull says otherwise.

    `meanwhile` is called while the daemon is at work.
    """
    try:
        split(body["Image"].removeprefix("sha256:"))
    except ValueError as error:
        raise Failure(str(error)) from None
    query = {"name": opts["name"], "platform": opts["platform"]}
    if opts["pull"] == "always":
        _pull(cx, opts, body["Image"])
    try:
        creating = cx.client.begin("POST", "/containers/create", query=query, body=body)
        if meanwhile is not None:
            meanwhile()
        answer = creating.response().json()
    except ApiError as error:
        if error.code != 404 or "o such image" not in error.message or opts["pull"] not in ("", "missing"):
            raise
        if not opts["quiet"]:
            complain(f"Unable to find image '{with_tag(body['Image'])}' locally")
        _pull(cx, opts, body["Image"])
        answer = cx.client.request("POST", "/containers/create", query=query, body=body).json()
    for warning in answer.get("Warnings") or []:
        complain(f"WARNING: {warning}")
    if opts["cidfile"]:
        _write_cidfile(opts["cidfile"], answer["Id"])
    return str(answer["Id"])


def _pull(cx: Context, opts: Options, image: str) -> None:
    from pier.cli.out import STDERR  # noqa: PLC0415
    from pier.cli.pulling import pull  # noqa: PLC0415 - only when an image is missing

    pull(cx, image, platform=opts["platform"], fd=None if opts["quiet"] else STDERR)


def _write_cidfile(path: str, identifier: str) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise Failure(f"failed to create the container ID file: open {path}: {error.strerror}") from None
    os.write(fd, identifier.encode())
    os.close(fd)
