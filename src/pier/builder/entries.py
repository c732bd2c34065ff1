"""A file of a client's, as it is compared from build to build; the key of a tree of them."""

from __future__ import annotations

import hashlib
import posixpath
import stat
from collections.abc import Iterable, Mapping

import msgspec

from pier.errors import InvalidParameter

PATH_MAX = 4096
EMPTY_PARTS = frozenset({"", "."})
"""Of a path: those that lead nowhere. One that begins with a slash has such."""


class BadEntry(InvalidParameter):
    """the client sent a file that cannot be: {path!r}: {reason}"""


class Entry(msgspec.Struct, array_like=True, frozen=True):
    """One file of a tree; equal ones need not be sent again."""

    mode: int
    """As of stat(2)."""
    uid: int = 0
    gid: int = 0
    size_bytes: int = 0
    mtime_ns: int = 0
    link: str = ""
    """Of a symbolic link what it says; of a regular file the earlier path of the same file."""
    device: tuple[int, int] = (0, 0)
    xattrs: tuple[tuple[str, bytes], ...] = ()

    @property
    def kind(self) -> int:
        return stat.S_IFMT(self.mode)

    @property
    def has_content(self) -> bool:
        """Is it sent?"""
        return stat.S_ISREG(self.mode) and not self.link


def check_path(path: str) -> None:
    """Raises BadEntry for one that would lie outside the root, or nowhere."""
    parts = path.split("/")
    if len(path) > PATH_MAX or "\0" in path or not EMPTY_PARTS.isdisjoint(parts):
        raise BadEntry(path=path[:200], reason="the path is not a plain one below the root")
    if ".." in parts:
        raise BadEntry(path=path[:200], reason="the path leads out of the root")


def check_link(path: str, link: str) -> None:
    """The same for what a regular file is another name of."""
    origin = posixpath.normpath(link)
    if origin.startswith(("/", "../")) or origin in ("..", "."):
        raise BadEntry(path=path, reason="a hard link to a file elsewhere")


def check_place(path: str, entry: Entry, before: Mapping[str, tuple[Entry, str]]) -> None:
    """Raises BadEntry for a file that cannot come after those `before` it: folders come first, and each path once."""
    parent = posixpath.dirname(path)
    if parent and (parent not in before or not stat.S_ISDIR(before[parent][0].mode)):
        raise BadEntry(path=path, reason="its folder was not sent before it")
    if path in before:
        raise BadEntry(path=path, reason="it was sent twice")
    if stat.S_ISREG(entry.mode) and entry.link and entry.link not in before:
        raise BadEntry(path=path, reason="a hard link to a file that was not sent before it")


def tree_key(files: Iterable[tuple[str, Entry, str]]) -> str:
    """A digest of (path, file, sha256 of its content): the same for the same files, whenever they were written."""
    digest = hashlib.sha256()
    for path, entry, content in sorted(files):
        timeless = (path, entry.mode, entry.uid, entry.gid, entry.link, entry.device, entry.xattrs, content)
        digest.update(msgspec.msgpack.encode(timeless))
    return f"sha256:{digest.hexdigest()}"
