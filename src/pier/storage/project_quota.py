"""Project quotas: a bound on what one directory tree takes, on xfs and ext4 mounted with `prjquota` (quotactl(2)).

A tree gets a project number of its own, which everything made below inherits. Numbers begin where people who set up
projects by hand do not.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
import zlib
from typing import Final

from pier.errors import InvalidParameter
from pier.kernel.syscalls import SYS, prototype, raise_errno

FS_IOC_FSGETXATTR: Final = 0x801C581F
FS_IOC_FSSETXATTR: Final = 0x401C5820
FS_XFLAG_PROJINHERIT: Final = 0x200
_FSXATTR: Final = struct.Struct("IIIII8s")

PRJQUOTA: Final = 2
Q_SETQUOTA: Final = 0x800008
Q_GETQUOTA: Final = 0x800007
Q_GETFMT: Final = 0x800004
QIF_BLIMITS: Final = 1
QUOTA_BLOCK: Final = 1024

FIRST_PROJECT: Final = 1 << 24
PROJECTS: Final = 1 << 24


class QuotaUnavailable(InvalidParameter):
    """--storage-opt is supported only for overlay over xfs with 'pquota' mount option"""

    remedy = (
        "here: {reason}; put the data root on xfs or ext4 mounted with prjquota, which serves overlay2 and vfs, or use "
        "the btrfs driver"
    )


class if_dqblk(ctypes.Structure):  # noqa: N801 - the kernel's name
    _fields_ = (
        ("dqb_bhardlimit", ctypes.c_uint64),
        ("dqb_bsoftlimit", ctypes.c_uint64),
        ("dqb_curspace", ctypes.c_uint64),
        ("dqb_ihardlimit", ctypes.c_uint64),
        ("dqb_isoftlimit", ctypes.c_uint64),
        ("dqb_curinodes", ctypes.c_uint64),
        ("dqb_btime", ctypes.c_uint64),
        ("dqb_itime", ctypes.c_uint64),
        ("dqb_valid", ctypes.c_uint32),
    )


_quotactl_fd = prototype(SYS.quotactl_fd, ctypes.c_uint, ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p)


def quotactl(fd: int, command: int, project: int, argument: ctypes.Structure | ctypes.c_uint32) -> None:
    """quotactl_fd(2) for project quotas of the file system that `fd` is on."""
    if _quotactl_fd(fd, command << 8 | PRJQUOTA, project, ctypes.byref(argument)) < 0:
        raise_errno("quotactl")


def probe(folder: str) -> str:
    """Why there are no project quotas for `folder`; empty where there are."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        quotactl(fd, Q_GETFMT, 0, ctypes.c_uint32())
    except OSError as error:
        if error.errno in (errno.ESRCH, errno.ENOSYS, errno.EINVAL, errno.ENODEV, errno.ENOTBLK, errno.EOPNOTSUPP):
            return "the file system of the data root has no project quotas switched on"
        return error.strerror or str(error)
    finally:
        os.close(fd)
    return ""


def limit(folder: str, size_bytes: int) -> None:
    """Bound everything that will be made below `folder`, an empty directory. Raises QuotaUnavailable."""
    fault = probe(folder)
    if fault:
        raise QuotaUnavailable(reason=fault)
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        project = _free_project(fd, folder)
        _set_project(fd, project)
        blocks = max(1, -(-size_bytes // QUOTA_BLOCK))
        quotactl(fd, Q_SETQUOTA, project, if_dqblk(blocks, blocks, dqb_valid=QIF_BLIMITS))
    except OSError as error:
        raise QuotaUnavailable(reason=error.strerror or str(error)) from error
    finally:
        os.close(fd)


def _free_project(fd: int, folder: str) -> int:
    """A number that nothing is counted under, beginning at one that the folder's name gives."""
    start = zlib.crc32(os.fsencode(folder)) % PROJECTS
    for step in range(PROJECTS):
        project = FIRST_PROJECT + (start + step) % PROJECTS
        found = if_dqblk()
        try:
            quotactl(fd, Q_GETQUOTA, project, found)
        except OSError as error:
            if error.errno != errno.ENOENT:  # xfs: nobody has used it
                raise
            return project
        if not (found.dqb_curspace or found.dqb_curinodes):
            return project
    raise OSError(errno.ENOSPC, "all project numbers are taken")


def _set_project(fd: int, project: int) -> None:
    attributes = bytearray(_FSXATTR.size)
    fcntl.ioctl(fd, FS_IOC_FSGETXATTR, attributes)
    flags, extent, extents, _, cow, padding = _FSXATTR.unpack(attributes)
    changed = _FSXATTR.pack(flags | FS_XFLAG_PROJINHERIT, extent, extents, project, cow, padding)
    fcntl.ioctl(fd, FS_IOC_FSSETXATTR, changed)
