"""A launcher that is no script: a small ELF program that starts the interpreter from a read-only mount.

Whoever enters a container must not have the host's own Python as /proc/PID/exe (attack 1, CVE-2019-5736): its file has
to be on a read-only mount by the time it is executed. Python could only find that out when it runs already, and execute
itself anew, at the price of a second start (`runtime/command/entry.py` does so where there is no such launcher). So the
one thing that must come before Python is done without Python:

    fd = open_tree(AT_FDCWD, python, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC)   # a mount of that one file, seen by nobody
    mount_setattr(fd, "", AT_EMPTY_PATH, {RDONLY | NOSUID | NODEV})
    execveat(fd, "", [python, "-IS", "-c", code, *argv[1:]], envp, AT_EMPTY_PATH)

Where the kernel refuses (not root, or before Linux 5.12) Python is executed as it is, and decides by itself.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping

BASE = 0x400000
EHDR, PHDR = 64, 56
AT_EMPTY_PATH = 0x1000
OPEN_TREE_CLONE_CLOEXEC = 1 | os.O_CLOEXEC
READ_ONLY = struct.pack("<QQQQ", 1 | 2 | 4, 0, 0, 0)
"""struct mount_attr: MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV to be set."""

MACHINES = ("x86_64",)
"""What `program` can be made for (`os.uname().machine`)."""


def program(python: str, flags: str, code: str) -> bytes:
    """The launcher for x86-64: an ELF executable that runs `python flags -c code` with its own arguments after it."""
    data = {
        "python": os.fsencode(python) + b"\0",
        "flags": flags.encode() + b"\0",
        "c": b"-c\0",
        "code": os.fsencode(code) + b"\0",
        "empty": b"\0",
        "attributes": READ_ONLY,
        "failure": os.fsencode(f"{python}: cannot be executed\n"),
    }
    size = len(_text(dict.fromkeys(data, 0), len(data["failure"])))
    places, content = {}, b""
    for name, value in data.items():
        places[name] = BASE + EHDR + 2 * PHDR + size + len(content)
        content += value
    text = _text(places, len(data["failure"]))
    return _headers(len(text) + len(content)) + text + content


def _headers(size: int) -> bytes:
    """ELF and program headers (elf(5)): one segment that is read and executed, and a stack that is not executed."""
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    start = EHDR + 2 * PHDR
    elf = ident + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, BASE + start, EHDR, 0, 0, EHDR, PHDR, 2, 0, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, BASE, BASE, start + size, start + size, 0x1000)
    stack = struct.pack("<IIQQQQQQ", 0x6474E551, 6, 0, 0, 0, 0, 0, 16)
    return elf + load + stack


def _text(at: Mapping[str, int], failure_bytes: int) -> bytes:
    """The instructions; `at` says where the strings are. The kernel enters with argc, argv, 0, envp on the stack."""
    syscall = b"\x0f\x05"

    def load(register: bytes, value: int) -> bytes:
        return register + struct.pack("<i", value)

    eax, edx, esi, edi = b"\xb8", b"\xba", b"\xbe", b"\xbf"  # mov register, imm32
    r8d, r10d, rdi = b"\x41\xb8", b"\x41\xba", b"\x48\xc7\xc7"
    plain = (
        load(edi, at["python"])
        + b"\x48\x8d\x73\xf0"  # lea rsi, [rbx - 16]
        + b"\x4c\x89\xe2"  # mov rdx, r12
        + load(eax, 59) + syscall  # execve(python, argv, envp)
        + load(edi, 2) + load(esi, at["failure"]) + load(edx, failure_bytes) + load(eax, 1) + syscall  # write
        + load(edi, 127) + load(eax, 60) + syscall  # exit
    )  # fmt: skip
    from_mount = (
        b"\x89\xef"  # mov edi, ebp
        + load(esi, at["empty"])
        + b"\x48\x8d\x53\xf0"  # lea rdx, [rbx - 16]
        + b"\x4d\x89\xe2"  # mov r10, r12
        + load(r8d, AT_EMPTY_PATH) + load(eax, 322) + syscall  # execveat; returns where it fails
    )  # fmt: skip
    return (
        b"\x48\x89\xe3"  # mov rbx, rsp
        + load(rdi, -100) + load(esi, at["python"]) + load(edx, OPEN_TREE_CLONE_CLOEXEC) + load(eax, 428) + syscall
        + b"\x89\xc5"  # mov ebp, eax: open_tree's descriptor, or what mount_setattr refuses
        + b"\x89\xef"  # mov edi, ebp
        + load(esi, at["empty"]) + load(edx, AT_EMPTY_PATH) + load(r10d, at["attributes"]) + load(r8d, len(READ_ONLY))
        + load(eax, 442) + syscall  # mount_setattr
        + b"\x41\x89\xc7"  # mov r15d, eax
        + b"\x48\x8b\x03"  # mov rax, [rbx]: argc
        + b"\x4c\x8d\x64\xc3\x10"  # lea r12, [rbx + rax * 8 + 16]: envp
        # argc and argv[0] make room for the last two of the four words that come before the arguments
        + load(b"\x48\xc7\x43\x08", at["code"])  # mov qword [rbx + 8], code
        + load(b"\x48\xc7\x03", at["c"])  # mov qword [rbx], "-c"
        + load(b"\x48\xc7\x43\xf8", at["flags"])  # mov qword [rbx - 8], flags
        + load(b"\x48\xc7\x43\xf0", at["python"])  # mov qword [rbx - 16], python
        + b"\x45\x85\xff"  # test r15d, r15d
        + b"\x75" + bytes([len(from_mount)])  # jnz plain
        + from_mount
        + plain
    )  # fmt: skip
