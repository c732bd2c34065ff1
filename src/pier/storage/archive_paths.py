"""Paths of the archive operations as Docker understands them, and what the client is told of a file. Pure but for
`link_target`."""

from __future__ import annotations

import base64
import os
import posixpath

import msgspec

from pier.kernel.paths import O_PATH, SYMLINKS_MAX, closing, open_in_root
from pier.model.time import rfc3339_nano
from pier.storage.go_mode import go_mode


class PathStat(msgspec.Struct, rename="camel", kw_only=True):
    """The header X-Docker-Container-Path-Stat."""

    name: str
    size: int
    mode: int
    """Go's FileMode."""
    mtime: str
    link_target: str = ""
    """Where a symbolic link leads in the container, followed as far as it goes."""

    def header(self) -> str:
        return base64.b64encode(msgspec.json.encode(self)).decode()


def clean(path: str) -> str:
    """From the root, without `..` and doubled slashes; a `/` or `/.` at its end, which have a meaning, stay."""
    found = "/" + posixpath.normpath("/" + path).lstrip("/")
    if path.rstrip("/").rpartition("/")[2] == ".":
        found = found.rstrip("/") + "/."
    if path.endswith("/") and not found.endswith("/"):
        found += "/"
    return found


def base_name(path: str) -> str:
    """The last component of a clean path: `/` of the root, `.` where it ends so (Go's filepath.Base)."""
    return path.rstrip("/").rpartition("/")[2] or "/"


def path_stat(path: str, info: os.stat_result, target: str = "") -> PathStat:
    """What is told of the file at a clean path."""
    return PathStat(
        name=base_name(path),
        size=info.st_size,
        mode=go_mode(info.st_mode),
        mtime=rfc3339_nano(info.st_mtime_ns),
        link_target=target,
    )


def link_target(root_fd: int, path: str) -> str:
    """The path, from the root, that a symbolic link leads to, or as far as it leads. Raises OSError ELOOP."""
    pending = [part for part in path.split("/") if part not in ("", ".")][::-1]
    done: list[str] = []
    links = 0
    while pending:
        part = pending.pop()
        if part in ("", "."):
            continue
        if part == "..":
            done = done[:-1]
            continue
        target = _read_link(root_fd, "/".join([*done, part]))
        if target is None:
            done.append(part)
            continue
        links += 1
        if links > SYMLINKS_MAX:
            return "/" + "/".join([*done, part])
        if target.startswith("/"):
            done = []
        pending += target.split("/")[::-1]
    return "/" + "/".join(done)


def _read_link(root_fd: int, path: str) -> str | None:
    """The text of a symbolic link; None for anything else, and for nothing."""
    try:
        with closing(open_in_root(root_fd, path, O_PATH | os.O_NOFOLLOW)) as fd:
            return os.readlink("", dir_fd=fd)
    except OSError:
        return None
