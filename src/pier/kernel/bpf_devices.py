"""Which devices a cgroup's tasks may open and make: OCI device rules as v1 writes or as a v2 BPF program.

The last rule that names a device decides, for each of the accesses `r`, `w` and `m` (mknod) on its own; without a rule
nothing is allowed (runtime-spec, config-linux.md, "Device allowlist"). On cgroup v1 the rules are lines written to
`devices.allow` and `devices.deny`; on v2 they are a BPF_PROG_TYPE_CGROUP_DEVICE program on the cgroup's directory.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from pier.errors import InvalidParameter
from pier.kernel.syscalls import SYS, syscall

BPF_PROG_LOAD = 5
BPF_PROG_ATTACH = 8
BPF_PROG_DETACH = 9
BPF_PROG_GET_FD_BY_ID = 13
BPF_PROG_QUERY = 16
BPF_PROG_TYPE_CGROUP_DEVICE = 15
BPF_CGROUP_DEVICE = 6
BPF_F_ALLOW_MULTI = 1 << 1

BPF_DEVCG_DEV_BLOCK = 1
BPF_DEVCG_DEV_CHAR = 2
BPF_DEVCG_ACC_MKNOD = 1
BPF_DEVCG_ACC_READ = 2
BPF_DEVCG_ACC_WRITE = 4

_TYPES = {"b": BPF_DEVCG_DEV_BLOCK, "c": BPF_DEVCG_DEV_CHAR}
_ACCESSES = {"m": BPF_DEVCG_ACC_MKNOD, "r": BPF_DEVCG_ACC_READ, "w": BPF_DEVCG_ACC_WRITE}
_ALL = BPF_DEVCG_ACC_MKNOD | BPF_DEVCG_ACC_READ | BPF_DEVCG_ACC_WRITE


class BadDeviceRule(InvalidParameter):
    """device rule {rule!r}: {reason}"""


class DeviceRule(NamedTuple):
    """One entry of OCI's `linux.resources.devices`."""

    allow: bool
    type: str = "a"
    """`c`, `b`, or `a` for both."""
    major: int | None = None
    """None: any."""
    minor: int | None = None
    access: int = _ALL
    """BPF_DEVCG_ACC_* bits."""

    @property
    def line(self) -> str:
        """As `devices.allow` and `devices.deny` read it: `c 1:3 rwm`."""
        access = "".join(letter for letter in "rwm" if self.access & _ACCESSES[letter])
        return f"{self.type} {_number(self.major)}:{_number(self.minor)} {access}"

    @property
    def names_everything(self) -> bool:
        return self[1:] == ("a", None, None, _ALL)


DEFAULT_RULES = (
    DeviceRule(True, "c", None, None, BPF_DEVCG_ACC_MKNOD),
    DeviceRule(True, "b", None, None, BPF_DEVCG_ACC_MKNOD),
    DeviceRule(True, "c", 1, 3),  # null
    DeviceRule(True, "c", 1, 5),  # zero
    DeviceRule(True, "c", 1, 7),  # full
    DeviceRule(True, "c", 1, 8),  # random
    DeviceRule(True, "c", 1, 9),  # urandom
    DeviceRule(True, "c", 5, 0),  # tty
    DeviceRule(True, "c", 5, 2),  # ptmx
    DeviceRule(True, "c", 136, None),  # pts/*
)
"""What every container may do whatever its rules say (config-linux.md, "Default Devices")."""


def parse(devices: Iterable[Mapping[str, Any]]) -> list[DeviceRule]:
    """Read OCI's `linux.resources.devices`. Raises BadDeviceRule."""
    return [_parse(rule, f"devices[{index}]") for index, rule in enumerate(devices)]


def _parse(rule: Mapping[str, Any], field: str) -> DeviceRule:
    kind = rule.get("type") or "a"
    if kind not in {"a", "b", "c"}:
        raise BadDeviceRule(rule=rule, reason=f"type {kind!r} is none of a, b, c", field=f"{field}.type")
    access = 0
    for letter in rule.get("access") or "rwm":
        if letter not in _ACCESSES:
            raise BadDeviceRule(rule=rule, reason=f"access {letter!r} is none of r, w, m", field=f"{field}.access")
        access |= _ACCESSES[letter]
    major, minor = rule.get("major"), rule.get("minor")
    return DeviceRule(bool(rule.get("allow")), kind, _wildcard(major), _wildcard(minor), access)


def _wildcard(number: int | None) -> int | None:
    return None if number is None or number < 0 else number


def _number(number: int | None) -> str:
    return "*" if number is None else str(number)


def fold(rules: Sequence[DeviceRule]) -> tuple[bool, list[DeviceRule]]:
    """The same policy in fewer rules: whether devices are allowed by default, and the rules that differ from it.

    A rule for everything makes those before it moot; of equal rules only the last says anything. Any other rule of type
    `a` becomes two, for `b` and `c`: cgroup v1 takes a line that begins with `a` for everything, whatever follows.
    """
    allowed = False
    rest: dict[DeviceRule, None] = {}
    for rule in rules:
        if rule.names_everything:
            allowed = rule.allow
            rest = {}
            continue
        for exact in (rule,) if rule.type != "a" else (rule._replace(type="b"), rule._replace(type="c")):
            rest.pop(exact, None)
            rest[exact] = None
    return allowed, [] if all(rule.allow == allowed for rule in rest) else list(rest)


def v1_writes(rules: Sequence[DeviceRule]) -> list[tuple[str, str]]:
    """(file, line) pairs for a cgroup v1 `devices` directory, in order."""
    allowed, rest = fold(rules)
    first = ("devices.allow" if allowed else "devices.deny", DeviceRule(allowed).line)
    return [first, *(("devices.allow" if rule.allow else "devices.deny", rule.line) for rule in rest)]


# --- the BPF program -------------------------------------------------------------------------------------------------

_R0, _R1, _TYPE, _WANTED, _MAJOR, _MINOR = range(6)
"""Registers: the answer, the context, then what the program keeps in r2 to r5."""

_LDXW, _MOV, _MOVX, _AND, _RSH, _JA, _JNE, _JSET, _EXIT = 0x61, 0xB7, 0xBF, 0x57, 0x77, 0x05, 0x55, 0x45, 0x95
_INSTRUCTION = struct.Struct("=BBhi")  # struct bpf_insn: code, src:4 dst:4, off, imm


def program(rules: Sequence[DeviceRule]) -> bytes:
    """An array of `struct bpf_insn` that answers 1 (allowed) or 0 for a `struct bpf_cgroup_dev_ctx`.

    Rules are tried from the last to the first; an allow rule strikes the accesses it grants from those still wanted and
    answers when none is left, a deny rule answers as soon as it names one of them.
    """
    allowed, rest = fold(rules)
    code = [
        _insn(_LDXW, _TYPE, _R1, offset=0),  # access_type: access << 16 | type
        _insn(_MOVX, _WANTED, _TYPE),
        _insn(_RSH, _WANTED, value=16),
        _insn(_AND, _TYPE, value=0xFFFF),
        _insn(_LDXW, _MAJOR, _R1, offset=4),
        _insn(_LDXW, _MINOR, _R1, offset=8),
    ]
    for rule in reversed(rest):
        code += _rule_code(rule)
    code += _answer(allowed)
    return b"".join(code)


def _rule_code(rule: DeviceRule) -> list[bytes]:
    if rule.allow:
        deed = [
            _insn(_AND, _WANTED, value=~rule.access & _ALL),
            _insn(_JNE, _WANTED, value=0, offset=2),
            *_answer(True),
        ]
    else:
        deed = [
            _insn(_JSET, _WANTED, value=rule.access, offset=1),
            _insn(_JA, offset=2),
            *_answer(False),
        ]
    tests = [(_TYPE, _TYPES[rule.type]), (_MAJOR, rule.major), (_MINOR, rule.minor)]
    for register, value in reversed(tests):
        if value is not None:
            deed.insert(0, _insn(_JNE, register, value=value, offset=len(deed)))
    return deed


def _answer(allowed: bool) -> list[bytes]:
    return [_insn(_MOV, _R0, value=int(allowed)), _insn(_EXIT)]


def _insn(code: int, destination: int = 0, source: int = 0, *, offset: int = 0, value: int = 0) -> bytes:
    return _INSTRUCTION.pack(code, source << 4 | destination, offset, value)


def attach(cgroup_fd: int, rules: Sequence[DeviceRule]) -> None:
    """Make `rules` the device policy of a cgroup v2 directory, in place of an earlier one of ours.

    The new program is attached before the old ones go, so at no moment is more allowed than before or after; while
    both are there a device must be allowed by both. Raises OSError.
    """
    before = _attached(cgroup_fd)
    if fold(rules) != (True, []):
        fd = _load(program(rules))
        try:
            _bpf(BPF_PROG_ATTACH, struct.pack("=IIII", cgroup_fd, fd, BPF_CGROUP_DEVICE, BPF_F_ALLOW_MULTI))
        finally:
            os.close(fd)
    for program_id in before:
        fd = _bpf(BPF_PROG_GET_FD_BY_ID, struct.pack("=III", program_id, 0, 0))
        try:
            _bpf(BPF_PROG_DETACH, struct.pack("=III", cgroup_fd, fd, BPF_CGROUP_DEVICE))
        finally:
            os.close(fd)


def _attached(cgroup_fd: int) -> list[int]:
    """Ids of the device programs attached to this very cgroup (not to those above it)."""
    ids = (ctypes.c_uint32 * 64)()
    query = bytearray(struct.pack("=IIIIQI", cgroup_fd, BPF_CGROUP_DEVICE, 0, 0, ctypes.addressof(ids), 64))
    answer = (ctypes.c_char * len(query)).from_buffer(query)
    try:
        syscall(SYS.bpf, BPF_PROG_QUERY, ctypes.byref(answer), len(query), name="bpf(BPF_PROG_QUERY)")
    except OSError as error:
        if error.errno == errno.EINVAL:  # Linux before 4.17 cannot tell
            return []
        raise
    count = struct.unpack_from("=I", query, 24)[0]
    return list(ids[:count])


def _load(code: bytes) -> int:
    """Load a program; returns its descriptor. Raises OSError."""
    instructions = ctypes.create_string_buffer(code, len(code))
    licence = ctypes.create_string_buffer(b"Apache-2.0")
    return _bpf(
        BPF_PROG_LOAD,
        struct.pack(
            "=IIQQIIQII",
            BPF_PROG_TYPE_CGROUP_DEVICE,
            len(code) // _INSTRUCTION.size,
            ctypes.addressof(instructions),
            ctypes.addressof(licence),
            0,  # log_level
            0,  # log_size
            0,  # log_buf
            0,  # kern_version
            0,  # prog_flags
        ),
    )


_COMMANDS = {
    BPF_PROG_LOAD: "BPF_PROG_LOAD",
    BPF_PROG_ATTACH: "BPF_PROG_ATTACH",
    BPF_PROG_DETACH: "BPF_PROG_DETACH",
    BPF_PROG_GET_FD_BY_ID: "BPF_PROG_GET_FD_BY_ID",
}


def _bpf(command: int, attributes: bytes) -> int:
    """bpf(2) with a `union bpf_attr` of exactly these bytes."""
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    return syscall(SYS.bpf, command, ctypes.byref(buffer), len(attributes), name=f"bpf({_COMMANDS[command]})")
