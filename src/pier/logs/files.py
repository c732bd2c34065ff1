"""The files of one log, oldest first, whatever the monitor renames and compresses meanwhile. Blocking."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from typing import BinaryIO, Final, cast

from isal import isal_zlib

from pier.errors import PierError
from pier.runtime.log.compress import HEADER, SUFFIX, inode_before

CHUNK = 256 * 1024
TRIES = 5
"""So often the files are listed and opened anew when they were renamed in between."""
_ISAL_ERROR: Final = cast(type[Exception], isal_zlib.error)  # typed as an instance in isal's stubs


class LogUnreadable(PierError):
    """log file {path} cannot be unpacked: {reason}"""

    remedy = "it is unpacked beside it while its last lines are looked for, which takes ten times its size"


class Inflating(io.RawIOBase):
    """A compressed file, as what it was; read from its beginning only. What is damaged ends it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._run = isal_zlib.decompressobj(31)
        self.inode = inode_before(os.pread(file.fileno(), HEADER.size, 0))
        """Of the plain file."""

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes; none at the end."""
        while not self._run.eof:
            try:
                data: bytes = self._run.decompress(self._run.unconsumed_tail or self._file.read(CHUNK), size)
            except _ISAL_ERROR:
                return b""
            if data:
                return data
            if not self._run.unconsumed_tail and self._file.tell() >= os.fstat(self._file.fileno()).st_size:
                return b""
        return b""

    def close(self) -> None:
        self._file.close()


def files_of(path: str) -> list[str]:
    """The names of the log's files that are there, oldest first."""
    older = []
    number = 1
    while name := _first_there(f"{path}.{number}", f"{path}.{number}{SUFFIX}"):
        older.append(name)
        number += 1
    return [*reversed(older), *([path] if os.path.exists(path) else [])]


def _first_there(*names: str) -> str:
    return next((name for name in names if os.path.exists(name)), "")


def open_all(path: str) -> list[BinaryIO]:
    """The log's files, opened, oldest first: all of them as they were at one moment."""
    files = _open_named(path)
    for _ in range(TRIES):
        if files_of(path) == [name for name, _ in files] and all(_is_there(name, file) for name, file in files):
            break
        for _, file in files:
            file.close()
        files = _open_named(path)
    return [_plain(name, file) for name, file in files]


def _open_named(path: str) -> list[tuple[str, BinaryIO]]:
    return [(name, file) for name in files_of(path) if (file := open_file(name)) is not None]


def _is_there(name: str, file: BinaryIO) -> bool:
    try:
        return os.stat(name).st_ino == os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return False


def _plain(name: str, file: BinaryIO) -> BinaryIO:
    return cast(BinaryIO, Inflating(file)) if name.endswith(SUFFIX) else file


def open_file(name: str) -> BinaryIO | None:
    """A file as it is on the disk; None where it cannot be opened."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    return os.fdopen(fd, "rb", buffering=0)


def inode_of(file: BinaryIO) -> int | None:
    """By which a follower knows a file again, compressed or not."""
    return file.inode if isinstance(file, Inflating) else os.fstat(file.fileno()).st_ino


def seekable(file: BinaryIO, path: str) -> BinaryIO:
    """The file, or a copy of what it was in a file without a name beside `path`. Raises LogUnreadable."""
    if not isinstance(file, Inflating):
        return file
    with contextlib.closing(file):
        try:
            copy = tempfile.TemporaryFile(dir=os.path.dirname(path), buffering=0)  # noqa: SIM115 - handed on
            try:
                while data := file.read(CHUNK):
                    copy.write(data)
            except BaseException:
                copy.close()
                raise
        except OSError as error:
            raise LogUnreadable(path=path, reason=error.strerror) from error
    copy.seek(0)
    return cast(BinaryIO, copy)
