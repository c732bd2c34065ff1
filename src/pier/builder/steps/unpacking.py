"""ADD of an archive: unpacked into the destination, where the file is one by its content."""

from __future__ import annotations

import os
import stat
from typing import Final

from pier.builder.steps.copying import Attributes, make_dirs
from pier.kernel.paths import closing, open_in_root
from pier.storage.compression import decompressed
from pier.storage.copy_in import copy_in
from pier.storage.errors import BadArchive
from pier.storage.stream import read_up_to
from pier.storage.tar_header import BLOCK

_READ: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


def unpack_into(source: int, path: str, root: int, dest: str, attributes: Attributes) -> bool:
    """Unpack the archive at `path` below `source` into a directory below `root`; False: it is none, nothing was done.

    Raises BadArchive for one that is broken or hostile, OSError.
    """
    try:
        fd = open_in_root(source, path, _READ)
    except OSError:
        return False  # said by whoever copies it
    with closing(fd):
        if not stat.S_ISREG(os.fstat(fd).st_mode) or not is_archive(fd):
            return False
        os.lseek(fd, 0, os.SEEK_SET)
        owner = attributes.owner
        owners = (lambda uid, gid: owner) if owner is not None else (lambda uid, gid: (uid, gid))
        with (
            closing(make_dirs(root, dest.rstrip("/") or "/", attributes)) as target,
            open(fd, "rb", buffering=0, closefd=False) as file,
        ):
            copy_in(decompressed(file)[1], target, owners=owners)
    return True


def is_archive(fd: int) -> bool:
    """Whether a file is a tar archive, compressed or not: by its first header's checksum."""
    os.lseek(fd, 0, os.SEEK_SET)
    with open(fd, "rb", buffering=0, closefd=False) as file:
        try:
            block = read_up_to(decompressed(file)[1], BLOCK)
        except (BadArchive, OSError):
            return False
    return len(block) == BLOCK and any(block) and checksum_holds(block)


def checksum_holds(block: bytes) -> bool:
    """POSIX.1-2017, pax, "ustar Interchange Format": the sum of all bytes, the sum's own field counted as spaces."""
    stated = block[148:156].strip(b" \0")
    try:
        wanted = int(stated, 8)
    except ValueError:
        return False
    return sum(block) - sum(block[148:156]) + 8 * 0x20 == wanted
