"""Modes of files as Go's io/fs.FileMode has them: permissions in the nine low bits, kinds and special bits above."""

from __future__ import annotations

import stat

__all__ = ["go_mode", "unix_mode"]

GO_DIR, GO_SYMLINK, GO_DEVICE, GO_FIFO, GO_SOCKET = 1 << 31, 1 << 27, 1 << 26, 1 << 25, 1 << 24
GO_SETUID, GO_SETGID, GO_CHAR_DEVICE, GO_STICKY = 1 << 23, 1 << 22, 1 << 21, 1 << 20

_KINDS = {
    stat.S_IFDIR: GO_DIR,
    stat.S_IFLNK: GO_SYMLINK,
    stat.S_IFBLK: GO_DEVICE,
    stat.S_IFCHR: GO_DEVICE | GO_CHAR_DEVICE,
    stat.S_IFIFO: GO_FIFO,
    stat.S_IFSOCK: GO_SOCKET,
}
_SPECIAL = ((stat.S_ISUID, GO_SETUID), (stat.S_ISGID, GO_SETGID), (stat.S_ISVTX, GO_STICKY))


def go_mode(mode: int) -> int:
    """st_mode as Go's FileMode."""
    return _KINDS.get(stat.S_IFMT(mode), 0) | mode & 0o777 | sum(go for bit, go in _SPECIAL if mode & bit)


def unix_mode(mode: int) -> int:
    """Go's FileMode as st_mode."""
    if not mode & ~0o777:
        return stat.S_IFREG | mode
    if mode & GO_DIR:
        kind = stat.S_IFDIR
    elif mode & GO_SYMLINK:
        kind = stat.S_IFLNK
    elif mode & GO_DEVICE:
        kind = stat.S_IFCHR if mode & GO_CHAR_DEVICE else stat.S_IFBLK
    elif mode & GO_FIFO:
        kind = stat.S_IFIFO
    elif mode & GO_SOCKET:
        kind = stat.S_IFSOCK
    else:
        kind = stat.S_IFREG
    return kind | mode & 0o777 | sum(bit for bit, go in _SPECIAL if mode & go)
