"""Platforms whose programs this kernel runs: its own, and those that binfmt_misc has an emulator for.

Documentation/admin-guide/binfmt-misc.rst: each file there says which first bytes of a program it is for.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import Final

from pier.oci import Platform
from pier.oci.platform import host_platform, runnable_on

__all__ = ["runnable"]

BINFMT_MISC: Final = "/proc/sys/fs/binfmt_misc"
ENTRY_MAX_BYTES: Final = 4096
# (architecture, variant) -> (bits, little-endian, e_machine) of its programs' ELF headers (elf(5))
MACHINES: Final = {
    ("amd64", ""): (64, True, 62),
    ("arm64", ""): (64, True, 183),
    ("riscv64", ""): (64, True, 243),
    ("ppc64le", ""): (64, True, 21),
    ("s390x", ""): (64, False, 22),
    ("386", ""): (32, True, 3),
    ("mips64le", ""): (64, True, 8),
    ("mips64", ""): (64, False, 8),
    ("loong64", ""): (64, True, 258),
    ("arm", "v7"): (32, True, 40),
    ("arm", "v6"): (32, True, 40),
}


def runnable(folder: str = BINFMT_MISC) -> list[Platform]:
    """The host's own platform first, then what it runs besides, then what is emulated. Blocks on a few small files."""
    native = runnable_on(host_platform())
    entries = list(_entries(folder))
    emulated = [
        Platform(os="linux", architecture=architecture, variant=variant)
        for (architecture, variant), machine in MACHINES.items()
        if any(_matches(elf_header(*machine), *entry) for entry in entries)
    ]
    return list({platform.key(): platform for platform in (*native, *emulated)}.values())


def elf_header(bits: int, little: bool, machine: int) -> bytes:
    """The beginning of a program: what kernels look at to tell whose it is."""
    ident = b"\x7fELF" + bytes([bits // 32, 1 if little else 2, 1, 0]) + bytes(8)
    return ident + struct.pack("<HH" if little else ">HH", 2, machine)


def _entries(folder: str) -> Iterator[tuple[int, bytes, bytes]]:
    """(offset, magic, mask) of every emulator that is switched on; nothing where there are none."""
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return
    for name in names:
        try:
            with open(os.path.join(folder, name), encoding="ascii", errors="replace") as file:
                lines = file.read(ENTRY_MAX_BYTES).splitlines()
        except OSError:
            continue
        if lines[:1] != ["enabled"]:
            continue
        fields = dict(line.partition(" ")[::2] for line in lines[1:])
        try:
            magic = bytes.fromhex(fields["magic"])
            yield int(fields.get("offset", "0")), magic, bytes.fromhex(fields.get("mask", "ff" * len(magic)))
        except (KeyError, ValueError):
            continue  # one that goes by the end of a program's name


def _matches(header: bytes, offset: int, magic: bytes, mask: bytes) -> bool:
    found = header[offset : offset + len(magic)]
    return len(found) == len(magic) and all(
        (a ^ b) & m == 0 for a, b, m in zip(found, magic, mask.ljust(len(magic), b"\xff"), strict=False)
    )
