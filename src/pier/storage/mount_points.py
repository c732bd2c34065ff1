"""What the engine makes in a container's tree only to mount on: no change of the container's, and in no layer.

A file or directory counts as that where it has one of these names, is empty, and the layers below have none; so does a
directory that holds nothing else and is otherwise as below, or as `mkdir` makes it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import Final

from pier.kernel.paths import RESOLVE_IN_ROOT, RESOLVE_NO_SYMLINKS, closing, open_in_root

PATHS: Final = (b"dev", b"etc/hostname", b"etc/hosts", b"etc/resolv.conf", b"proc", b"sys")
"""From the root; the runtime mounts on them in every container."""
FOLDERS: Final = tuple({path.rpartition(b"/")[0] for path in PATHS if b"/" in path})
_FLAGS: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_FRESH_MODE: Final = stat.S_IFDIR | 0o755

Below = Callable[[bytes], os.stat_result | None]
"""What the layers below have under a path; None: nothing."""


def mount_points(tree_fd: int, below: Below) -> frozenset[bytes]:
    """The paths in a container's tree that are there only to be mounted on. `below` is asked only where it matters."""
    found = {path for path in PATHS if _is_blank(tree_fd, path) and below(path) is None}
    for folder in FOLDERS:
        inside = {path for path in found if path.rpartition(b"/")[0] == folder}
        if inside and _holds_only(tree_fd, folder, inside) and _is_untouched(tree_fd, folder, below(folder)):
            found.add(folder)
    return frozenset(found)


def lookup(root_fd: int, path: bytes) -> os.stat_result | None:
    """What stands at a path below a descriptor, no link followed; None: nothing."""
    try:
        fd = open_in_root(root_fd, path, _FLAGS, resolve=RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS)
    except OSError:
        return None
    with closing(fd):
        return os.fstat(fd)


def _is_blank(tree_fd: int, path: bytes) -> bool:
    info = lookup(tree_fd, path)
    if info is None:
        return False
    if stat.S_ISREG(info.st_mode):
        return info.st_size == 0
    return stat.S_ISDIR(info.st_mode) and not _names(tree_fd, path)


def _holds_only(tree_fd: int, folder: bytes, inside: set[bytes]) -> bool:
    return {folder + b"/" + name for name in _names(tree_fd, folder)} <= inside


def _is_untouched(tree_fd: int, folder: bytes, below: os.stat_result | None) -> bool:
    info = lookup(tree_fd, folder)
    if info is None:
        return False
    expected = (below.st_mode, below.st_uid, below.st_gid) if below else (_FRESH_MODE, 0, 0)
    return (info.st_mode, info.st_uid, info.st_gid) == expected


def _names(tree_fd: int, path: bytes) -> list[bytes]:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    with closing(open_in_root(tree_fd, path, flags, resolve=RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS)) as fd:
        return list(map(os.fsencode, os.listdir(fd)))
