"""A program's terminal on the command line's side: handed to a socket, or joined to our own terminal."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import termios
from array import array
from typing import Any, NamedTuple

from pier.kernel.process import set_window_size

CHUNK = 32 * 1024
_TIOCGWINSZ_BYTES = 8


def send(path: str, fd: int, name: bytes) -> None:
    """Pass a descriptor to the AF_UNIX stream socket at `path` (`--console-socket`, `--pidfd-socket`). Raises OSError.

    The one message is `name`, as runc's.
    """
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as sock:
        try:
            sock.connect(path)
        except OSError as error:
            raise OSError(error.errno, f"dial unix {path}: connect: {error.strerror}") from error
        sock.sendmsg([name], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [fd]))])


class Size(NamedTuple):
    rows: int
    columns: int


def size_of(fd: int) -> Size | None:
    """The size of a terminal; None for what is none, or knows none."""
    import fcntl  # noqa: PLC0415 - few runs have a terminal

    try:
        answer = fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(_TIOCGWINSZ_BYTES))
    except OSError:
        return None
    rows, columns, _, _ = struct.unpack("HHHH", answer)
    return Size(rows, columns) if rows and columns else None


def resize(master: int, like: int) -> None:
    """Give the program's terminal the size of ours."""
    size = size_of(like)
    if size is not None:
        set_window_size(master, size.rows, size.columns)


class RawTerminal:
    """Our terminal while it passes every key on (termios(3), cfmakeraw); restored when the block is left."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._before: list[Any] = termios.tcgetattr(fd)

    def __enter__(self) -> RawTerminal:
        iflag, oflag, cflag, lflag, ispeed, ospeed, cc = termios.tcgetattr(self._fd)
        iflag &= ~(
            termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP
            | termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON
        )  # fmt: skip
        oflag &= ~termios.OPOST
        lflag &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
        cflag = cflag & ~(termios.CSIZE | termios.PARENB) | termios.CS8
        termios.tcsetattr(self._fd, termios.TCSANOW, [iflag, oflag, cflag, lflag, ispeed, ospeed, cc])
        return self

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(termios.error):
            termios.tcsetattr(self._fd, termios.TCSANOW, self._before)


def pump(source: int, target: int) -> bool:
    """Copy what can be read; False when `source` has ended (a master says EIO once no one has the terminal open)."""
    try:
        data = os.read(source, CHUNK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(target, view) :]
        except OSError:
            return False
    return bool(data)
