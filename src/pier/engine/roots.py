"""The daemon's two folders, and who may enter them (attack 23).

The data root is 0700: images may hold set-user-id programs, which no local user shall reach. The exec root is 0711, so
that members of the docker group reach the socket by its name, and list nothing.
"""

from __future__ import annotations

import os
import stat

from pier.errors import PierError

DATA_MODE = 0o700
EXEC_MODE = 0o711


class UnsafeFolder(PierError):
    """{path} cannot be the {what}: {reason}"""

    exit_code = 1
    remedy = "make it a folder that belongs to root, or choose another {flag}"


def make_root(path: str, mode: int, *, what: str, flag: str) -> None:
    """Make the folder or tighten the one that is there: of root's, a real folder, exactly `mode`.

    Raises UnsafeFolder where a symlink, a file or another user's folder stands there: its owner could swap what is in
    it under the daemon's hands.
    """
    try:
        os.makedirs(path, mode, exist_ok=True)
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise UnsafeFolder(path=path, what=what, flag=flag, reason=error.strerror) from error
    try:
        found = os.fstat(fd)
        if found.st_uid != os.geteuid():
            raise UnsafeFolder(path=path, what=what, flag=flag, reason=f"it belongs to uid {found.st_uid}")
        if stat.S_IMODE(found.st_mode) != mode:
            os.fchmod(fd, mode)
    finally:
        os.close(fd)
