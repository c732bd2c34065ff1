"""The folders of records of the cache: cache mounts, and clients' files. Blocks.

A record names its folder by its path below the builder's own (`Ground.data_dir`).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection
from typing import Final

from pier.storage.trees import remove_tree

__all__ = ["MOUNTS", "SYNCED", "remove", "sweep"]

MOUNTS: Final = "mounts"
SYNCED: Final = "synced"


def remove(data_dir: str, folder: str) -> None:
    """Remove a folder with all that is in it, if it is there. Raises OSError."""
    kind, _, name = folder.rpartition("/")
    with contextlib.suppress(FileNotFoundError):
        fd = os.open(os.path.join(data_dir, kind), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            remove_tree(fd, os.fsencode(name))
        finally:
            os.close(fd)


def sweep(data_dir: str, kept: Collection[str]) -> None:
    """Remove those that no record has. Raises OSError."""
    for kind in (MOUNTS, SYNCED):
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(os.path.join(data_dir, kind)):
                if f"{kind}/{name}" not in kept:
                    remove(data_dir, f"{kind}/{name}")
