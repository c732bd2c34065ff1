"""What takes a process of one thread, which the daemon is not: user namespaces for mounts with other ids.

`main DEED …`: `probe_overlay FOLDER` and `probe_tree FOLDER` print why a folder cannot have such mounts, nothing where
it can; `hold` is in a new user namespace until its input ends.
"""

from __future__ import annotations

import os
import sys

from pier.kernel import namespaces
from pier.kernel.paths import closing
from pier.runtime.process import idmap, remap
from pier.runtime.request import BindRoot, OverlayRoot

SHIFT = 100_000
MAP = [{"containerID": 0, "hostID": SHIFT, "size": 1}]
READY = b"+"


def main() -> None:
    deed, *arguments = sys.argv[1:]
    if deed == "hold":
        hold()
        return
    try:
        print(probe(arguments[0], overlay=deed == "probe_overlay"))
    except OSError as error:
        print(error.strerror or error)


def hold() -> None:
    """Be in a new user namespace until the other side has what it wants of it."""
    namespaces.unshare(namespaces.CLONE_NEWUSER)
    os.write(1, READY)
    os.read(0, 1)


def probe(folder: str, *, overlay: bool) -> str:
    """Mount a tree as other ids, attached nowhere; why it is not right. Raises OSError."""
    paths = [os.path.join(folder, name) for name in ("tree", "upper", "work")]
    for path in paths:
        os.mkdir(path)
    os.mkdir(os.path.join(paths[0], "file"))
    root = OverlayRoot([paths[0]], paths[1], paths[2]) if overlay else BindRoot(paths[0])
    with closing(idmap.open_namespace(MAP, MAP)) as user_fd, closing(remap.mount_shifted(root, user_fd)) as fd:
        owner = os.stat("file", dir_fd=fd).st_uid
    return "" if owner == SHIFT else f"it shows a file of root's as one of {owner}'s instead of {SHIFT}'s"
