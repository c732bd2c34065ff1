"""One process's own attributes: prctl(2), descriptors, limits, identity, terminals."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import struct

from pier.kernel.syscalls import SYS, libc, prototype, raise_errno, syscall

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_MM = 35
PR_SET_MM_MAP = 14
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

FD_MAX = 0xFFFFFFFF

RLIMIT_NAMES = {
    name: number
    for number, name in enumerate(
        "RLIMIT_CPU RLIMIT_FSIZE RLIMIT_DATA RLIMIT_STACK RLIMIT_CORE RLIMIT_RSS RLIMIT_NPROC RLIMIT_NOFILE "
        "RLIMIT_MEMLOCK RLIMIT_AS RLIMIT_LOCKS RLIMIT_SIGPENDING RLIMIT_MSGQUEUE RLIMIT_NICE RLIMIT_RTPRIO "
        "RLIMIT_RTTIME".split()
    )
}
"""Names of runtime-spec's `process.rlimits[].type` (asm-generic/resource.h). Python's module lacks RLIMIT_LOCKS."""
RLIM_INFINITY = 2**64 - 1

_close_range = prototype(SYS.close_range, ctypes.c_uint, ctypes.c_uint, ctypes.c_uint)
libc.sbrk.restype = ctypes.c_void_p
libc.prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)


def prctl(option: int, value: int, *more: int) -> None:
    if libc.prctl(option, value, *(*more, 0, 0, 0)[:3]) < 0:
        raise_errno("prctl", option, value)


def set_name(name: str) -> None:
    """The process's name in ps (15 bytes)."""
    fd = os.open("/proc/self/comm", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, name.encode()[:15])
    finally:
        os.close(fd)


class prctl_mm_map(ctypes.Structure):
    _fields_ = (
        *(
            (name, ctypes.c_uint64)
            for name in (
                "start_code end_code start_data end_data start_brk brk start_stack arg_start arg_end env_start env_end"
            ).split()
        ),
        ("auxv", ctypes.c_void_p),
        ("auxv_size", ctypes.c_uint32),
        ("exe_fd", ctypes.c_uint32),
    )


_STAT_FIELDS = {
    "start_code": 26,
    "end_code": 27,
    "start_stack": 28,
    "start_data": 45,
    "end_data": 46,
    "start_brk": 47,
    "env_start": 50,
    "env_end": 51,
}
"""Where proc(5) counts what a `prctl_mm_map` repeats in /proc/self/stat."""


_command_line: list[object] = []
"""What the kernel shows has to stay where it is."""


def set_command_line(args: list[str]) -> None:
    """Set the process's arguments in ps (prctl(2), PR_SET_MM_MAP). `/proc` must be the kernel's own.

    Takes no privilege, but a kernel with CONFIG_CHECKPOINT_RESTORE. Raises OSError.
    """
    text = ctypes.create_string_buffer(b"\0".join(os.fsencode(arg) for arg in args))
    with open("/proc/self/stat", "rb") as file:
        after_name = file.read().rpartition(b") ")[2].split()
    known = {name: int(after_name[number - 3]) for name, number in _STAT_FIELDS.items()}
    start = ctypes.addressof(text)
    layout = prctl_mm_map(**known, arg_start=start, arg_end=start + ctypes.sizeof(text), exe_fd=0xFFFFFFFF)
    layout.brk = libc.sbrk(0) or layout.start_brk
    prctl(PR_SET_MM, PR_SET_MM_MAP, ctypes.addressof(layout), ctypes.sizeof(layout))
    _command_line[:] = [text]


def close_range(first: int, last: int) -> None:
    """Close the descriptors from `first` to `last`, those that are open (close_range(2))."""
    if _close_range(first, last, 0) == 0:
        return
    if ctypes.get_errno() != errno.ENOSYS:
        raise_errno("close_range", first)
    for name in os.listdir("/proc/self/fd"):
        if first <= int(name) <= last:
            with contextlib.suppress(OSError):  # the listing's own descriptor is gone by now
                os.close(int(name))


def close_all_but(keep: list[int]) -> None:
    """Close every descriptor above 2 that is not in `keep`."""
    first = 3
    for fd in sorted(fd for fd in keep if fd >= first):
        if fd > first:
            close_range(first, fd - 1)
        first = fd + 1
    close_range(first, FD_MAX)


def prlimit(pid: int, name: str, limits: tuple[int, int] | None = None) -> tuple[int, int]:
    """The soft and the hard limit that a process has, or had until now, 0 for this process (prlimit(2)).

    In what is set, -1 is infinity too. Raises OSError, KeyError.
    """
    before = ctypes.create_string_buffer(16)
    new = None if limits is None else struct.pack("QQ", *(value & RLIM_INFINITY for value in limits))
    if libc.prlimit(pid, RLIMIT_NAMES[name], new, before) < 0:
        raise_errno("prlimit", name)
    soft, hard = struct.unpack("QQ", before.raw)
    return soft, hard


def raise_open_files() -> tuple[int, int]:
    """Let this process hold as many descriptors as its hard limit allows; returns both limits as they were."""
    before = prlimit(0, "RLIMIT_NOFILE")
    prlimit(0, "RLIMIT_NOFILE", (before[1], before[1]))
    return before


def trim_memory() -> None:
    """Give memory that is free, but held for later, back to the system (malloc_trim(3)); glibc alone has it."""
    with contextlib.suppress(AttributeError):
        libc.malloc_trim(0)


def set_rlimit(name: str, soft: int, hard: int) -> None:
    """Set one limit of this process; -1 and 2^64-1 are both infinity. Raises OSError, KeyError."""
    prlimit(0, name, (soft, hard))


def sethostname(name: str) -> None:
    raw = name.encode()
    if libc.sethostname(raw, len(raw)) < 0:
        raise_errno("sethostname", name)


def setdomainname(name: str) -> None:
    raw = name.encode()
    if libc.setdomainname(raw, len(raw)) < 0:
        raise_errno("setdomainname", name)


TIOCSCTTY = 0x540E
TIOCSWINSZ = 0x5414
TIOCGPTPEER = 0x5441
TIOCSPTLCK = 0x40045431
TIOCGPTN = 0x80045430


def set_window_size(tty_fd: int, height: int, width: int) -> None:
    """Rows and columns of a terminal (ioctl_tty(2), TIOCSWINSZ)."""
    fcntl.ioctl(tty_fd, TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))


KEYCTL_JOIN_SESSION_KEYRING = 1
KEYCTL_SETPERM = 5
KEY_POS_ALL = 0x3F000000
KEY_USR_VIEW_READ_SEARCH_LINK = 0x001B0000


def join_session_keyring(name: str) -> bool:
    """Leave the inherited session keyring for the one called `name`, made if it is not there (keyctl(2)).

    False where the kernel has no keys, or a filter around all of us forbids them: to the container's programs as well.
    """
    try:
        keyring = syscall(SYS.keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.encode(), name="keyctl")
        # Search permission lets a later process of the same user find it by name.
        syscall(SYS.keyctl, KEYCTL_SETPERM, keyring, KEY_POS_ALL | KEY_USR_VIEW_READ_SEARCH_LINK, name="keyctl")
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EPERM):
            return False
        raise
    return True


def open_pty(devpts_fd: int) -> tuple[int, int, int]:
    """A new terminal of the devpts instance behind `devpts_fd` (its root): (master, slave, number).

    The slave is opened from the master (TIOCGPTPEER), not by a path that someone could replace.
    """
    master = os.open("ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=devpts_fd)
    fcntl.ioctl(master, TIOCSPTLCK, struct.pack("i", 0))
    number = struct.unpack("i", fcntl.ioctl(master, TIOCGPTN, struct.pack("i", 0)))[0]
    return master, open_peer(master), number


def open_peer(master: int) -> int:
    """The other side of a pseudoterminal, wherever its devpts is mounted (ioctl_tty(2)). Raises OSError."""
    return fcntl.ioctl(master, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)


def make_controlling_terminal(fd: int) -> None:
    """Start a session whose terminal is `fd` (setsid(2), TIOCSCTTY)."""
    os.setsid()
    fcntl.ioctl(fd, TIOCSCTTY, 0)
