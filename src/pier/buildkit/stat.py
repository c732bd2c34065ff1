"""A file as clients of BuildKit describe it (fsutil's Stat)."""

from __future__ import annotations

import stat

from pier.builder.entries import Entry, check_link, check_path
from pier.buildkit.pb.session_pb2 import Stat
from pier.storage.go_mode import unix_mode

__all__ = ["entry_of"]


def entry_of(sent: Stat) -> tuple[str, Entry]:
    """(path below the root, file). Raises BadEntry for one that would lie elsewhere, or nowhere."""
    path = sent.path
    check_path(path)
    mode = unix_mode(sent.mode)
    if stat.S_ISREG(mode) and sent.linkname:
        check_link(path, sent.linkname)
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
