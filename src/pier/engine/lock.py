"""One daemon to a data root and to an exec root (T19), and the state of the sockets an earlier one left.

The lock is flock(2) on a file that holds the holder's pid: the kernel lets go of it however the holder dies, so a lock
is never stale. The zygote and the monitors must not inherit it: the descriptor is close-on-exec, and whoever forks
without exec closes it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import struct

from pier.errors import PierError

LOCK_FILE = "pierd.lock"


class FolderInUse(PierError):
    """another Pier daemon (pid {pid}) uses {what} {path}"""

    exit_code = 1
    remedy = "stop that one, or give this one its own {flag}"


class SocketInUse(PierError):
    """another process (pid {pid}) listens on {path}"""

    exit_code = 1
    remedy = "stop that one, or choose another address with --host"


class NotASocket(PierError):
    """cannot listen on {path}: it exists and is not a socket"""

    exit_code = 1
    remedy = "move it away, or choose another address with --host"


class FolderLock:
    """An exclusive hold on a folder, until `release` or the end of the process."""

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self.fd = fd

    @classmethod
    def take(cls, folder: str, *, what: str, flag: str) -> FolderLock:
        """Hold `folder`, which exists. Raises FolderInUse, naming the holder's pid."""
        path = os.path.join(folder, LOCK_FILE)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(fd)
            raise FolderInUse(pid=pid, what=what, path=folder, flag=flag) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, b"%d\n" % os.getpid(), 0)
        return cls(path, fd)

    def release(self) -> None:
        """Let go. The file stays: removing it would let two daemons hold two files of one name."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def clear_socket(path: str) -> None:
    """Make room for a unix socket at `path`: one that nobody listens on is removed.

    Raises SocketInUse, NotASocket.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise NotASocket(path=path)
    pid = listener_pid(path)
    if pid is not None:
        raise SocketInUse(path=path, pid=pid or "unknown")
    os.unlink(path)


def listener_pid(path: str) -> int | None:
    """The pid of whoever listens on the unix socket at `path`; 0 when it listens and hides, None when nobody does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except OSError as error:
            if error.errno == errno.EAGAIN:  # its backlog is full: alive, and busy
                return 0
            if error.errno in (errno.ECONNREFUSED, errno.ENOENT):
                return None
            raise
        credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)  # struct ucred: pid, uid, gid
    pid: int = struct.unpack("iii", credentials)[0]
    return pid
