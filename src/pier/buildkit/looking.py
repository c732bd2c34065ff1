"""Looking into a result before it is exported: one file, one folder. Blocks; by descriptor, below the result's root."""

from __future__ import annotations

import fnmatch
import os
import stat
from typing import Final

from pier.builder import layers
from pier.builder.ground import Ground
from pier.builder.tree import Result
from pier.buildkit.pb.session_pb2 import Stat
from pier.errors import InvalidParameter, NotFound
from pier.kernel.paths import closing, open_in_root
from pier.storage.go_mode import go_mode

__all__ = ["read_dir", "read_file", "stat_file"]

READ_MAX_BYTES: Final = 8 << 20
"""Of one file at once: it travels in one message."""


class NoSuchFile(NotFound):
    """open {path}: {reason}"""


class NotAFile(InvalidParameter):
    """{path} is not a {wanted}"""


def read_file(ground: Ground, result: Result, path: str, offset: int = 0, length: int = 0) -> bytes:
    """Of a file, from an offset on; length 0: to its end, within READ_MAX_BYTES. Raises NoSuchFile, NotAFile."""
    size = min(length, READ_MAX_BYTES) if length else READ_MAX_BYTES
    with layers.shown(ground, result) as root, closing(_open(root, path)) as found:
        if not stat.S_ISREG(os.fstat(found).st_mode):
            raise NotAFile(path=path, wanted="file")
        with closing(os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_CLOEXEC)) as fd:
            return os.pread(fd, size, offset)


def read_dir(ground: Ground, result: Result, path: str, pattern: str = "") -> list[Stat]:
    """The entries of a folder whose names fit a pattern, by name. Raises NoSuchFile, NotAFile."""
    with layers.shown(ground, result) as root, closing(_open(root, path)) as found:
        if not stat.S_ISDIR(os.fstat(found).st_mode):
            raise NotAFile(path=path, wanted="directory")
        with closing(os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as fd:
            names = sorted(name for name in os.listdir(fd) if not pattern or fnmatch.fnmatchcase(name, pattern))
            return [_stat(fd, name) for name in names]


def stat_file(ground: Ground, result: Result, path: str) -> Stat:
    """Of one name, a symbolic link as such. Raises NoSuchFile."""
    folder, _, name = path.rstrip("/").rpartition("/")
    with layers.shown(ground, result) as root, closing(_open(root, folder or "/")) as found:
        if name in ("", ".", ".."):
            return _described(os.fstat(found), name)
        try:
            return _stat(found, name)
        except OSError as error:
            raise NoSuchFile(path=path, reason=os.strerror(error.errno or 0).lower()) from None


def _open(root: int, path: str) -> int:
    try:
        return open_in_root(root, path or "/", os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        raise NoSuchFile(path=path, reason=os.strerror(error.errno or 0).lower()) from None


def _stat(folder: int, name: str) -> Stat:
    made = _described(os.stat(name, dir_fd=folder, follow_symlinks=False), name)
    if stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
        made.linkname = os.readlink(name, dir_fd=folder)
    return made


def _described(info: os.stat_result, name: str) -> Stat:
    return Stat(
        path=name,
        mode=go_mode(info.st_mode),
        uid=info.st_uid,
        gid=info.st_gid,
        size=info.st_size if stat.S_ISREG(info.st_mode) else 0,
        mod_time=info.st_mtime_ns,
    )
