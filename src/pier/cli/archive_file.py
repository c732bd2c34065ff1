"""Where `save` and `export` write: standard output, or a file that is whole or not there."""

from __future__ import annotations

import os

from pier.cli.errors import Failure, reason
from pier.cli.out import STDOUT, write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def receive(output: str, fetch: Callable[[], Iterable[bytes]], what: str) -> None:
    """Write what `fetch` gives to the file `output`, or to standard output; the file is looked at before it is asked.

    `what` begins messages: `failed to save image`. Failure in Docker's words.
    """
    if not output:
        if os.isatty(STDOUT):
            raise Failure("cowardly refusing to save to a terminal. Use the -o flag or redirect")
        for chunk in fetch():
            write(STDOUT, chunk)
        return
    try:
        _check(output)
        chunks = fetch()
        if os.path.exists(output) and not os.path.isfile(output):
            _write_device(output, chunks)
        else:
            _write_file(output, chunks)
    except OSError as error:
        raise Failure(f"{what}: {reason(error)}") from None
    except ValueError as error:
        raise Failure(f"{what}: {error}") from None


def _check(output: str) -> None:
    """Can the file be written? ValueError with Docker's reason."""
    folder = os.path.dirname(output) or "."
    try:
        os.stat(folder)
    except OSError as error:
        raise ValueError(f"invalid output path: stat {folder}: {reason(error)}") from None
    if os.path.isdir(output):
        raise ValueError("cannot write to a directory")


def _write_device(output: str, chunks: Iterable[bytes]) -> None:
    fd = os.open(output, os.O_WRONLY | os.O_CLOEXEC)
    try:
        for chunk in chunks:
            write(fd, chunk)
    finally:
        os.close(fd)


def _write_file(output: str, chunks: Iterable[bytes]) -> None:
    """Beside the file first, then in its place; a link is followed, as with any file that is written."""
    place = os.path.realpath(output)
    folder, name = os.path.split(place)
    partial = os.path.join(folder, f".tmp-{name[:200]}-{os.getpid()}")
    fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        try:
            for chunk in chunks:
                write(fd, chunk)
        finally:
            os.close(fd)
        os.rename(partial, place)
    except BaseException:
        os.unlink(partial)
        raise
