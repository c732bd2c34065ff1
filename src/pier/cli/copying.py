"""What goes where in `pier cp`: Docker's rules for files, directories, trailing slashes and `.`. Pure but for
`local_source` and `local_destination`, which look at this machine's files."""

from __future__ import annotations

import os
import posixpath
import stat

from pier.cli.errors import Failure, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SYMLINKS_MAX = 10
GO_DIR, GO_SYMLINK = 1 << 31, 1 << 27
GO_SPECIAL = 1 << 26 | 1 << 25 | 1 << 24 | 1 << 19
"""Bits of Go's FileMode: a device, a fifo, a socket, anything else that is irregular."""


class End:
    """One end of a copy: a path and what is there."""

    __slots__ = ("exists", "is_dir", "path", "rebase_name")

    def __init__(self, path: str, *, exists: bool, is_dir: bool, rebase_name: str = "") -> None:
        self.path = path
        self.exists = exists
        self.is_dir = is_dir
        self.rebase_name = rebase_name
        """The name in the archive instead of the path's last component, where a link was followed."""


def split_argument(text: str) -> tuple[str, str]:
    """`CONTAINER:PATH` as (container, path), a local path as ("", path)."""
    container, colon, path = text.partition(":")
    if text.startswith("/") or not colon or container.startswith("."):
        return "", text
    return container, path


def base_of(path: str) -> str:
    """The last component, trailing slashes aside; `.` of an empty path (Go's filepath.Base)."""
    return path.rstrip("/").rpartition("/")[2] or ("/" if path else ".")


def is_dot(path: str) -> bool:
    return base_of(path) == "."


def keep_end(cleaned: str, original: str) -> str:
    """A cleaned path with the `/.` or `/` that the original ended in."""
    if is_dot(original) and not is_dot(cleaned):
        cleaned = cleaned.rstrip("/") + "/."
    if original.endswith("/") and not cleaned.endswith("/"):
        cleaned += "/"
    return cleaned


def absolute(path: str) -> str:
    return keep_end(posixpath.normpath(os.path.join(os.getcwd(), path)), path)


def split_entry(path: str) -> tuple[str, str]:
    """(directory, base): where an archive of `path` is made, and the name that its entries begin with."""
    cleaned = posixpath.normpath(path)
    if cleaned.startswith("//"):
        cleaned = cleaned[1:]
    if is_dot(path) and not is_dot(cleaned):
        return cleaned, "."
    return posixpath.dirname(cleaned) or ".", base_of(cleaned)


def rebase_name(path: str, resolved: str) -> tuple[str, str]:
    """(the resolved path with the end of `path`, the name that `path` asked for where it is another)."""
    resolved = keep_end(resolved, path)
    return resolved, base_of(path) if base_of(path) != base_of(resolved) else ""


def prepare(source: End, destination: End) -> tuple[str, tuple[str, str] | None]:
    """(directory to unpack in, (what entries' names begin with, what instead of it)). Failure in Docker's words."""
    directory, new = split_entry(destination.path)
    _, old = split_entry(source.path)
    if source.rebase_name:
        old = source.rebase_name
    if destination.exists and destination.is_dir:
        return destination.path, None
    if destination.exists and source.is_dir:
        raise Failure("cannot copy directory")
    if not destination.exists and not source.is_dir and (destination.path.endswith("/") or is_dot(destination.path)):
        raise Failure("no such directory")
    return directory, (old, new)


def renamed(name: str, rename: tuple[str, str] | None) -> str:
    """An entry's name with its beginning replaced: whole components only."""
    if rename is None:
        return name
    old, new = rename
    if old == "/":
        return f"{new}/{name.lstrip('/')}"
    return new + name[len(old) :] if name == old or name.startswith(old + "/") else name


def container_end(path: str, found: dict[str, Any] | None) -> End:
    """What the daemon's stat says of a path."""
    return End(path, exists=found is not None, is_dir=found is not None and bool(found["mode"] & GO_DIR))


def local_source(path: str, *, follow: bool) -> End:
    """A file of this machine's to be sent. Failure where it is not there."""
    path = absolute(path)
    try:
        if follow:
            resolved, name = rebase_name(path, os.path.realpath(path, strict=True))
        else:
            directory, base = posixpath.split(path)
            resolved = f"{os.path.realpath(directory, strict=True).rstrip('/')}/{base}"
            name = base_of(path) if path.endswith("/") and base_of(path) != base_of(resolved) else ""
        is_dir = stat.S_ISDIR(os.lstat(resolved).st_mode)
    except OSError as error:
        raise Failure(f"lstat {error.filename or path}: {reason(error)}") from None
    return End(resolved, exists=True, is_dir=is_dir, rebase_name=name)


def local_destination(path: str) -> End:
    """Where on this machine a copy goes: links are followed, their end may be missing. Failure otherwise."""
    check_output_path(path)
    place = path
    try:
        for _ in range(SYMLINKS_MAX + 1):
            try:
                mode = os.lstat(place).st_mode
            except FileNotFoundError:
                parent = split_entry(place)[0]
                if not stat.S_ISDIR(os.stat(parent).st_mode):
                    raise Failure("not a directory") from None
                return End(place, exists=False, is_dir=False)
            if not stat.S_ISLNK(mode):
                return End(place, exists=True, is_dir=stat.S_ISDIR(mode))
            place = os.path.join(split_entry(place)[0], os.readlink(place.rstrip("/")))
    except OSError as error:
        raise Failure(f"{error.filename or path}: {reason(error)}") from None
    raise Failure(f"too many symlinks in {path}")


def check_output_path(path: str) -> None:
    """Failure where nothing can be written at a path: no directory to be in, or a device."""
    directory = posixpath.dirname(posixpath.normpath(path))
    if directory and not os.path.exists(directory):
        raise Failure(f'invalid output path: directory "{directory}" does not exist')
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        raise Failure(f'invalid output path: "{path}" must be a directory or a regular file: got a device')
