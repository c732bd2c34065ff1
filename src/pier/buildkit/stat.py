"""A file as clients describe it (fsutil's Stat), and as the kernel does."""

from __future__ import annotations

import hashlib
import posixpath
import stat
from collections.abc import Iterable

import msgspec

from pier.buildkit.pb.session_pb2 import Stat
from pier.errors import InvalidParameter
from pier.storage.go_mode import unix_mode

__all__ = ["BadEntry", "Entry", "entry_of", "tree_key"]

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


def entry_of(sent: Stat) -> tuple[str, Entry]:
    """(path below the root, file). Raises BadEntry for one that would lie elsewhere, or nowhere."""
    path = sent.path
    parts = path.split("/")
    if len(path) > PATH_MAX or "\0" in path or not EMPTY_PARTS.isdisjoint(parts):
        raise BadEntry(path=path[:200], reason="the path is not a plain one below the root")
    if ".." in parts:
        raise BadEntry(path=path[:200], reason="the path leads out of the root")
    mode = unix_mode(sent.mode)
    if stat.S_ISREG(mode) and sent.linkname:
        _, origin = sent.linkname, posixpath.normpath(sent.linkname)
        if origin.startswith(("/", "../")) or origin in ("..", "."):
            raise BadEntry(path=path[:200], reason="a hard link to a file elsewhere")
    return path, Entry(
        mode,
        sent.uid,
        sent.gid,
        sent.size if stat.S_ISREG(mode) else 0,
        sent.mod_time,
        sent.linkname,
        (sent.dev_major, sent.dev_minor),
        tuple(sorted(sent.xattrs.items())) if sent.xattrs else (),
    )


def tree_key(files: Iterable[tuple[str, Entry, str]]) -> str:
    """A digest of (path, file, sha256 of its content): the same for the same files, whenever they were written."""
    digest = hashlib.sha256()
    for path, entry, content in sorted(files):
        timeless = (path, entry.mode, entry.uid, entry.gid, entry.link, entry.device, entry.xattrs, content)
        digest.update(msgspec.msgpack.encode(timeless))
    return f"sha256:{digest.hexdigest()}"
