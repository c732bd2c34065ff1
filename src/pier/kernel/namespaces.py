"""Namespaces and process descriptors (namespaces(7), pidfd_open(2))."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterable
from typing import Any

from pier.kernel.syscalls import SYS, libc, prototype, raise_errno

CLONE_NEWTIME = 0x00000080
CLONE_FS = 0x00000200
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

_pidfd_send_signal = prototype(SYS.pidfd_send_signal, ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_uint)


def flags_of(kinds: Iterable[str]) -> int:
    """The CLONE_NEW* flags of runtime-spec's namespace types. Raises KeyError."""
    flags = 0
    for kind in kinds:
        flags |= OCI_TYPES[kind]
    return flags


def unshare(flags: int) -> None:
    """Move this process into new namespaces (unshare(2)); CLONE_NEWPID takes effect for its children."""
    if libc.unshare(flags) < 0:
        raise_errno("unshare", hex(flags))


def setns(fd: int, flags: int = 0) -> None:
    """Join the namespace behind `fd`, or those of a pidfd that `flags` name (setns(2))."""
    if libc.setns(fd, flags) < 0:
        raise_errno("setns", hex(flags))


def pidfd_send_signal(pidfd: int, signum: int) -> None:
    """Signal the process behind a pidfd, never another that took its number. Raises ProcessLookupError."""
    if _pidfd_send_signal(pidfd, signum, None, 0) < 0:
        raise_errno("pidfd_send_signal", signum)


def namespace_path(pid: int, kind: str) -> str:
    """The file of a process's namespace; `kind` as in runtime-spec (`network`, `mount`, …)."""
    return f"/proc/{pid}/ns/{ {'network': 'net', 'mount': 'mnt'}.get(kind, kind) }"


CLONE_INTO_CGROUP = 0x200000000


class clone_args(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in (
            "flags pidfd child_tid parent_tid exit_signal stack stack_size tls set_tid set_tid_size cgroup"
        ).split()
    )


_pysyscall = ctypes.PyDLL(None, use_errno=True).syscall
_pysyscall.restype = ctypes.c_long


def fork_into_cgroup(cgroup_fd: int | None) -> int:
    """fork(2) whose child is born in the cgroup2 directory behind `cgroup_fd` (clone3(2)); os.fork for None."""
    return fork(cgroup_fd=cgroup_fd)


CLONE_PARENT = 0x00008000


def fork(flags: int = 0, *, cgroup_fd: int | None = None) -> int:
    """fork(2) whose child is born in new namespaces (CLONE_NEW*) and a cgroup2 directory (clone3(2)).

    To be born in a cgroup needs no lock that other forks hold; to move there does. With CLONE_NEWUSER among them the
    other namespaces belong to the new user namespace. With CLONE_PARENT the child is the caller's sibling. Only for a
    process of one thread: the interpreter's lock is kept across the call, glibc's own fork handlers do not run.
    """
    if cgroup_fd is None and not flags:
        return os.fork()
    into = 0 if cgroup_fd is None else CLONE_INTO_CGROUP
    args = clone_args(
        flags=flags | into, exit_signal=0 if flags & CLONE_PARENT else signal.SIGCHLD, cgroup=cgroup_fd or 0
    )
    pid = _forked(SYS.clone3, ctypes.byref(args), ctypes.c_size_t(ctypes.sizeof(args)))
    if pid < 0:
        raise_errno("clone3", hex(flags | into))
    return pid


def fork_sibling() -> int:
    """fork(2) whose child has the caller's parent. By clone(2): containers' filters answer clone3 with ENOSYS.

    As `fork`, only for a process of one thread.
    """
    pid = _forked(SYS.clone, *(ctypes.c_long(word) for word in (CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0)))
    if pid < 0:
        raise_errno("clone", hex(CLONE_PARENT))
    return pid


def _forked(number: int, *words: Any) -> int:
    """A system call that returns twice. The interpreter is told before it, too: from 3.13 on it aborts otherwise."""
    ctypes.pythonapi.PyOS_BeforeFork()
    pid = int(_pysyscall(ctypes.c_long(number), *words))
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
    else:
        ctypes.pythonapi.PyOS_AfterFork_Parent()
    return pid


CLONE_VM = 0x00000100
CLONE_VFORK = 0x00004000
CLONE_PARENT_SETTID = 0x00100000


def be_reborn(cgroup_fd: int | None) -> int:
    """Go on in a sibling of this process that has its memory and descriptors: nothing is copied (clone3(2)).

    The sibling is born in the cgroup2 directory behind `cgroup_fd` (None: where this process is) and in the pid
    namespace that was unshared. Returns there, with its pid as this process sees it. This process stands still
    (CLONE_VFORK) on a stack that is no longer its own: it must be killed before the sibling executes a program or
    ends. Only for a process of one thread. Raises OSError.
    """
    pid = ctypes.c_int(0)
    into = 0 if cgroup_fd is None else CLONE_INTO_CGROUP
    args = clone_args(
        flags=CLONE_VM | CLONE_VFORK | CLONE_PARENT | CLONE_PARENT_SETTID | into,
        parent_tid=ctypes.addressof(pid),
        cgroup=cgroup_fd or 0,
    )
    # The kernel would clear glibc's thread id, in memory that is the sibling's too, when this process ends; glibc knows
    # by it who holds a lock.
    _pysyscall(ctypes.c_long(SYS.set_tid_address), ctypes.c_void_p(None))
    answer = int(_pysyscall(ctypes.c_long(SYS.clone3), ctypes.byref(args), ctypes.c_size_t(ctypes.sizeof(args))))
    if answer < 0:
        raise_errno("clone3", hex(args.flags))
    return pid.value
