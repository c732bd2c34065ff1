"""Install a compiled seccomp filter (seccomp(2)). Compiling is `seccomp_compiler`'s, which only the daemon loads."""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Mapping
from typing import Any

from pier.errors import InvalidParameter
from pier.kernel.syscalls import SYS, libc, raise_errno, syscall

SECCOMP_SET_MODE_FILTER = 1
SECCOMP_FILTER_FLAG_TSYNC = 1 << 0
SECCOMP_FILTER_FLAG_LOG = 1 << 1
SECCOMP_FILTER_FLAG_SPEC_ALLOW = 1 << 2
SECCOMP_FILTER_FLAG_NEW_LISTENER = 1 << 3
SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV = 1 << 5
PR_SET_SECCOMP = 22
SECCOMP_MODE_FILTER = 2
BPF_MAXINSNS = 4096

DEFAULT_FLAGS = SECCOMP_FILTER_FLAG_SPEC_ALLOW
"""As runc: a filter alone does not slow every program down by the speculative-store-bypass mitigation."""

FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": SECCOMP_FILTER_FLAG_TSYNC,
    "SECCOMP_FILTER_FLAG_LOG": SECCOMP_FILTER_FLAG_LOG,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": SECCOMP_FILTER_FLAG_SPEC_ALLOW,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
}


class BadProfile(InvalidParameter):
    """seccomp profile: {reason}"""

    def __init__(self, *, reason: str, field: str = "") -> None:
        """`field` is the path below the profile of what is wrong: `syscalls[3].action`."""
        super().__init__(reason=reason, field=field)


class _SockFprog(ctypes.Structure):
    """struct sock_fprog"""

    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def flags_of(profile: Mapping[str, Any]) -> int:
    """The SECCOMP_FILTER_FLAG_* bits of an OCI profile's `flags`; without any, DEFAULT_FLAGS. Raises BadProfile."""
    names = profile.get("flags") or ()
    for index, name in enumerate(names):
        if name not in FLAGS:
            raise BadProfile(reason=f"unknown flag {name!r}", field=f"flags[{index}]")
    return sum({FLAGS[name] for name in names}) if names else DEFAULT_FLAGS


def install(bpf: bytes, flags: int = DEFAULT_FLAGS) -> int:
    """Confine the calling thread by a filter, an array of `struct sock_filter`, for good.

    Needs no_new_privs or CAP_SYS_ADMIN (else EACCES). Returns the listener's descriptor with
    SECCOMP_FILTER_FLAG_NEW_LISTENER, else 0. Raises OSError.
    """
    count = len(bpf) // 8
    if len(bpf) % 8 or not 0 < count <= BPF_MAXINSNS:
        raise OSError(errno.EINVAL, f"seccomp: a filter of {len(bpf)} bytes is no array of sock_filter")
    program = _SockFprog(count, bpf)
    try:
        return syscall(SYS.seccomp, SECCOMP_SET_MODE_FILTER, flags, ctypes.byref(program), name="seccomp")
    except OSError as error:
        if error.errno == errno.EINVAL and flags & SECCOMP_FILTER_FLAG_SPEC_ALLOW:  # before Linux 4.17
            return install(bpf, flags & ~SECCOMP_FILTER_FLAG_SPEC_ALLOW)
        if error.errno != errno.ENOSYS or flags & ~DEFAULT_FLAGS:
            raise
    if libc.prctl(PR_SET_SECCOMP, ctypes.c_ulong(SECCOMP_MODE_FILTER), ctypes.byref(program), 0, 0) < 0:
        raise_errno("prctl(PR_SET_SECCOMP)")
    return 0
