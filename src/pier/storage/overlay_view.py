"""Overlays to look into, without a writable layer: mounted nowhere, gone with their descriptor."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from pier.kernel import mounts, namespaces
from pier.kernel.paths import closing, open_in_root

LAYERS_MAX: Final = 500
"""OVL_MAX_STACK of the kernel: lower layers of one overlay."""


DETACHED: Final = "/proc/self/fd/"
"""How the path of a mount begins that is attached nowhere."""
_OPTIONS: Final[list[tuple[str, str | None]]] = [("redirect_dir", "follow"), ("metacopy", "on")]
"""Follow what overlayfs itself left in upper directories; images cannot bring such orders (`layer`)."""


@contextlib.contextmanager
def view(directories: list[str], place: str) -> Iterator[int]:
    """A descriptor of directories as one tree, topmost first, while the block runs.

    One of them may be the upper directory of a running container: what is written there meanwhile may show or not.
    `place` is any directory; kernels before 6.7 need one to mount on. No directory gives `place` itself, an empty one.
    """
    if len(directories) < 2:
        fd = os.open((directories or [place])[0], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    else:
        mount_fd = _mount(directories, place)
        try:
            fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mount_fd)
        finally:
            os.close(mount_fd)
    try:
        yield fd
    finally:
        os.close(fd)


def detached(directories: list[str], place: str, subpath: str = "") -> int:
    """A detached mount of directories as one tree, topmost first, or of what is at `subpath` in it.

    `place` is any directory. What `view` gives cannot be attached, this can. Raises OSError.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="overlay-view") as aside:
        return aside.submit(_detach_aside, directories or [place], place, subpath).result()


def _detach_aside(directories: list[str], place: str, subpath: str) -> int:
    """As `_mount_aside`; a part of a mount can be copied only while it is attached."""
    top = directories[0]
    if len(directories) > 1:
        namespaces.unshare(namespaces.CLONE_NEWNS)
        mounts.mount(None, "/", None, mounts.MS_PRIVATE | mounts.MS_REC)
        with (
            closing(_mount(directories, place)) as whole,
            closing(os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as at,
        ):
            mounts.move_mount(whole, at, place)
        top = place
    with (
        closing(os.open(top, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as root,
        closing(open_in_root(root, subpath or "/", os.O_PATH)) as wanted,
    ):
        return mounts.open_tree(wanted, "", clone=True)


def _mount(lower: list[str], place: str) -> int:
    with contextlib.ExitStack() as stack:
        if len(lower) > LAYERS_MAX:  # an overlay may have another one below it, once
            base = _mount(lower[LAYERS_MAX - 1 :], place)
            stack.callback(os.close, base)
            lower = [*lower[: LAYERS_MAX - 1], f"/proc/self/fd/{base}"]
        # A detached mount (`idmapped.shown`) as a layer takes Linux 6.15.
        if mounts.kernel_version() >= ((6, 15) if lower[0].startswith(DETACHED) else (6, 7)):
            try:
                options: list[tuple[str, str | None]] = [("lowerdir+", path) for path in lower]
                return mounts.mount_filesystem("overlay", options + _OPTIONS, mounts.MOUNT_ATTR_RDONLY)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
        with ThreadPoolExecutor(1, thread_name_prefix="overlay-view") as aside:
            return aside.submit(_mount_aside, lower, place).result()


def _mount_aside(lower: list[str], place: str) -> int:
    """In a thread of its own, which takes its mount namespace with it when it ends: the host never sees the mount."""
    namespaces.unshare(namespaces.CLONE_NEWNS)
    mounts.mount(None, "/", None, mounts.MS_PRIVATE | mounts.MS_REC)
    if lower[0].startswith(DETACHED):
        with (
            closing(os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as at,
            closing(os.open(lower[0], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as mount_fd,
        ):
            mounts.move_mount(mount_fd, at, place)
    return mounts.mount_overlay_by_fds(lower, _OPTIONS, place, mounts.MS_RDONLY)
