"""A build context that comes as an archive: into a folder of the builder's, and its checksum. Blocks.

Everything in it belongs to root, as Docker has it; whiteouts' names are names like others; nothing reaches outside.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Sequence

from pier.builder.checksum import digest_of_tree
from pier.builder.ground import Ground
from pier.builder.patterns import PatternMatcher
from pier.builder.tree import Folder
from pier.kernel.paths import closing
from pier.storage.compression import decompressed
from pier.storage.copy_in import copy_in
from pier.storage.folder_driver import make_root
from pier.storage.stream import Reader
from pier.storage.trees import remove_tree

CONTEXTS = "contexts"


def make(ground: Ground) -> str:
    """An empty directory for files of a client; returns its path. Raises OSError."""
    path = os.path.join(ground.data_dir, CONTEXTS, secrets.token_hex(12))
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    make_root(path, None)
    return path


def remove(path: str) -> None:
    """Remove such a directory with all that is in it."""
    parent, _, name = path.rpartition("/")
    with closing(os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as fd:
        remove_tree(fd, name.encode())


def receive(path: str, stream: Reader) -> None:
    """Unpack a context, compressed or not, into an empty folder. Raises BadArchive, OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        copy_in(decompressed(stream)[1], fd, owners=lambda _uid, _gid: (0, 0))
    finally:
        os.close(fd)


def leave_out(path: str, patterns: Sequence[str], *, keep: str) -> None:
    """Remove what `.dockerignore` leaves out of a context; `keep`, the Dockerfile, stays. Raises OSError."""
    with closing(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)) as fd:
        _leave_out(fd, "", PatternMatcher(patterns), keep)


def _leave_out(fd: int, at: str, matcher: PatternMatcher, keep: str) -> None:
    for name in os.listdir(fd):
        path = f"{at}{name}"
        is_dir = stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode)
        left_out = matcher.matches(path)
        if is_dir and (not left_out or matcher.may_take_back_below(path) or keep.startswith(f"{path}/")):
            with closing(
                os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
            ) as below:
                _leave_out(below, f"{path}/", matcher, keep)
                empty = not os.listdir(below)
            if left_out and empty:
                os.rmdir(name, dir_fd=fd)
        elif left_out and path != keep:
            remove_tree(fd, os.fsencode(name))


def as_folder(path: str) -> Folder:
    """A folder that is complete, with its checksum."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return Folder(path, digest_of_tree(fd))
    finally:
        os.close(fd)


def sweep(ground: Ground) -> None:
    """Remove what builds of an earlier daemon have left."""
    parent = os.path.join(ground.data_dir, CONTEXTS)
    with contextlib.suppress(FileNotFoundError):
        fd = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for name in os.listdir(fd):
                remove_tree(fd, os.fsencode(name))
        finally:
            os.close(fd)
