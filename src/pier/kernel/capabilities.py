"""Capabilities (capabilities(7)): names, numbers, and the two steps that take them from a process.

A set is an int used as a bit mask, bit n being capability number n, as in `/proc/<pid>/status`. A container's init
first gives up what the bounding set must not hold (that takes CAP_SETPCAP, so before setuid), keeps its capabilities
across setuid, and last puts its final sets in place:

    drop_bounding(sets.bounding); keep_across_setuid(True); setuid(…); apply(sets)
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from pier.errors import InvalidParameter
from pier.kernel.syscalls import SYS, libc, raise_errno, syscall

NAMES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
)
"""Every capability up to Linux 6.x; the index is the number (linux/capability.h)."""

NUMBERS = {name: number for number, name in enumerate(NAMES)}

PR_SET_KEEPCAPS = 8
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_CLEAR_ALL = 4

_LINUX_CAPABILITY_VERSION_3 = 0x20080522


class UnknownCapability(InvalidParameter):
    """unknown capability: "{name}\""""

    remedy = "capabilities are named as in capabilities(7), with or without CAP_, or ALL"


@dataclass(frozen=True, slots=True)
class CapabilitySets:
    """The five sets of a process, as bit masks."""

    bounding: int = 0
    effective: int = 0
    permitted: int = 0
    inheritable: int = 0
    ambient: int = 0

    @classmethod
    def from_oci(cls, capabilities: Mapping[str, Sequence[str]]) -> CapabilitySets:
        """Read OCI's `process.capabilities`; raises UnknownCapability.

        A capability that Pier knows and the running kernel does not is left out, as runc does: an image or a compose
        file written on a newer kernel still runs, with less.
        """
        supported = (1 << (last_cap() + 1)) - 1
        return cls(
            **{
                name: mask(capabilities.get(name) or ()) & supported
                for name in ("bounding", "effective", "permitted", "inheritable", "ambient")
            }
        )


def parse(name: str) -> str:
    """The name as the kernel writes it: `net_raw` -> `CAP_NET_RAW`; `ALL` stays. Raises UnknownCapability."""
    upper = name.strip().upper()
    if upper in {"ALL", "CAP_ALL"}:
        return "ALL"
    full = upper if upper.startswith("CAP_") else "CAP_" + upper
    if full not in NUMBERS:
        raise UnknownCapability(name=name)
    return full


def mask(names: Iterable[str]) -> int:
    """Bit mask of capability names; `ALL` is every capability of the running kernel. Raises UnknownCapability."""
    bits = 0
    for name in names:
        # The names of a runtime configuration are exact nearly always: parse only what is not.
        number = NUMBERS.get(name)
        if number is not None:
            bits |= 1 << number
        elif (full := parse(name)) == "ALL":
            bits |= (1 << (last_cap() + 1)) - 1
        else:
            bits |= 1 << NUMBERS[full]
    return bits


def names(bits: int) -> list[str]:
    """The names in a mask, by number; capabilities newer than this module are left out."""
    return [name for number, name in enumerate(NAMES) if bits >> number & 1]


@cache
def last_cap() -> int:
    """Number of the running kernel's highest capability.

    Asked by prctl and not of /proc, which in a container's init may be the container's own. Call it once before fork.
    """
    number = 0
    while number < 63 and libc.prctl(PR_CAPBSET_READ, ctypes.c_ulong(number + 1), 0, 0, 0) >= 0:
        number += 1
    return number


def drop_bounding(keep: int) -> None:
    """Take every capability outside `keep` from the bounding set, for good. Needs CAP_SETPCAP."""
    for number in range(last_cap() + 1):
        if keep >> number & 1 or libc.prctl(PR_CAPBSET_DROP, ctypes.c_ulong(number), 0, 0, 0) == 0:
            continue
        code = ctypes.get_errno()
        if libc.prctl(PR_CAPBSET_READ, ctypes.c_ulong(number), 0, 0, 0) != 0:
            raise_errno("prctl(PR_CAPBSET_DROP)", NAMES[number] if number < len(NAMES) else number, number=code)


def keep_across_setuid(keep: bool) -> None:
    """Set or clear PR_SET_KEEPCAPS: whether the permitted set survives setuid to a user that is not root."""
    if libc.prctl(PR_SET_KEEPCAPS, ctypes.c_ulong(keep), 0, 0, 0) < 0:
        raise_errno("prctl(PR_SET_KEEPCAPS)", keep)


def apply(sets: CapabilitySets) -> None:
    """Put the effective, permitted, inheritable and ambient sets in place. The bounding set is drop_bounding's.

    Clears PR_SET_KEEPCAPS. Raises OSError (EPERM) for a set that holds more than the process may have; a capability
    can be ambient only where it is permitted and inheritable too.
    """
    keep_across_setuid(False)
    capset(effective=sets.effective, permitted=sets.permitted, inheritable=sets.inheritable)
    # EINVAL: Linux before 4.3 has no ambient set, so there is nothing to clear.
    libc.prctl(PR_CAP_AMBIENT, ctypes.c_ulong(PR_CAP_AMBIENT_CLEAR_ALL), 0, 0, 0)
    for number in range(sets.ambient.bit_length()):
        if sets.ambient >> number & 1:
            arguments = ctypes.c_ulong(PR_CAP_AMBIENT_RAISE), ctypes.c_ulong(number)
            if libc.prctl(PR_CAP_AMBIENT, *arguments, 0, 0) < 0:
                raise_errno("prctl(PR_CAP_AMBIENT_RAISE)", NAMES[number] if number < len(NAMES) else number)


_HEADER = struct.Struct("=Ii")  # struct __user_cap_header_struct: version, pid
_DATA = struct.Struct("=6I")  # two struct __user_cap_data_struct: effective, permitted, inheritable; low halves first
_LOW = 0xFFFFFFFF


def capset(*, effective: int, permitted: int, inheritable: int) -> None:
    """Set three sets of the calling thread (capset(2)). Raises OSError."""
    sets = effective, permitted, inheritable
    data = _DATA.pack(*(bits & _LOW for bits in sets), *(bits >> 32 for bits in sets))
    syscall(SYS.capset, _HEADER.pack(_LINUX_CAPABILITY_VERSION_3, 0), data, name="capset")


def capget(pid: int = 0) -> CapabilitySets:
    """Effective, permitted and inheritable set of a process, 0 being the caller (capget(2)).

    For the caller the bounding and ambient sets are filled in too; the kernel tells them of no one else.
    """
    data = ctypes.create_string_buffer(_DATA.size)
    syscall(SYS.capget, _HEADER.pack(_LINUX_CAPABILITY_VERSION_3, pid), data, name="capget")
    halves = _DATA.unpack(data.raw)
    effective, permitted, inheritable = (low | high << 32 for low, high in zip(halves[:3], halves[3:], strict=True))
    bounding = ambient = 0
    if pid == 0:
        bounding = _probe(PR_CAPBSET_READ)
        ambient = _probe(PR_CAP_AMBIENT, 1)  # PR_CAP_AMBIENT_IS_SET
    return CapabilitySets(
        bounding=bounding,
        effective=effective,
        permitted=permitted,
        inheritable=inheritable,
        ambient=ambient,
    )


def _probe(option: int, *arguments: int) -> int:
    """Mask of the capabilities for which prctl(option, *arguments, number) answers 1."""
    words = [ctypes.c_ulong(argument) for argument in arguments]
    rest = [0] * (3 - len(words))
    return sum(
        1 << number
        for number in range(last_cap() + 1)
        if libc.prctl(option, *words, ctypes.c_ulong(number), *rest) == 1
    )
