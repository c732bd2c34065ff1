"""A build context that comes as an archive: into a folder of the builder's, and its checksum. Blocks.

Everything in it belongs to root, as Docker has it; whiteouts' names are names like others; nothing reaches outside.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Sequence

from pier.builder.checksum import digest_of_tree
from pier.builder.ground import Ground
from pier.builder.patterns import PatternMatcher
from pier.builder.steps.unpacking import checksum_holds
from pier.builder.tree import Folder
from pier.kernel.paths import closing, open_in_root
from pier.storage.compression import decompressed
from pier.storage.copy_in import copy_in
from pier.storage.folder_driver import make_root
from pier.storage.stream import Prefixed, Reader, read_up_to
from pier.storage.tar_header import BLOCK
from pier.storage.trees import remove_tree

CONTEXTS = "contexts"
FILE_MAX_BYTES = 4 << 20


def make(ground: Ground) -> str:
    """An empty directory for files of a client; returns its path. Raises OSError."""
    path = os.path.join(ground.data_dir, CONTEXTS, secrets.token_hex(12))
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    make_root(path, None)
    return path


def remove(path: str) -> None:
    """Remove such a directory with all that is in it."""
    parent, _, name = path.rpartition("/")
    with closing(os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as fd:
        remove_tree(fd, name.encode())


def receive(path: str, stream: Reader) -> None:
    """Unpack a context, compressed or not, into an empty folder. Raises BadArchive, OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        copy_in(decompressed(stream)[1], fd, owners=lambda _uid, _gid: (0, 0))
    finally:
        os.close(fd)


def receive_either(path: str, stream: Reader, name: str) -> None:
    """As `receive`; what is no archive becomes the file `name` in the folder. Raises BadArchive, OSError."""
    head = read_up_to(stream, 1 << 16)
    block = read_up_to(decompressed(Prefixed(head, _Nothing()))[1], BLOCK) if head else b""
    whole = Prefixed(head, stream)
    if len(block) == BLOCK and checksum_holds(block):
        receive(path, whole)
        return
    data = read_up_to(whole, FILE_MAX_BYTES)
    with open(os.path.join(path, name), "xb") as file:
        file.write(data)


class _Nothing:
    """The end of a stream."""

    def read(self, size: int = -1, /) -> bytes:
        return b""


def leave_out(path: str, patterns: Sequence[str], names: Sequence[str]) -> None:
    """Remove those of `names`, files that the client had to send to have them read, that `.dockerignore` leaves out.

    What else it leaves out has not been sent. Raises OSError.
    """
    matcher = PatternMatcher(patterns)
    with closing(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)) as root:
        for name in names:
            if matcher.matches(name):
                parent, _, last = name.rpartition("/")
                with (
                    contextlib.suppress(FileNotFoundError, NotADirectoryError),
                    closing(open_in_root(root, parent or "/", os.O_RDONLY | os.O_DIRECTORY)) as above,
                ):
                    os.unlink(last, dir_fd=above)


def as_folder(path: str) -> Folder:
    """A folder that is complete, with its checksum."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return Folder(path, digest_of_tree(fd))
    finally:
        os.close(fd)


def sweep(ground: Ground) -> None:
    """Remove what builds of an earlier daemon have left."""
    parent = os.path.join(ground.data_dir, CONTEXTS)
    with contextlib.suppress(FileNotFoundError):
        fd = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for name in os.listdir(fd):
                remove_tree(fd, os.fsencode(name))
        finally:
            os.close(fd)
