"""What is wanted of a log, and how it is handed on."""

from __future__ import annotations

import struct
from dataclasses import dataclass

STREAMS = {"stdout": 1, "stderr": 2}


@dataclass(frozen=True, slots=True)
class Query:
    """What is wanted of a log. Times in nanoseconds since 1970, 0: no bound."""

    stdout: bool = True
    stderr: bool = True
    since_ns: int = 0
    until_ns: int = 0
    timestamps: bool = False
    tail: int | None = None
    """The last so many lines; None: all."""
    details: bool = False
    raw: bool = False
    """For a terminal: without frames."""


class Past(Exception):
    """The log has gone beyond `until`."""


def frame(stream: int, data: bytes) -> bytes:
    """Docker's multiplexing (Engine API, ContainerAttach, "Stream format")."""
    return struct.pack(">BxxxI", stream, len(data)) + data


def wanted(query: Query, stream: int, time_ns: int) -> bool:
    """Does a client get what was printed then to that stream? Raises Past."""
    if query.until_ns and time_ns > query.until_ns:
        raise Past
    return time_ns >= query.since_ns and (query.stdout if stream == 1 else query.stderr)
