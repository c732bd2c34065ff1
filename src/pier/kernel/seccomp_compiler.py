"""Compile OCI's `linux.seccomp` into a classic BPF filter: a binary search over ranges of system call numbers.

The filter first tells the architecture (`AUDIT_ARCH_*`), then finds the number's range in about log2(ranges) jumps; a
range has an answer or, where the profile looks at arguments, a list of rules. What it decides is what runc and
libseccomp decide for the same profile (runtime-spec config-linux.md "Seccomp"; seccomp_rule_add(3)):

- of the rules for one system call an unconditional one wins over those with arguments; else the first that fits wins;
- several conditions on one argument of one rule are alternatives, those on different arguments all must hold;
- on 32-bit ABIs (i386, x32, arm) only the low half of an argument is compared;
- a name that an ABI does not have is passed over; an architecture the profile does not list kills the thread;
- a number above the highest that the profile names answers ENOSYS, not the default error, so that a C library falls
  back from system calls newer than the profile.

Unlike libseccomp, i386's multiplexers `socketcall` and `ipc` are opened by an unconditional rule for a call that they
carry and never by one with arguments, which could not be checked there.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pier.kernel.seccomp import BPF_MAXINSNS, BadProfile
from pier.kernel.seccomp_rules import (
    ABIS,
    ENOSYS,
    MULTIPLEXED,
    PERMISSIVE,
    SECCOMP_RET_ERRNO,
    SECCOMP_RET_KILL_THREAD,
    X32_SYSCALL_BIT,
    Abi,
    Condition,
    Rule,
    abis_of,
    answer_of,
    numbers,
    parse_rule,
)

ARM_PRIVATE = 0xF0000
"""First number of arm's own calls (`set_tls`, …), far above the others."""
NUMBERS_END = 1 << 32


class Decision(NamedTuple):
    """The answer for a range of numbers: that of the first alternative that holds, else `answer`."""

    answer: int
    alternatives: tuple[tuple[tuple[Condition, ...], int], ...] = ()
    bits: int = 64


class Instruction(NamedTuple):
    """struct sock_filter"""

    code: int
    jt: int
    jf: int
    k: int


def compile_profile(profile: Mapping[str, Any], machine: str | None = None) -> bytes:
    """An array of `struct sock_filter` for OCI's `linux.seccomp` on `machine` (uname's word; None: this one).

    Raises BadProfile.
    """
    default = answer_of(profile, "defaultAction", "defaultErrnoRet")
    entries = enumerate(profile.get("syscalls") or ())
    rules = [rule for index, entry in entries for rule in parse_rule(entry, f"syscalls[{index}].")]
    blocks: dict[int, list[tuple[int, Decision]]] = {}
    abis = abis_of(profile.get("architectures") or (), machine or os.uname().machine)
    for abi in abis:
        blocks.setdefault(abi.audit_arch, []).extend(ranges(rules, default, abi))
    if ABIS["X86_64"] in abis and ABIS["X32"] not in abis:
        blocks[ABIS["X86_64"].audit_arch] += _without_x32(default)
    program = assemble(blocks)
    if len(program) > BPF_MAXINSNS:
        raise BadProfile(reason=f"compiles to {len(program)} instructions, the kernel takes {BPF_MAXINSNS}")
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


# --- deciding --------------------------------------------------------------------------------------------------------


def ranges(rules: Sequence[Rule], default: int, abi: Abi) -> list[tuple[int, Decision]]:
    """(first number, decision) in order: each holds up to the next one's first number, and all numbers are covered."""
    decisions = _decisions(rules, default, abi)
    table = numbers(abi.name)
    named = {table[name] for rule in rules for name in rule.names if name in table} | decisions.keys()
    fallback = Decision(default)
    beyond = fallback
    if named and default & 0xFFFF0000 not in PERMISSIVE:
        beyond = Decision(SECCOMP_RET_ERRNO | ENOSYS)

    result: list[tuple[int, Decision]] = []

    def cover(first: int, end: int, decision: Decision) -> None:
        if first < end and (not result or result[-1][1] != decision):
            result.append((first + abi.offset, decision))

    # The ordinary numbers, then arm's private ones, each up to the highest that the profile names.
    for first, end in ((0, ARM_PRIVATE), (ARM_PRIVATE, NUMBERS_END - abi.offset)):
        here = [number for number in sorted(named) if first <= number < end]
        at = first
        for number in here:
            cover(at, number, fallback)
            cover(number, number + 1, decisions.get(number, fallback))
            at = number + 1
        cover(at, end, beyond)
    return result


def _without_x32(default: int) -> list[tuple[int, Decision]]:
    """x32's numbers are those of an architecture that is not listed; -1 is what a tracer leaves of a skipped call."""
    return [(X32_SYSCALL_BIT, Decision(SECCOMP_RET_KILL_THREAD)), (NUMBERS_END - 1, Decision(default))]


def _decisions(rules: Sequence[Rule], default: int, abi: Abi) -> dict[int, Decision]:
    """What the rules say of each number that they name."""
    table = numbers(abi.name)
    fixed: dict[int, int] = {}
    alternatives: dict[int, list[tuple[tuple[Condition, ...], int]]] = {}
    for rule in rules:
        if rule.answer == default:
            continue
        for name in rule.names:
            for number, conditions in _entries(name, rule.conditions, abi, table):
                if conditions:
                    alternatives.setdefault(number, []).append((conditions, rule.answer))
                else:
                    fixed.setdefault(number, rule.answer)
    conditional = {number: Decision(default, tuple(rows), abi.bits) for number, rows in alternatives.items()}
    return conditional | {number: Decision(answer) for number, answer in fixed.items()}


def _entries(
    name: str, conditions: tuple[Condition, ...], abi: Abi, table: Mapping[str, int]
) -> Iterator[tuple[int, tuple[Condition, ...]]]:
    """Where an ABI has a call: its own number, and on i386 the multiplexer that carries it."""
    if name in table:
        yield table[name], conditions
    if abi.name == "X86" and name in MULTIPLEXED and not conditions:
        carrier, call = MULTIPLEXED[name]
        yield table[carrier], (Condition(0, "SCMP_CMP_EQ", call),)


# --- assembling ------------------------------------------------------------------------------------------------------

LD_ABS, JA, JEQ, JGT, JGE, AND, RET = 0x20, 0x05, 0x15, 0x25, 0x35, 0x54, 0x06
_NR, _ARCH, _ARGS = 0, 4, 16
"""Offsets in struct seccomp_data (both ABIs are little-endian: an argument's low half comes first)."""
_FAR = 255
"""The longest conditional jump."""

Code = list[Instruction]


def assemble(blocks: Mapping[int, Sequence[tuple[int, Decision]]]) -> Code:
    """The filter for {AUDIT_ARCH_*: ranges}."""
    code = [Instruction(LD_ABS, 0, 0, _ARCH)]
    for audit_arch, block in blocks.items():
        body = [Instruction(LD_ABS, 0, 0, _NR), *_search(block)]
        code += [Instruction(JEQ, 1, 0, audit_arch), Instruction(JA, 0, 0, len(body)), *body]
    return [*code, Instruction(RET, 0, 0, SECCOMP_RET_KILL_THREAD)]


def _search(block: Sequence[tuple[int, Decision]]) -> Code:
    if len(block) == 1:
        return _leaf(block[0][1])
    middle = len(block) // 2
    low, high = _search(block[:middle]), _search(block[middle:])
    if len(low) <= _FAR:
        return [Instruction(JGE, len(low), 0, block[middle][0]), *low, *high]
    return [Instruction(JGE, 0, 1, block[middle][0]), Instruction(JA, 0, 0, len(low)), *low, *high]


def _leaf(decision: Decision) -> Code:
    code: Code = []
    for conditions, answer in _merged(decision):
        code += _alternative(conditions, answer, decision.bits)
    return [*code, Instruction(RET, 0, 0, decision.answer)]


_Row = tuple[tuple[Condition, ...], int]


def _merged(decision: Decision) -> Iterator[tuple[list[list[Condition]], int]]:
    """Alternatives as (conjunction of disjunctions, answer).

    Neighbours that compare one and the same argument's value for equality, as Docker's for `socket` and `personality`
    do, become one disjunction, so that the argument is loaded once.
    """
    rows = list(decision.alternatives)
    while rows:
        conditions, answer = rows.pop(0)
        clauses = [[condition] for condition in conditions]
        if _is_equality(conditions):
            while rows and len(clauses[0]) < 100 and _joins(clauses[0][0], answer, rows[0]):
                clauses[0].append(rows.pop(0)[0][0])
        yield clauses, answer


def _is_equality(conditions: tuple[Condition, ...]) -> bool:
    return len(conditions) == 1 and conditions[0].op == "SCMP_CMP_EQ"


def _joins(first: Condition, answer: int, row: _Row) -> bool:
    conditions, other_answer = row
    return (
        answer == other_answer
        and _is_equality(conditions)
        and conditions[0].argument == first.argument
        and conditions[0].value >> 32 == first.value >> 32
    )


def _alternative(clauses: list[list[Condition]], answer: int, bits: int) -> Code:
    """Code that answers if all clauses hold and else falls through its end."""
    code = [Instruction(RET, 0, 0, answer)]
    for clause in reversed(clauses):
        code = _clause(clause, bits, after=len(code)) + code
    return code


NEXT, PASS, FAIL = -1, -2, -3
"""Jump targets inside a clause: the next instruction, the clause's end, the alternative's end."""


def _clause(clause: list[Condition], bits: int, after: int) -> Code:
    """Code that goes on at its end if one of the conditions holds, and else jumps `after` instructions further."""
    first = clause[0]
    low, high = first.value & 0xFFFFFFFF, first.value >> 32
    load_low = (LD_ABS, NEXT, NEXT, _ARGS + 8 * first.argument)
    load_high = (LD_ABS, NEXT, NEXT, _ARGS + 8 * first.argument + 4)
    wide = bits == 64
    rows: list[tuple[int, int, int, int]]
    match first.op:
        case "SCMP_CMP_EQ":
            values = [condition.value & 0xFFFFFFFF for condition in clause]
            rows = [load_high, (JEQ, NEXT, FAIL, high)] if wide else []
            rows += [load_low, *((JEQ, PASS, NEXT, value) for value in values[:-1]), (JEQ, NEXT, FAIL, values[-1])]
        case "SCMP_CMP_NE":
            rows = [load_high, (JEQ, NEXT, PASS, high)] if wide else []
            rows += [load_low, (JEQ, FAIL, NEXT, low)]
        case "SCMP_CMP_GT" | "SCMP_CMP_GE":
            rows = [load_high, (JGT, PASS, NEXT, high), (JEQ, NEXT, FAIL, high)] if wide else []
            rows += [load_low, (JGT if first.op == "SCMP_CMP_GT" else JGE, NEXT, FAIL, low)]
        case "SCMP_CMP_LT" | "SCMP_CMP_LE":
            rows = [load_high, (JGT, FAIL, NEXT, high), (JEQ, NEXT, PASS, high)] if wide else []
            rows += [load_low, (JGE if first.op == "SCMP_CMP_LT" else JGT, FAIL, NEXT, low)]
        case _:  # SCMP_CMP_MASKED_EQ
            wanted = first.value_two & first.value
            rows = [load_high, (AND, NEXT, NEXT, high), (JEQ, NEXT, FAIL, wanted >> 32)] if wide and high else []
            rows += [load_low, (AND, NEXT, NEXT, low), (JEQ, NEXT, FAIL, wanted & 0xFFFFFFFF)]
    code = []
    for at, (opcode, jt, jf, k) in enumerate(rows):
        left = len(rows) - at - 1
        distance = {NEXT: 0, PASS: left, FAIL: left + after}
        code.append(Instruction(opcode, distance[jt], distance[jf], k))
    return code
