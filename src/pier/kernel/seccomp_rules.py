"""A seccomp profile read into rules, and the ABIs it speaks of (runtime-spec config-linux.md, "Seccomp")."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from pier.kernel.seccomp import BadProfile
from pier.kernel.seccomp_numbers import TEXTS

SECCOMP_RET_KILL_PROCESS = 0x80000000
SECCOMP_RET_KILL_THREAD = 0x00000000
SECCOMP_RET_TRAP = 0x00030000
SECCOMP_RET_ERRNO = 0x00050000
SECCOMP_RET_USER_NOTIF = 0x7FC00000
SECCOMP_RET_TRACE = 0x7FF00000
SECCOMP_RET_LOG = 0x7FFC0000
SECCOMP_RET_ALLOW = 0x7FFF0000

EPERM, ENOSYS, MAX_ERRNO = 1, 38, 4095
X32_SYSCALL_BIT = 0x40000000

ACTIONS = {
    "SCMP_ACT_KILL": SECCOMP_RET_KILL_THREAD,
    "SCMP_ACT_KILL_THREAD": SECCOMP_RET_KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": SECCOMP_RET_KILL_PROCESS,
    "SCMP_ACT_TRAP": SECCOMP_RET_TRAP,
    "SCMP_ACT_ERRNO": SECCOMP_RET_ERRNO,
    "SCMP_ACT_TRACE": SECCOMP_RET_TRACE,
    "SCMP_ACT_ALLOW": SECCOMP_RET_ALLOW,
    "SCMP_ACT_LOG": SECCOMP_RET_LOG,
    "SCMP_ACT_NOTIFY": SECCOMP_RET_USER_NOTIF,
}
PERMISSIVE = {SECCOMP_RET_ALLOW, SECCOMP_RET_LOG, SECCOMP_RET_TRACE}
"""Default actions under which a new system call is not answered with ENOSYS: a tracer answers for itself."""

OPERATORS = {
    "SCMP_CMP_NE",
    "SCMP_CMP_LT",
    "SCMP_CMP_LE",
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_MASKED_EQ",
}


class Abi(NamedTuple):
    """One way into the kernel."""

    name: str
    audit_arch: int
    bits: int
    """Width of an argument that is compared: 64, or 32 for the low half."""
    offset: int = 0
    """Added to the table's numbers."""


ABIS = {
    abi.name: abi
    for abi in (
        Abi("X86_64", 0xC000003E, 64),
        Abi("X32", 0xC000003E, 32, X32_SYSCALL_BIT),
        Abi("X86", 0x40000003, 32),
        Abi("AARCH64", 0xC00000B7, 64),
        Abi("ARM", 0x40000028, 32),
    )
}
_NATIVE = {"x86_64": "X86_64", "aarch64": "AARCH64", "armv7l": "ARM", "i686": "X86"}
"""Machine names of uname(2)."""
_FOREIGN = set(
    "LOONGARCH64 M68K MIPS MIPS64 MIPS64N32 MIPSEL MIPSEL64 MIPSEL64N32 PARISC PARISC64 PPC PPC64 PPC64LE "
    "RISCV64 S390 S390X SH SHEB".split()
)
"""Architectures of the specification without a table here: no machine that Pier runs on can enter by them."""
ARCHITECTURES = frozenset(ABIS) | _FOREIGN
"""What a profile may list, without `SCMP_ARCH_`."""

_SOCKETCALLS = (
    "socket bind connect listen accept getsockname getpeername socketpair send recv sendto recvfrom shutdown "
    "setsockopt getsockopt sendmsg recvmsg accept4 recvmmsg sendmmsg"
).split()
MULTIPLEXED = {name: ("socketcall", number) for number, name in enumerate(_SOCKETCALLS, 1)} | {
    name: ("ipc", number)
    for name, number in {
        "semop": 1,
        "semget": 2,
        "semctl": 3,
        "semtimedop": 4,
        "msgsnd": 11,
        "msgrcv": 12,
        "msgget": 13,
        "msgctl": 14,
        "shmat": 21,
        "shmdt": 22,
        "shmget": 23,
        "shmctl": 24,
    }.items()
}
"""i386: name -> the call that carries it, and its number there (linux/net.h, linux/ipc.h)."""


class Condition(NamedTuple):
    """One comparison of an argument, all values unsigned."""

    argument: int
    """0 to 5."""
    op: str
    value: int
    """The mask for SCMP_CMP_MASKED_EQ."""
    value_two: int = 0
    """What the masked argument must equal."""


class Rule(NamedTuple):
    """One answer for some system calls, given when all conditions hold."""

    names: tuple[str, ...]
    answer: int
    """SECCOMP_RET_* with its data."""
    conditions: tuple[Condition, ...] = ()


def abis_of(architectures: Sequence[str], machine: str) -> list[Abi]:
    """The machine's own ABI and those that the profile lists, in the order of their numbers."""
    if machine not in _NATIVE:
        raise BadProfile(reason=f"no table of system calls for {machine}")
    chosen = {_NATIVE[machine]}
    for index, architecture in enumerate(architectures):
        name = architecture.removeprefix("SCMP_ARCH_")
        if name in ABIS:
            chosen.add(name)
        elif name not in _FOREIGN:
            raise BadProfile(reason=f"unknown architecture {architecture!r}", field=f"architectures[{index}]")
    return sorted((ABIS[name] for name in chosen), key=lambda abi: abi.offset)


def answer_of(entry: Mapping[str, Any], key: str, errno_key: str, path: str = "") -> int:
    """SECCOMP_RET_* with its data. Raises BadProfile, with `path` before the fields' names."""
    action = entry.get(key)
    if not isinstance(action, str) or action not in ACTIONS:
        raise BadProfile(reason=f"unknown {key} {action!r}", field=path + key)
    code = ACTIONS[action]
    if code not in {SECCOMP_RET_ERRNO, SECCOMP_RET_TRACE}:
        return code
    number = entry.get(errno_key)
    if number is None:
        number = EPERM
    if not isinstance(number, int) or not 0 <= number <= MAX_ERRNO:
        raise BadProfile(reason=f"{errno_key} {number!r} is no errno", field=path + errno_key)
    return code | number


def parse_rule(entry: Mapping[str, Any], path: str = "") -> Iterator[Rule]:
    """One entry of `syscalls`; more than one rule where an argument has several conditions.

    Raises BadProfile, with `path` before the fields' names.
    """
    names = tuple(entry.get("names") or ())
    if not names:
        raise BadProfile(reason="a rule without names", field=f"{path}names")
    answer = answer_of(entry, "action", "errnoRet", path)
    arguments = enumerate(entry.get("args") or ())
    conditions = tuple(_condition(argument, f"{path}args[{index}]") for index, argument in arguments)
    if len({condition.argument for condition in conditions}) == len(conditions):
        yield Rule(names, answer, conditions)
    else:
        for condition in conditions:
            yield Rule(names, answer, (condition,))


def _condition(argument: Mapping[str, Any], path: str) -> Condition:
    index, op = argument.get("index", 0), argument.get("op")
    values = [argument.get(key) or 0 for key in ("value", "valueTwo")]
    if not isinstance(op, str) or op not in OPERATORS:
        raise BadProfile(reason=f"unknown operator {op!r}", field=f"{path}.op")
    if not isinstance(index, int) or not 0 <= index <= 5:
        raise BadProfile(reason=f"argument index {index!r} is not 0 to 5", field=f"{path}.index")
    if not all(isinstance(value, int) and 0 <= value < 1 << 64 for value in values):
        raise BadProfile(reason=f"argument values {values!r} are not unsigned 64-bit numbers", field=f"{path}.value")
    return Condition(index, op, *values)


@cache
def numbers(abi_name: str) -> dict[str, int]:
    """System call numbers of an ABI, without its offset."""
    table = {}
    number = 0
    for word in TEXTS[abi_name].split():
        if word.isdecimal():
            number = int(word)
        else:
            table[word] = number
            number += 1
    return table
