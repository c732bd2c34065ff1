"""The vfs driver: every layer and every container a whole copy, which works on any file system.

On xfs and btrfs a copy shares its data with the original until one of them is written to (ioctl_ficlone(2)), so that it
costs time for the names and no space for the contents. Elsewhere it costs what it looks like.
"""

from __future__ import annotations

import os

from pier.storage import project_quota
from pier.storage.copy_tree import can_clone, copy_tree
from pier.storage.folder_driver import make_root, opened
from pier.storage.whole_trees import WholeTrees


def probe(data_root: str) -> str:
    """Works wherever there is a directory."""
    os.makedirs(data_root, mode=0o700, exist_ok=True)
    return ""


class Vfs(WholeTrees):
    """The driver; see `Snapshotter` for what the calls promise."""

    name = "vfs"

    def status(self) -> list[list[str]]:
        return [["Copies share their data (reflink)", "true" if can_clone(self.root_dir) else "false"]]

    def _copy(self, source: str, target: str) -> None:
        make_root(target, None)
        with opened(source) as source_fd, opened(target) as target_fd:
            copy_tree(source_fd, target_fd)

    def _limit(self, place: str, size_bytes: int) -> None:
        project_quota.limit(place, size_bytes)
