"""A program's terminal on the command line's side: handed to a socket, or joined to our own terminal."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
from array import array
from typing import Any, NamedTuple

from pier.kernel.process import open_peer, set_window_size

CHUNK = 32 * 1024
TYPED_MAX = 64 * 1024
"""What is kept of our terminal's input while the program does not take it; more is left with the kernel."""
_TIOCGWINSZ_BYTES = 8


def send(path: str, fd: int, name: bytes) -> None:
    """Pass a descriptor to the AF_UNIX stream socket at `path` (`--console-socket`, `--pidfd-socket`). Raises OSError.

    The one message is `name`, as runc's.
    """
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as sock:
        try:
            sock.connect(path)
        except OSError as error:
            raise OSError(error.errno, f"dial unix {path}: connect: {(error.strerror or '').lower()}") from error
        sock.sendmsg([name], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [fd]))])


class Size(NamedTuple):
    rows: int
    columns: int


def size_of(fd: int) -> Size | None:
    """The size of a terminal; None for what is none, or knows none."""
    import fcntl  # noqa: PLC0415 - few runs have a terminal
    import termios  # noqa: PLC0415

    try:
        answer = fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(_TIOCGWINSZ_BYTES))
    except OSError:
        return None
    rows, columns, _, _ = struct.unpack("HHHH", answer)
    return Size(rows, columns) if rows and columns else None


def adopt_size(process: dict[str, Any]) -> None:
    """Let the terminal of an OCI `process` have the size of ours from its start.

    Set later, a program that asks at once could still see a terminal without rows and columns.
    """
    size = size_of(0)
    if size is not None:
        process["consoleSize"] = {"height": size.rows, "width": size.columns}


def resize(master: int, like: int) -> None:
    """Give the program's terminal the size of ours."""
    size = size_of(like)
    if size is not None:
        set_window_size(master, size.rows, size.columns)


class RawTerminal:
    """Our terminal while it passes every key on (termios(3), cfmakeraw); restored when the block is left."""

    def __init__(self, fd: int) -> None:
        import termios  # noqa: PLC0415

        self._fd = fd
        self._termios = termios
        self._before: list[Any] = termios.tcgetattr(fd)

    def __enter__(self) -> RawTerminal:
        termios = self._termios
        iflag, oflag, cflag, lflag, ispeed, ospeed, cc = termios.tcgetattr(self._fd)
        iflag &= ~(
            termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP
            | termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON
        )  # fmt: skip
        oflag &= ~termios.OPOST
        lflag &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
        cflag = cflag & ~(termios.CSIZE | termios.PARENB) | termios.CS8
        cc[termios.VMIN], cc[termios.VTIME] = 1, 0
        termios.tcsetattr(self._fd, termios.TCSANOW, [iflag, oflag, cflag, lflag, ispeed, ospeed, cc])
        return self

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(self._termios.error):
            self._termios.tcsetattr(self._fd, self._termios.TCSANOW, self._before)


class Joined:
    """The program's terminal joined to ours: what is typed on 0 goes in, what it shows comes out on 1.

    Neither direction waits for the other: a program that does not read what was pasted goes on showing.
    """

    def __init__(self, master: int) -> None:
        self.master = master
        self._typed = b""
        self._typing = self._shown = self._listening = True
        os.set_blocking(master, False)
        self._peer = _hold(master)

    def wanted(self) -> dict[int, int]:
        """What to poll for: descriptor -> POLL* mask."""
        masks = {}
        if self._shown:
            masks[self.master] = select.POLLIN | (select.POLLOUT if self._typed else 0)
        if self._typing and len(self._typed) < TYPED_MAX:
            masks[0] = select.POLLIN
        return masks

    def serve(self, ready: dict[int, int]) -> None:
        """Move what can be moved now."""
        if self.master in ready:
            self.show()
        if 0 in ready:
            self._take_typed()
        if self._typed:
            self._type()

    def show(self) -> bool:
        """Copy one piece of the program's output; False when there is none."""
        try:
            data = os.read(self.master, CHUNK)
        except BlockingIOError:
            return False
        except OSError:  # EIO: no one has the program's terminal open
            self._shown = False
            return False
        view = memoryview(data)
        while view and self._listening:
            try:
                view = view[os.write(1, view) :]
            except OSError:  # nobody looks; the program must not wait for that
                self._listening = False
        return bool(data)

    def close(self) -> None:
        for fd in (self.master, self._peer):
            if fd >= 0:
                os.close(fd)

    def _take_typed(self) -> None:
        try:
            data = os.read(0, CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._typed += data
        self._typing = bool(data)

    def _type(self) -> None:
        try:
            self._typed = self._typed[os.write(self.master, self._typed) :]
        except BlockingIOError:
            return
        except OSError:
            self._typed = b""


def _hold(master: int) -> int:
    """The other side of the program's terminal, -1 where the kernel gives none.

    While we hold it, a program may close its terminal and open it again (an init system does): without any holder the
    terminal would have ended at the first of it.
    """
    try:
        return open_peer(master)
    except OSError:
        return -1
