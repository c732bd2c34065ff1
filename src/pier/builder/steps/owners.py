"""Who files belong to: numbers, or names looked up in the tree that the files go to."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Mapping

from pier.builder.graph import NamedUser, Owner, UserID
from pier.kernel.paths import closing, open_in_root

FILE_MAX_BYTES = 4 << 20


Warn = Callable[[str], None]


def resolve(owner: Owner | None, trees: Mapping[int, int], warn: Warn) -> tuple[int, int] | None:
    """(uid, gid) of an owner; None: nobody is named. `trees` maps inputs to descriptors of their roots.

    A user without a group brings the group of the same number, or of passwd. A name that there is not is root, as with
    BuildKit, and warned of.
    """
    if owner is None:
        return None
    uid, gid = 0, 0
    match owner.user:
        case UserID(id=number):
            uid = gid = number
        case NamedUser(name=name, input=index):
            uid, gid = _entry(trees.get(index, -1), "passwd", name, warn)
    match owner.group:
        case UserID(id=number):
            gid = number
        case NamedUser(name=name, input=index):
            gid, _ = _entry(trees.get(index, -1), "group", name, warn)
    return uid, gid


def _entry(root_fd: int, file: str, name: str, warn: Warn) -> tuple[int, int]:
    """The third and fourth fields of a line of /etc/passwd or /etc/group."""
    if name.isascii() and name.isdigit():
        return int(name), int(name)
    for line in _read(root_fd, f"/etc/{file}").splitlines():
        fields = line.split(":")
        if fields[0] == name and len(fields) > 2 and fields[2].isdigit():
            group = fields[3] if len(fields) > 3 and fields[3].isdigit() else fields[2]
            return int(fields[2]), int(group)
    warn(f"there is no {name} in the image's /etc/{file}: the files belong to root")
    return 0, 0


def _read(root_fd: int, path: str) -> str:
    """A small file of the tree; empty where there is none, or something that is no file (a FIFO would hang)."""
    if root_fd < 0:
        return ""
    with contextlib.suppress(OSError), closing(open_in_root(root_fd, path, os.O_RDONLY | os.O_NONBLOCK)) as fd:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            with open(fd, "rb", closefd=False) as file:
                return file.read(FILE_MAX_BYTES).decode("utf-8", "replace")
    return ""
