"""How the kernel schedules this process: sched_setattr(2), ioprio_set(2), personality(2), CPU affinity.

Names are runtime-spec's, which are the kernel's.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Mapping
from typing import Any

from pier.kernel.syscalls import SYS, libc, raise_errno, syscall

POLICIES = {
    "SCHED_OTHER": 0,
    "SCHED_FIFO": 1,
    "SCHED_RR": 2,
    "SCHED_BATCH": 3,
    "SCHED_ISO": 4,
    "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}
SCHED_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01,
    "SCHED_FLAG_RECLAIM": 0x02,
    "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}
IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
_IOPRIO_CLASS_SHIFT = 13
_IOPRIO_WHO_PROCESS = 1

PERSONALITIES = {"LINUX": 0x0000, "LINUX32": 0x0008}

_SYS_SCHED_SETATTR = 274 if os.uname().machine == "aarch64" else 314


class sched_attr(ctypes.Structure):
    """linux/sched/types.h, SCHED_ATTR_SIZE_VER0"""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("sched_policy", ctypes.c_uint32),
        ("sched_flags", ctypes.c_uint64),
        ("sched_nice", ctypes.c_int32),
        ("sched_priority", ctypes.c_uint32),
        ("sched_runtime", ctypes.c_uint64),
        ("sched_deadline", ctypes.c_uint64),
        ("sched_period", ctypes.c_uint64),
    )


def set_scheduler(scheduler: Mapping[str, Any]) -> None:
    """Apply OCI's `process.scheduler` (times in nanoseconds). Raises OSError, KeyError for an unknown word."""
    attr = sched_attr(
        size=ctypes.sizeof(sched_attr),
        sched_policy=POLICIES[scheduler["policy"]],
        sched_flags=sum({SCHED_FLAGS[flag] for flag in scheduler.get("flags", [])}),
        sched_nice=scheduler.get("nice", 0),
        sched_priority=scheduler.get("priority", 0),
        sched_runtime=scheduler.get("runtime", 0),
        sched_deadline=scheduler.get("deadline", 0),
        sched_period=scheduler.get("period", 0),
    )
    syscall(_SYS_SCHED_SETATTR, 0, ctypes.byref(attr), 0, name=f"sched_setattr {scheduler['policy']}")


def set_io_priority(priority: Mapping[str, Any]) -> None:
    """Apply OCI's `process.ioPriority`. Raises OSError, KeyError for an unknown class."""
    value = IO_CLASSES[priority["class"]] << _IOPRIO_CLASS_SHIFT | priority.get("priority", 0)
    syscall(SYS.ioprio_set, _IOPRIO_WHO_PROCESS, 0, value, name=f"ioprio_set {priority['class']}")


def set_personality(domain: str) -> None:
    """Apply OCI's `linux.personality.domain`. Raises OSError, KeyError for an unknown one."""
    if libc.personality(ctypes.c_ulong(PERSONALITIES[domain])) < 0:
        raise_errno("personality", domain)


def parse_cpus(text: str) -> set[int]:
    """`0-3,7` (cpuset(7), "List format") as numbers. Raises ValueError."""
    cpus: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        low, high = int(first), int(last if dash else first)
        if not 0 <= low <= high < 65536:
            raise ValueError(f"{part!r} is no range of CPUs")
        cpus.update(range(low, high + 1))
    return cpus


def set_affinity(text: str) -> None:
    """Let this process run on the listed CPUs only. Raises OSError, ValueError."""
    try:
        os.sched_setaffinity(0, parse_cpus(text))
    except OSError as error:
        raise OSError(error.errno or errno.EINVAL, f"sched_setaffinity {text}: {error.strerror}") from error
