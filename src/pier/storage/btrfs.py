"""The btrfs driver: every layer and every container a subvolume, begun as a snapshot of the one below.

The ioctls are those of `linux/btrfs.h`; no btrfs program is run.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from typing import Final

from pier.kernel.paths import BTRFS_SUPER_MAGIC, fs_magic
from pier.storage.folder_driver import ROOT_MODE, opened
from pier.storage.project_quota import QuotaUnavailable
from pier.storage.trees import remove_tree
from pier.storage.whole_trees import WholeTrees

BTRFS_FIRST_FREE_OBJECTID: Final = 256
"""Inode number of every subvolume's root."""
BTRFS_QUOTA_CTL_ENABLE: Final = 1
BTRFS_QGROUP_LIMIT_MAX_RFER: Final = 1 << 0


class btrfs_ioctl_vol_args(ctypes.Structure):  # noqa: N801 - the kernel's name
    _fields_ = (("fd", ctypes.c_int64), ("name", ctypes.c_char * 4088))


class btrfs_ioctl_quota_ctl_args(ctypes.Structure):  # noqa: N801
    _fields_ = (("cmd", ctypes.c_uint64), ("status", ctypes.c_uint64))


class btrfs_ioctl_qgroup_limit_args(ctypes.Structure):  # noqa: N801
    _fields_ = (
        ("qgroupid", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
        ("max_rfer", ctypes.c_uint64),
        ("max_excl", ctypes.c_uint64),
        ("rsv_rfer", ctypes.c_uint64),
        ("rsv_excl", ctypes.c_uint64),
    )


def _iowr(number: int, size: int, direction: int = 1) -> int:
    """_IOW of btrfs' ioctl magic 0x94, or with `direction` 3 _IOWR (asm-generic/ioctl.h)."""
    return direction << 30 | size << 16 | 0x94 << 8 | number


BTRFS_IOC_SNAP_CREATE: Final = _iowr(1, ctypes.sizeof(btrfs_ioctl_vol_args))
BTRFS_IOC_SUBVOL_CREATE: Final = _iowr(14, ctypes.sizeof(btrfs_ioctl_vol_args))
BTRFS_IOC_SNAP_DESTROY: Final = _iowr(15, ctypes.sizeof(btrfs_ioctl_vol_args))
BTRFS_IOC_QUOTA_CTL: Final = _iowr(40, ctypes.sizeof(btrfs_ioctl_quota_ctl_args), 3)
BTRFS_IOC_QGROUP_LIMIT: Final = _iowr(43, ctypes.sizeof(btrfs_ioctl_qgroup_limit_args), 2)


def probe(data_root: str) -> str:
    """Why the driver does not work on `data_root`; empty where it does. Tried on a subvolume."""
    os.makedirs(data_root, mode=0o700, exist_ok=True)
    with opened(data_root) as fd:
        if fs_magic(fd) != BTRFS_SUPER_MAGIC:
            return "the data root is not on btrfs"
        try:
            subvolume(fd, b".probe-subvolume")
            destroy(fd, b".probe-subvolume")
        except OSError as error:
            return error.strerror or str(error)
    return ""


def subvolume(dir_fd: int, name: bytes) -> None:
    """Make an empty subvolume."""
    fcntl.ioctl(dir_fd, BTRFS_IOC_SUBVOL_CREATE, bytearray(btrfs_ioctl_vol_args(0, name)))


def snapshot(source_fd: int, dir_fd: int, name: bytes) -> None:
    """Make a writable snapshot of the subvolume `source_fd`."""
    fcntl.ioctl(dir_fd, BTRFS_IOC_SNAP_CREATE, bytearray(btrfs_ioctl_vol_args(source_fd, name)))


def destroy(dir_fd: int, name: bytes) -> None:
    """Delete a subvolume with all its files at once; btrfs frees them in the background."""
    fcntl.ioctl(dir_fd, BTRFS_IOC_SNAP_DESTROY, bytearray(btrfs_ioctl_vol_args(0, name)))


def limit(subvolume_fd: int, size_bytes: int) -> None:
    """Bound what a subvolume may refer to, by its qgroup; raises OSError."""
    args = btrfs_ioctl_qgroup_limit_args(0, BTRFS_QGROUP_LIMIT_MAX_RFER, size_bytes)
    try:
        fcntl.ioctl(subvolume_fd, BTRFS_IOC_QGROUP_LIMIT, bytearray(args))
    except OSError as error:
        if error.errno not in (errno.ENOTCONN, errno.EINVAL):  # quotas are off
            raise
        enable = btrfs_ioctl_quota_ctl_args(BTRFS_QUOTA_CTL_ENABLE, 0)
        fcntl.ioctl(subvolume_fd, BTRFS_IOC_QUOTA_CTL, bytearray(enable))
        fcntl.ioctl(subvolume_fd, BTRFS_IOC_QGROUP_LIMIT, bytearray(args))


class Btrfs(WholeTrees):
    """The driver; see `Snapshotter` for what the calls promise."""

    name = "btrfs"

    def status(self) -> list[list[str]]:
        return [["Btrfs", f"Linux {os.uname().release}"]]

    def _make_empty(self, target: str) -> None:
        with opened(os.path.dirname(target)) as fd:
            subvolume(fd, os.fsencode(os.path.basename(target)))
        os.chmod(target, ROOT_MODE)

    def _copy(self, source: str, target: str) -> None:
        with opened(source) as source_fd, opened(os.path.dirname(target)) as dir_fd:
            snapshot(source_fd, dir_fd, os.fsencode(os.path.basename(target)))

    def _limit(self, place: str, size_bytes: int) -> None:
        pass  # of the subvolume, once there is one

    def _begin_container(self, place: str, layers: list[str], size_bytes: int) -> None:  # type: ignore[override]
        super()._begin_container(place, layers, size_bytes)  # type: ignore[arg-type]
        if size_bytes:
            with opened(os.path.join(place, "diff")) as fd:
                try:
                    limit(fd, size_bytes)
                except OSError as error:
                    raise QuotaUnavailable(reason=f"btrfs answers: {error.strerror}") from error

    def _remove_tree(self, dir_fd: int, name: bytes) -> None:
        """Destroy the subvolume in a layer's or container's folder; what a container nested in it goes the slow way."""
        try:
            folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
        except FileNotFoundError:
            return
        try:
            info = os.stat("diff", dir_fd=folder, follow_symlinks=False)
            if info.st_ino == BTRFS_FIRST_FREE_OBJECTID:
                destroy(folder, b"diff")
        except OSError:  # none, or one with subvolumes in it, which `remove_tree` empties and removes as directories
            pass
        finally:
            os.close(folder)
        remove_tree(dir_fd, name)
