"""Namespaces and process descriptors (namespaces(7), pidfd_open(2))."""

from __future__ import annotations

import ctypes
import os

from pier.kernel.syscalls import SYS, libc, prototype, raise_errno

CLONE_NEWTIME = 0x00000080
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

OCI_TYPES = {
    "mount": CLONE_NEWNS,
    "cgroup": CLONE_NEWCGROUP,
    "uts": CLONE_NEWUTS,
    "ipc": CLONE_NEWIPC,
    "user": CLONE_NEWUSER,
    "pid": CLONE_NEWPID,
    "network": CLONE_NEWNET,
    "time": CLONE_NEWTIME,
}
"""Names of runtime-spec's `linux.namespaces[].type`, and the flag of each."""

_pidfd_open = prototype(SYS.pidfd_open, ctypes.c_int, ctypes.c_uint)
_pidfd_send_signal = prototype(
    SYS.pidfd_send_signal, ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_uint
)


def unshare(flags: int) -> None:
    """Move this process into new namespaces (unshare(2)); CLONE_NEWPID takes effect for its children."""
    if libc.unshare(flags) < 0:
        raise_errno("unshare", hex(flags))


def setns(fd: int, flags: int = 0) -> None:
    """Join the namespace behind `fd`, or those of a pidfd that `flags` name (setns(2))."""
    if libc.setns(fd, flags) < 0:
        raise_errno("setns", hex(flags))


def pidfd_open(pid: int) -> int:
    """A descriptor of a process that is readable once the process has ended (pidfd_open(2)); close-on-exec."""
    fd = _pidfd_open(pid, 0)
    if fd < 0:
        raise_errno("pidfd_open", pid)
    return fd


def pidfd_send_signal(pidfd: int, signum: int) -> None:
    """Signal the process behind a pidfd, never another that took its number. Raises ProcessLookupError."""
    if _pidfd_send_signal(pidfd, signum, None, 0) < 0:
        raise_errno("pidfd_send_signal", signum)


def namespace_path(pid: int, kind: str) -> str:
    """The file of a process's namespace; `kind` as in runtime-spec (`network`, `mount`, …)."""
    return f"/proc/{pid}/ns/{ {'network': 'net', 'mount': 'mnt'}.get(kind, kind) }"


def same_namespace(fd: int, path: str) -> bool:
    """Whether two namespace files are one namespace."""
    here, there = os.fstat(fd), os.stat(path)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
