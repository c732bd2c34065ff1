"""Bytes to stdout and stderr, unbuffered and whole, whatever the locale says.

A reader that went away (`pier ps | head -1`) ends the process as SIGPIPE would, without a traceback.
"""

from __future__ import annotations

import os

STDOUT, STDERR = 1, 2
EXIT_SIGPIPE = 128 + 13


def write(fd: int, data: bytes) -> None:
    """Write all of `data`; a descriptor set non-blocking by its other owner is waited for."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BrokenPipeError:
            os._exit(EXIT_SIGPIPE)
        except BlockingIOError:
            import select  # noqa: PLC0415 - only a shared non-blocking terminal needs it

            select.select([], [fd], [])


def encode(text: str) -> bytes:
    """UTF-8; bytes that came in undecodable (surrogate escapes) go out as they came."""
    return text.encode("utf-8", "surrogateescape")


def out(text: str) -> None:
    """Text to stdout as it is."""
    write(STDOUT, encode(text))


def line(text: str) -> None:
    """One line to stdout."""
    write(STDOUT, encode(text + "\n"))


def complain(text: str) -> None:
    """One line (or paragraph) to stderr."""
    write(STDERR, encode(text + "\n"))
