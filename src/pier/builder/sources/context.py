"""A build context that comes as an archive: into a folder of the builder's, and its checksum. Blocks.

Everything in it belongs to root, as Docker has it; whiteouts' names are names like others; nothing reaches outside.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator

from pier.builder.checksum import digest_of_tree
from pier.builder.ground import Ground
from pier.builder.tree import Folder
from pier.storage.compression import decompressed
from pier.storage.copy_in import copy_in
from pier.storage.folder_driver import make_root
from pier.storage.stream import Reader
from pier.storage.trees import remove_tree

CONTEXTS = "contexts"


@contextlib.contextmanager
def folder(ground: Ground) -> Iterator[str]:
    """An empty directory for files of a client, removed with all that is in it when the block ends."""
    parent = os.path.join(ground.data_dir, CONTEXTS)
    os.makedirs(parent, mode=0o700, exist_ok=True)
    name = secrets.token_hex(12)
    make_root(os.path.join(parent, name), None)
    try:
        yield os.path.join(parent, name)
    finally:
        fd = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            remove_tree(fd, name.encode())
        finally:
            os.close(fd)


def receive(path: str, stream: Reader) -> None:
    """Unpack a context, compressed or not, into an empty folder. Raises BadArchive, OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        copy_in(decompressed(stream)[1], fd, owners=lambda _uid, _gid: (0, 0))
    finally:
        os.close(fd)


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
