#!/usr/bin/env python3
"""Write src/pier/kernel/seccomp_numbers.py from what a libseccomp knows: make_syscall_numbers.py [LIBRARY]"""

from __future__ import annotations

import ctypes
import sys
import textwrap
from itertools import chain
from pathlib import Path

ARCHITECTURES = {  # libseccomp's tokens (seccomp.h): AUDIT_ARCH_*, x32's being its own invention
    "X86_64": 0xC000003E,
    "X86": 0x40000003,
    "X32": 0x4000003E,
    "AARCH64": 0xC00000B7,
    "ARM": 0x40000028,
}
X32_SYSCALL_BIT = 0x40000000
ARM_PRIVATE = range(0xF0000, 0xF0010)


def numbers(library: ctypes.CDLL, architecture: str) -> dict[int, str]:
    bit = X32_SYSCALL_BIT if architecture == "X32" else 0
    found = {}
    for number in chain(range(1000), ARM_PRIVATE):
        name = library.seccomp_syscall_resolve_num_arch(ctypes.c_uint32(ARCHITECTURES[architecture]), number | bit)
        if name:
            found[number] = ctypes.string_at(name).decode()
    return found


def as_text(table: dict[int, str]) -> str:
    words: list[str] = []
    expected = -1
    for number, name in sorted(table.items()):
        if number != expected:
            words.append(str(number))
        words.append(name)
        expected = number + 1
    return textwrap.fill(" ".join(words), width=118, break_long_words=False, break_on_hyphens=False)


def main() -> None:
    library = ctypes.CDLL(sys.argv[1] if len(sys.argv) > 1 else "libseccomp.so.2")
    library.seccomp_syscall_resolve_num_arch.restype = ctypes.c_void_p
    lines = [
        '"""System call numbers, by architecture: facts of the kernel\'s syscall tables, up to Linux 6.19.',
        "",
        "Written by tools/make_syscall_numbers.py. In each text a number says what the next name's number is, and from",
        "there names count on. x32's numbers are without their bit, 0x40000000.",
        '"""',
        "",
        "TEXTS = {",
    ]
    for architecture in ARCHITECTURES:
        lines += [f'    "{architecture}": """', as_text(numbers(library, architecture)), '""",']
    lines += ["}", ""]
    target = Path(__file__).parent.parent / "src/pier/kernel/seccomp_numbers.py"
    target.write_text("\n".join(lines))


main()
