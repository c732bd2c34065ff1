"""An empty volume takes over what the image has at its place ("copy-up"), whole or not at all. All of it blocks.

    <folder>/.filling/tree   being copied; after a kill: thrown away
    <folder>/.filled/tree    the copy is whole: its entries are moved to their place, one by one; after a kill: the rest
                             of them is
    …/into                   where in the volume they go

The volume's own root is never replaced: a container that runs may have it mounted. Files are not flushed one by one;
what a power failure leaves of them is what it leaves of any program's files.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import Final

from pier.errors import InvalidParameter
from pier.kernel.paths import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, closing, open_in_root
from pier.storage.copy_tree import Owners, as_they_are, copy_attributes, copy_tree
from pier.storage.faults import point
from pier.storage.trees import remove_tree

FILLING: Final = b".filling"
FILLED: Final = b".filled"
OWN: Final = frozenset({FILLING, FILLED})
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_BENEATH: Final = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS


class OverFile(InvalidParameter):
    """cannot mount volume over existing file, file exists {path}"""


def open_source(image_fd: int, path: str) -> int | None:
    """A descriptor of the directory that an image has at a path, links followed inside it; None: there is none.

    Raises OverFile, OSError.
    """
    try:
        with closing(open_in_root(image_fd, path, os.O_PATH)) as fd:
            if not stat.S_ISDIR(os.fstat(fd).st_mode):
                raise OverFile(path=path)
            return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
    except (FileNotFoundError, NotADirectoryError):
        return None


def fill(folder_fd: int, root_fd: int, source_fd: int, *, into: str = "", owners: Owners = as_they_are) -> bool:
    """Copy a directory's content and attributes into the empty directory `into` of the volume whose root is `root_fd`.

    `folder_fd` is where the copy is prepared: on the same file system, and may be the root itself. False: it is not
    empty, nothing is done. Raises TreeTooDeep, OSError.
    """
    with closing(_open_target(root_fd, into)) as target:
        if not _is_empty(target):
            return False
        try:
            os.mkdir(FILLING, 0o700, dir_fd=folder_fd)
            point("fill-begun")
            with closing(os.open(FILLING, _DIRECTORY, dir_fd=folder_fd)) as stage:
                _note(stage, into)
                os.mkdir(b"tree", 0o700, dir_fd=stage)
                with closing(os.open(b"tree", _DIRECTORY, dir_fd=stage)) as tree:
                    copy_tree(source_fd, tree, owners)
            point("fill-copied")
            if not _is_empty(target):
                remove_tree(folder_fd, FILLING)
                return False
            os.rename(FILLING, FILLED, src_dir_fd=folder_fd, dst_dir_fd=folder_fd)
        except BaseException:
            with contextlib.suppress(OSError):
                remove_tree(folder_fd, FILLING)
            raise
        point("fill-filled")
        _move(folder_fd, target)
    return True


def recover(folder_fd: int, root_fd: int) -> bool:
    """Finish or forget what a kill has interrupted; True: a copy was finished. Raises OSError."""
    remove_tree(folder_fd, FILLING)
    try:
        with closing(os.open(FILLED, _DIRECTORY, dir_fd=folder_fd)) as stage:
            into = _noted(stage)
    except FileNotFoundError:
        return False
    with closing(_open_target(root_fd, into)) as target:
        _move(folder_fd, target)
    return True


def _open_target(root_fd: int, into: str) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    return open_in_root(root_fd, into or ".", flags, resolve=_BENEATH)


def _is_empty(fd: int) -> bool:
    with closing(os.open(".", _DIRECTORY, dir_fd=fd)) as listed:  # one of its own: a listing moves its offset
        return not set(map(os.fsencode, os.listdir(listed))) - OWN


def _note(stage_fd: int, into: str) -> None:
    with closing(os.open("into", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=stage_fd)) as fd:
        os.write(fd, os.fsencode(into))


def _noted(stage_fd: int) -> str:
    with closing(os.open("into", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=stage_fd)) as fd:
        return os.fsdecode(os.read(fd, 4096))


def _move(folder_fd: int, target_fd: int) -> None:
    """Every entry of the copy to its place; one that somebody has made there meanwhile is left as it is."""
    with closing(os.open(FILLED + b"/tree", _DIRECTORY, dir_fd=folder_fd)) as tree:
        for name in os.listdir(tree):
            if not _is_there(target_fd, name):
                os.rename(name, name, src_dir_fd=tree, dst_dir_fd=target_fd)
                point("fill-moved")
        copy_attributes(tree, target_fd)
    remove_tree(folder_fd, FILLED)


def _is_there(dir_fd: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
