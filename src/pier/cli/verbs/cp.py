"""`pier cp`: files between a container and this machine, in Docker's way; `-` is an archive on stdin or stdout.

`pier volume cp` is the same for a volume, which the daemon answers for in the same words.
"""

from __future__ import annotations

import os

from pier.cli.copying import (
    GO_SPECIAL,
    GO_SYMLINK,
    End,
    absolute,
    check_output_path,
    container_end,
    local_destination,
    local_source,
    prepare,
    rebase_name,
    split_argument,
    split_entry,
)
from pier.cli.each import path
from pier.cli.errors import ApiError, Failure
from pier.cli.flags import Command, Flag
from pier.cli.jsontext import loads
from pier.cli.out import STDERR, STDOUT, complain, write
from pier.cli.units import human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from pier.cli.flags import Options
    from pier.cli.main import Context

COMMAND = Command(
    "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n\tpier cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
    flags=(
        Flag("archive", "a", "bool", "Into a container: give the files to its user"),
        Flag("follow-link", "L", "bool", "Copy what a symbolic link in SRC_PATH leads to"),
        Flag("quiet", "q", "bool", "Say nothing of success; without a terminal nothing is said anyway"),
    ),
    arity=(2, 2),
)
STAT_HEADER = "x-docker-container-path-stat"


def run(cx: Context, opts: Options, args: list[str]) -> int:
    if not args[0]:
        raise Failure("source can not be empty")
    if not args[1]:
        raise Failure("destination can not be empty")
    (from_container, source), (to_container, destination) = map(split_argument, args)
    if from_container and to_container:
        raise Failure("copying between containers is not supported")
    if from_container:
        size, place = _out(cx, opts, from_container, source, destination)
    elif to_container:
        size, place = _in(cx, opts, source, to_container, destination)
    else:
        raise Failure("must specify at least one container source")
    if place and not opts["quiet"] and os.isatty(STDERR):
        complain(f"Successfully copied {human_size(size, 3)} to {place}")
    return 0


def _place(cx: Context, name: str) -> str:
    return path("volumes" if cx.path.startswith("volume ") else "containers", name, "archive")


def _stat(cx: Context, container: str, place: str) -> dict[str, Any] | None:
    """What is at a path in a container; None: nothing that can be told of."""
    try:
        response = cx.client.request("HEAD", _place(cx, container), query={"path": place})
    except ApiError as error:
        if error.code in (404, 500):
            return None
        raise
    return stat_of(response.headers)


def stat_of(headers: dict[str, str]) -> dict[str, Any]:
    from base64 import b64decode  # noqa: PLC0415 - cp alone needs it

    found: dict[str, Any] = loads(b64decode(headers[STAT_HEADER]))
    return found


def _out(cx: Context, opts: Options, container: str, source: str, destination: str) -> tuple[int, str]:
    """Out of a container; (bytes of the archive, where it went: nothing for stdout)."""
    if destination != "-":
        destination = absolute(destination)
        check_output_path(destination)
    name = ""
    if opts["follow-link"]:
        found = _stat(cx, container, source)
        if found is not None and found["mode"] & GO_SYMLINK:
            source, name = rebase_name(source, found["linkTarget"])
    response = cx.client.request("GET", _place(cx, container), query={"path": source})
    if destination == "-":
        for chunk in response.chunks():
            write(STDOUT, chunk)
        return 0, ""
    from pier.cli.copy_tar import ChunkFile, unpack  # noqa: PLC0415 - it brings tarfile

    begin = container_end(source, stat_of(response.headers))
    directory, rename = prepare(begin, local_destination(destination))
    if rename is None and name:
        rename = split_entry(source)[1], name
    file = ChunkFile(response.chunks())
    unpack(file, directory, rename)
    return file.count, destination


def _in(cx: Context, opts: Options, source: str, container: str, destination: str) -> tuple[int, str]:
    """Into a container."""
    found = _stat(cx, container, destination)
    place = destination
    if found is not None and found["mode"] & GO_SYMLINK:
        place = found["linkTarget"]
        found = _stat(cx, container, place)
    if found is not None and found["mode"] & GO_SPECIAL:
        raise Failure(f'destination "{container}:{destination}" must be a directory or a regular file')
    end = container_end(place, found)
    if source == "-":
        from pier.cli.verbs.load import read_chunks  # noqa: PLC0415 - an archive on stdin goes as it is

        if not end.is_dir:
            raise Failure(f'destination "{container}:{destination}" must be a directory')
        return _send(cx, opts, container, end.path, read_chunks(0))
    return _send_local(cx, opts, container, source, end)


def _send_local(cx: Context, opts: Options, container: str, source: str, end: End) -> tuple[int, str]:
    from pier.cli.copy_tar import pack  # noqa: PLC0415 - it brings tarfile

    begin = local_source(source, follow=opts["follow-link"])
    directory, rename = prepare(begin, end)
    return _send(cx, opts, container, directory, pack(begin, rename))


def _send(cx: Context, opts: Options, container: str, directory: str, chunks: Iterator[bytes]) -> tuple[int, str]:
    sent = 0

    def counted() -> Iterator[bytes]:
        nonlocal sent
        for chunk in chunks:
            sent += len(chunk)
            yield chunk

    query = {"path": directory, "noOverwriteDirNonDir": "true", "copyUIDGID": opts["archive"]}
    cx.client.request("PUT", _place(cx, container), query=query, stream=counted()).read()
    return sent, f"{container}:{directory}"
