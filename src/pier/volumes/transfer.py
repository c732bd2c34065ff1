"""Files into and out of a volume, while containers may go on writing to it (wish 16). All of it blocks.

Every path is resolved by descriptor as if the volume's root were `/`: no link leads out of it (attack 20,
CVE-2023-0778).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import Final, NamedTuple

import msgspec

from pier.errors import InvalidParameter, NotFound, PierError
from pier.kernel.paths import closing, open_in_root
from pier.model import wire
from pier.model.time import rfc3339_nano
from pier.model.volume import VolumeFile
from pier.storage import archive_paths
from pier.storage.archive_paths import PathStat
from pier.storage.compression import decompressed
from pier.storage.copy_in import copy_in
from pier.storage.copy_out import KEPT_XATTRS, CopyOut
from pier.storage.copy_tree import as_they_are
from pier.storage.stream import Reader
from pier.storage.tar_writer import Sink
from pier.storage.tree_tar import Node, walk

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_XATTRS: Final = (*KEPT_XATTRS, b"system.posix_acl_")
_LINES: Final = 64 << 10
"""Bytes of a listing that are sent at once."""


class NoSuchFile(NotFound):
    """Could not find the file {path} in volume {name}"""


class BadPath(PierError):
    """lstat {path}: {reason}"""


class NotADirectory(InvalidParameter):
    """{path} in volume {name} is not a directory"""


class Found(NamedTuple):
    """A file of a volume's; `fd` is O_PATH and the caller's."""

    path: str
    fd: int
    stat: PathStat


def find(root_fd: int, name: str, path: str) -> Found:
    """The file at a path, its last component not followed. Raises NoSuchFile, BadPath."""
    place = archive_paths.clean(path)
    fd = _open(root_fd, name, place, os.O_PATH | os.O_NOFOLLOW)
    try:
        info = os.fstat(fd)
        target = archive_paths.link_target(root_fd, place) if stat.S_ISLNK(info.st_mode) else ""
        return Found(place, fd, archive_paths.path_stat(place, info, target))
    except BaseException:
        os.close(fd)
        raise


def write_archive(root_fd: int, found: Found, out: Sink) -> None:
    """The archive of what was found; of the root itself its entries begin with `./`. Raises TreeTooDeep, OSError."""
    copy = CopyOut(kept_xattrs=_XATTRS)
    if stat.S_ISDIR(os.fstat(found.fd).st_mode):
        base = archive_paths.base_name(found.path)
        with closing(os.open(".", _DIRECTORY | os.O_NOFOLLOW, dir_fd=found.fd)) as fd:
            copy.tree(fd, b"." if base == "/" else os.fsencode(base), out)
        return
    with closing(open_in_root(root_fd, os.path.dirname(found.path), os.O_PATH | os.O_DIRECTORY)) as parent:
        copy.file(parent, os.fsencode(archive_paths.base_name(found.path)), out)


def read_archive(root_fd: int, name: str, path: str, body: Reader, *, keep_kinds: bool, root_too: bool) -> None:
    """Unpack an archive, compressed or not, into a directory of the volume.

    Raises NoSuchFile, BadPath, NotADirectory, and what `copy_in` raises.
    """
    place = archive_paths.clean(path)
    with closing(_open(root_fd, name, place, os.O_PATH)) as found:
        if not stat.S_ISDIR(os.fstat(found).st_mode):
            raise NotADirectory(path=place, name=name)
        with closing(os.open(".", _DIRECTORY | os.O_NOFOLLOW, dir_fd=found)) as fd:
            _, plain = decompressed(body)
            copy_in(plain, fd, owners=as_they_are, keep_kinds=keep_kinds, place=place, root_too=root_too)


def list_files(root_fd: int, name: str, path: str, out: Sink, *, recursive: bool) -> None:
    """A line of JSON (`model.volume.VolumeFile`) for each name, in order. Raises NoSuchFile, BadPath, OSError."""
    place = archive_paths.clean(path)
    with closing(_open(root_fd, name, place, os.O_PATH)) as found:
        if stat.S_ISDIR(os.fstat(found).st_mode):
            prefix = os.fsencode(place.strip("/"))
            with closing(os.open(".", _DIRECTORY | os.O_NOFOLLOW, dir_fd=found)) as fd:
                nodes = walk(fd, prefix=prefix + b"/" if prefix else b"", enter=lambda _: recursive)
                _write_lines(map(_file, nodes), out)
            return
    clean = place.rstrip("/")
    with closing(open_in_root(root_fd, os.path.dirname(clean), os.O_PATH | os.O_DIRECTORY)) as parent:
        base = os.fsencode(os.path.basename(clean))
        info = os.stat(base, dir_fd=parent, follow_symlinks=False)
        _write_lines(iter([_file(Node(os.fsencode(clean.lstrip("/")), parent, base, info))]), out)


def _file(node: Node) -> VolumeFile:
    info = node.info
    return VolumeFile(
        path=node.path.decode("utf-8", "replace"),
        mode=stat.filemode(info.st_mode),
        uid=info.st_uid,
        gid=info.st_gid,
        size=info.st_size,
        mtime=rfc3339_nano(info.st_mtime_ns),
        link_target=_link_text(node) if stat.S_ISLNK(info.st_mode) else "",
    )


def _link_text(node: Node) -> str:
    try:
        return os.readlink(node.name, dir_fd=node.dir_fd).decode("utf-8", "replace")
    except OSError:  # it is something else by now
        return ""


def _write_lines(files: Iterator[VolumeFile], out: Sink) -> None:
    waiting = bytearray()
    for file in files:
        waiting += msgspec.json.encode(wire.to_builtins(file)) + b"\n"
        if len(waiting) >= _LINES:
            out.write(bytes(waiting))
            waiting.clear()
    if waiting:
        out.write(bytes(waiting))


def _open(root_fd: int, name: str, place: str, flags: int) -> int:
    try:
        return open_in_root(root_fd, place, flags)
    except (FileNotFoundError, NotADirectoryError):
        raise NoSuchFile(path=place, name=name) from None
    except (OSError, ValueError) as error:
        reason = os.strerror(error.errno).lower() if isinstance(error, OSError) and error.errno else "invalid argument"
        raise BadPath(path=place, reason=reason) from error
