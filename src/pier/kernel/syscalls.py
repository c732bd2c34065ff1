"""The way into the kernel: libc by ctypes, system calls glibc has no wrapper for, and one errno helper.

Standard library only, and small: the zygote keeps this module in the memory that every monitor shares.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from typing import Any, NoReturn

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


class SYS:
    """System call numbers that are the same on every architecture (asm-generic, since Linux 5.1)."""

    open_tree = 428
    move_mount = 429
    fsopen = 430
    fsconfig = 431
    fsmount = 432
    fspick = 433
    pidfd_open = 434
    clone3 = 435
    close_range = 436
    openat2 = 437
    pidfd_getfd = 438
    mount_setattr = 442
    quotactl_fd = 443

    # These differ; the numbers are x86-64's unless the machine says otherwise below.
    pivot_root = 155
    setns = 308
    unshare = 272
    capget = 125
    capset = 126
    seccomp = 317
    bpf = 321
    pidfd_send_signal = 424
    keyctl = 250
    clone = 56
    set_tid_address = 218
    mknodat = 259
    execveat = 322
    ioprio_set = 251


if os.uname().machine == "aarch64":
    SYS.pivot_root = 41
    SYS.setns = 268
    SYS.unshare = 97
    SYS.capget = 90
    SYS.capset = 91
    SYS.seccomp = 277
    SYS.bpf = 280
    SYS.keyctl = 219
    SYS.clone = 220
    SYS.set_tid_address = 96
    SYS.mknodat = 33
    SYS.execveat = 281
    SYS.ioprio_set = 30

_REMEDIES = {
    errno.ENOSYS: "this kernel is too old for Pier: Linux 5.15 or newer is needed",
    errno.EPERM: "this takes root with the capability for it",
}


def raise_errno(call: str, *objects: object, number: int | None = None) -> NoReturn:
    """Raise the OSError of the libc call that just failed, naming the call and what it was done to."""
    code = ctypes.get_errno() if number is None else number
    what = " ".join([call, *map(str, objects)])
    hint = f" ({_REMEDIES[code]})" if code in _REMEDIES else ""
    raise OSError(code, f"{what}: {os.strerror(code)}{hint}")


def prototype(number: int, *argtypes: Any) -> Callable[..., int]:
    """A system call as a function with fixed argument types, so that ctypes passes 64-bit values whole."""
    function = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_long, *argtypes, use_errno=True)(("syscall", libc))

    def call(*args: Any) -> int:
        return int(function(number, *args))

    return call


def syscall(number: int, *args: object, name: str = "syscall") -> int:
    """Make a system call with integers, bytes or ctypes objects; returns its result, raises OSError below zero."""
    words = [ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args]
    result = int(libc.syscall(ctypes.c_long(number), *words))
    if result < 0:
        raise_errno(name if name != "syscall" else f"syscall {number}")
    return result
