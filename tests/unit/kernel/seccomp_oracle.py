"""What the tests of the seccomp compiler judge by: a classic BPF interpreter, and libseccomp's own filter."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import struct
from collections.abc import Mapping, Sequence
from typing import Any

AUDIT_ARCH = {"X86_64": 0xC000003E, "X32": 0xC000003E, "X86": 0x40000003, "AARCH64": 0xC00000B7, "ARM": 0x40000028}
LIBSECCOMP_ARCH = AUDIT_ARCH | {"X32": 0x4000003E}
X32_BIT = 0x40000000

ACTIONS = {"SCMP_ACT_ALLOW": 0x7FFF0000, "SCMP_ACT_LOG": 0x7FFC0000, "SCMP_ACT_KILL_PROCESS": 0x80000000}
OPERATORS = {
    f"SCMP_CMP_{name}": number for number, name in enumerate(("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"), 1)
}

Program = list[tuple[int, int, int, int]]


def disassemble(bpf: bytes) -> Program:
    return list(struct.iter_unpack("=HBBI", bpf))


def run(program: Program, number: int, arch: int, arguments: Sequence[int] = ()) -> int:
    """The filter's answer for one system call: a classic BPF machine, as far as seccomp uses it."""
    words = [argument & (1 << 64) - 1 for argument in (*arguments, *[0] * (6 - len(arguments)))]
    data = struct.pack("=IIQ6Q", number, arch, 0, *words)
    accumulator = at = 0
    while True:
        code, jt, jf, k = program[at]
        at += 1
        match code:
            case 0x20:
                accumulator = struct.unpack_from("=I", data, k)[0]
            case 0x05:
                at += k
            case 0x15:
                at += jt if accumulator == k else jf
            case 0x25:
                at += jt if accumulator > k else jf
            case 0x35:
                at += jt if accumulator >= k else jf
            case 0x45:
                at += jt if accumulator & k else jf
            case 0x54:
                accumulator &= k
            case 0x06:
                return k
            case _:
                raise AssertionError(f"opcode {code:#x} at {at - 1}")


def evaluate(profile: Mapping[str, Any], name: str, arguments: Sequence[int], bits: int) -> int:
    """What a profile says of one call: an unconditional rule, else the first that fits, else the default."""
    default = _action(profile["defaultAction"], profile.get("defaultErrnoRet", 1))
    width = (1 << bits) - 1
    compare = {
        "NE": lambda have, value, two: have != value & width,
        "LT": lambda have, value, two: have < value & width,
        "LE": lambda have, value, two: have <= value & width,
        "EQ": lambda have, value, two: have == value & width,
        "GE": lambda have, value, two: have >= value & width,
        "GT": lambda have, value, two: have > value & width,
        "MASKED_EQ": lambda have, value, two: have & value == two & value & width,
    }
    rules = [
        rule
        for rule in profile["syscalls"]
        if name in rule["names"] and _action(rule["action"], rule.get("errnoRet", 1)) != default
    ]
    for rule in sorted(rules, key=lambda rule: bool(rule["args"])):
        if all(
            compare[argument["op"].removeprefix("SCMP_CMP_")](
                arguments[argument["index"]] & width, argument["value"], argument["valueTwo"]
            )
            for argument in rule["args"]
        ):
            return _action(rule["action"], rule.get("errnoRet", 1))
    return default


class _Argument(ctypes.Structure):
    """struct scmp_arg_cmp"""

    _fields_ = [
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    ]


class Libseccomp:
    """libseccomp.so.2, as runc uses it. Raises OSError where there is none."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL("libseccomp.so.2")
        self.library.seccomp_init.restype = ctypes.c_void_p

    def knows(self, name: str) -> bool:
        return bool(self.library.seccomp_syscall_resolve_name(name.encode()) != -1)

    def numbers(self, abi: str) -> set[int]:
        """The numbers that it has a name for."""
        resolve = self.library.seccomp_syscall_resolve_num_arch
        resolve.restype = ctypes.c_void_p
        bit = X32_BIT if abi == "X32" else 0
        return {number for number in range(1000) if resolve(ctypes.c_uint32(LIBSECCOMP_ARCH[abi]), number | bit)}

    def compile(self, profile: Mapping[str, Any]) -> Program:
        """libseccomp's filter for an OCI profile whose names it knows."""
        default = _action(profile["defaultAction"], profile.get("defaultErrnoRet", 1))
        context = ctypes.c_void_p(self.library.seccomp_init(ctypes.c_uint32(default)))
        for architecture in profile["architectures"]:
            token = ctypes.c_uint32(LIBSECCOMP_ARCH[architecture.removeprefix("SCMP_ARCH_")])
            assert self.library.seccomp_arch_add(context, token) in {0, -17}  # EEXIST: the native one
        for rule in profile["syscalls"]:
            action = _action(rule["action"], rule.get("errnoRet", 1))
            if action == default:
                continue
            arguments = [
                _Argument(a["index"], OPERATORS[a["op"]], a["value"], a.get("valueTwo", 0))
                for a in rule.get("args", ())
            ]
            alternatives = [arguments]
            if len({argument.arg for argument in arguments}) < len(arguments):
                alternatives = [[argument] for argument in arguments]  # as runc does
            for name in rule["names"]:
                number = self.library.seccomp_syscall_resolve_name(name.encode())
                for chosen in alternatives:
                    array = (_Argument * len(chosen))(*chosen)
                    result = self.library.seccomp_rule_add_array(
                        context, ctypes.c_uint32(action), number, len(chosen), array
                    )
                    assert result == 0, (name, result)
        fd = os.memfd_create("bpf")
        try:
            assert self.library.seccomp_export_bpf(context, fd) == 0
            return disassemble(os.pread(fd, 1 << 20, 0))
        finally:
            os.close(fd)
            self.library.seccomp_release(context)


def _action(name: str, errno: int) -> int:
    return 0x00050000 | errno if name == "SCMP_ACT_ERRNO" else ACTIONS[name]
