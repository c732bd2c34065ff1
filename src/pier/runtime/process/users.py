"""Who a container's program runs as: Docker's USER against the container's own passwd and group files.

Nothing here asks NSS: that would load the container's libraries into a root process of the host. A number is always a
number, even where a hostile passwd file has a user of that name.
"""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from pier.kernel.paths import open_in_root
from pier.runtime.process.passwd import ID_MAX, Group, Passwd, number, parse_group, parse_passwd

FILE_MAX = 4 * 1024 * 1024
GROUPS_MAX = 65536
"""NGROUPS_MAX."""


class UserError(ValueError):
    """A user or group that cannot be had, in Docker's words, which begin with one of `BEGINNINGS`."""

    BEGINNINGS = ("unable to find user ", "unable to find group ", "uids and gids must be in range ")


class Identity(NamedTuple):
    uid: int
    gid: int
    additional_gids: list[int]
    home: str


def resolve(spec: str, group_add: list[str], passwd: list[Passwd], groups: list[Group]) -> Identity:
    """The identity that `spec` (`user[:group]`, names or numbers; empty: root) means in a container.

    Without an explicit group it has the user's own and those that list the user; `group_add` comes on top.
    Raises UserError.
    """
    user, _, group = spec.partition(":")
    entry = _find_user(user or "0", passwd)
    additional: list[int] = []
    if group:
        gid = _find_group(group, groups)
    else:
        gid = entry.gid
        additional = [item.gid for item in groups if entry.name and entry.name in item.members and item.gid != gid]
    additional += [_find_group(name, groups) for name in group_add]
    if len(additional) > GROUPS_MAX:
        raise UserError(f"user {spec} is in {len(additional)} groups, the kernel takes {GROUPS_MAX}")
    return Identity(entry.uid, gid, list(dict.fromkeys(additional)), entry.home)


def _find_user(user: str, passwd: list[Passwd]) -> Passwd:
    if _looks_numeric(user):
        uid = _in_range(user)
        return next((item for item in passwd if item.uid == uid), Passwd("", uid, 0, "/"))
    found = next((item for item in passwd if item.name == user), None)
    if found is None:
        raise UserError(f"unable to find user {user}: no matching entries in passwd file")
    return found


def _find_group(group: str, groups: list[Group]) -> int:
    if _looks_numeric(group):
        return _in_range(group)
    found = next((item.gid for item in groups if item.name == group), None)
    if found is None:
        raise UserError(f"unable to find group {group}: no matching entries in group file")
    return found


def _looks_numeric(text: str) -> bool:
    return text.lstrip("+-").isdigit()


def _in_range(text: str) -> int:
    value = number(text)
    if value is None:
        raise UserError(f"uids and gids must be in range 0-{ID_MAX}: {text}")
    return value


def read_database(root_fd: int, path: str) -> str:
    """The text of a passwd or group file below `root_fd`; empty when there is none or it is no regular file.

    Raises UserError for a file that no honest image has: reading it whole would be the attack.
    """
    try:
        fd = open_in_root(root_fd, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return ""
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            return ""
        if info.st_size > FILE_MAX:
            raise UserError(f"{path} of {info.st_size} bytes is over the limit of {FILE_MAX}")
        return os.read(fd, info.st_size).decode("utf-8", "replace")
    finally:
        os.close(fd)


def identify(root_fd: int, spec: str, group_add: list[str]) -> Identity:
    """`resolve` against the files below `root_fd`. Raises UserError."""
    passwd = parse_passwd(read_database(root_fd, "/etc/passwd"))
    groups = parse_group(read_database(root_fd, "/etc/group"))
    return resolve(spec, group_add, passwd, groups)
