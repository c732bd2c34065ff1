"""One attached container: its output to our stdout and stderr, our stdin and signals to it, in one poll loop.

A stream without a terminal comes in frames (Engine API, "Stream format"): a stream number, three zero bytes, a 32-bit
big-endian length, the payload. Numbers: 0 stdin's echo, 1 stdout, 2 stderr, 3 an error of the daemon's.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the C half of `signal`, which imports enum
import os
import select

from pier.cli.out import write

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable, Iterator

    from pier.cli.tty import DetachKeys

HEADER_BYTES = 8
SYSTEM_ERROR = 3
_READ = 65536
_NOT_FORWARDED = frozenset(
    (
        _signal.SIGKILL,
        _signal.SIGSTOP,
        _signal.SIGCHLD,
        _signal.SIGPIPE,
        _signal.SIGURG,
        _signal.SIGWINCH,
        _signal.SIGSEGV,
        _signal.SIGBUS,
        _signal.SIGFPE,
        _signal.SIGILL,
        _signal.SIGTTIN,
        _signal.SIGTTOU,
        _signal.SIGTSTP,
        _signal.SIGCONT,
    )
)


class Demux:
    """Takes a multiplexed stream in pieces of any size and gives (stream number, payload piece) as soon as it can."""

    __slots__ = ("_header", "_remaining", "_stream")

    def __init__(self) -> None:
        self._header = b""
        self._stream = 0
        self._remaining = 0

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        view = memoryview(data)
        while view:
            if self._remaining:
                piece = view[: self._remaining]
                view = view[len(piece) :]
                self._remaining -= len(piece)
                yield self._stream, bytes(piece)
                continue
            missing = HEADER_BYTES - len(self._header)
            self._header += bytes(view[:missing])
            view = view[missing:]
            if len(self._header) == HEADER_BYTES:
                self._stream = self._header[0]
                self._remaining = int.from_bytes(self._header[4:], "big")
                self._header = b""
                if self._stream > SYSTEM_ERROR:
                    raise ValueError(f"Unrecognized input header: {self._stream}")


class Sink:
    """Where a container's output goes: frames apart to stdout and stderr, a terminal's bytes to stdout."""

    def __init__(self, *, multiplexed: bool, stdout: int = 1, stderr: int = 2) -> None:
        self._demux = Demux() if multiplexed else None
        self._fds = (stdout, stdout, stderr)
        self.daemon_error = b""

    def write(self, data: bytes) -> None:
        """Write one piece; a frame of the daemon's own error is kept in `daemon_error`."""
        if self._demux is None:
            write(self._fds[1], data)
            return
        for stream, piece in self._demux.feed(data):
            if stream == SYSTEM_ERROR:
                self.daemon_error += piece
            else:
                write(self._fds[stream], piece)


class Signals:
    """Signals as bytes in a pipe, so that the poll loop meets them; the old handlers come back at close()."""

    def __init__(self, numbers: list[int]) -> None:
        self.read_fd, self._write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._old_wakeup = _signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        self._old = {number: _signal.signal(number, lambda *_: None) for number in numbers}

    def take(self) -> bytes:
        """The numbers of the signals that came, in order."""
        try:
            return os.read(self.read_fd, 256)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        _signal.set_wakeup_fd(self._old_wakeup)
        for number, handler in self._old.items():
            _signal.signal(number, handler if handler is not None else _signal.SIG_DFL)
        os.close(self.read_fd)
        os.close(self._write_fd)


def forwarded_signals() -> list[int]:
    """Every signal that a proxy hands on to the container."""
    return [number for number in sorted(_signal.valid_signals()) if number not in _NOT_FORWARDED]


def signal_name(number: int) -> str:
    """`15` -> "TERM"; a real-time signal is its number."""
    for name in dir(_signal):
        if name.startswith("SIG") and not name.startswith("SIG_") and getattr(_signal, name) == number:
            return name.removeprefix("SIG")
    return str(number)


class Session:
    """The pump between a hijacked connection and this process' stdio."""

    def __init__(
        self,
        sock: _socket.socket,
        sink: Sink,
        *,
        stdin: int | None,
        detach_keys: DetachKeys | None = None,
        signals: Signals | None = None,
        on_signal: Callable[[int], bool] = lambda number: True,
    ) -> None:
        self._sock = sock
        self._sink = sink
        self._stdin = stdin
        self._keys = detach_keys
        self._signals = signals
        self._on_signal = on_signal
        self._pending = b""
        self.detached = False
        self.interrupted_by = 0

    def run(self, first: bytes = b"") -> None:
        """Pump until the stream ends, the detach keys are typed (`detached`) or a signal ends it (`interrupted_by`).

        `first` are bytes of the stream that came with the headers; `on_signal` answers whether to go on.
        """
        if first:
            self._sink.write(first)
        if hasattr(self._sock, "pending"):
            self._sock.setblocking(True)  # TLS: whole records, read when poll says so
        if self._stdin is None:
            self._shutdown_write()
        while not self.detached:
            events = dict(self._interests().poll())
            if self._signals and self._signals.read_fd in events:
                for number in self._signals.take():
                    if not self._on_signal(number):
                        self.interrupted_by = number
                        return
            if self._sock.fileno() in events and not self._socket_ready(events[self._sock.fileno()]):
                return
            if self._stdin is not None and self._stdin in events and not self._pending:
                self._stdin_ready()

    def _interests(self) -> select.poll:
        """What can move now: stdin only while nothing waits to be sent."""
        poll = select.poll()
        poll.register(self._sock.fileno(), select.POLLIN | (select.POLLOUT if self._pending else 0))
        if self._signals:
            poll.register(self._signals.read_fd, select.POLLIN)
        if self._stdin is not None and not self._pending:
            poll.register(self._stdin, select.POLLIN)
        return poll

    def _socket_ready(self, event: int) -> bool:
        """Move what the socket allows; False at the end of the stream."""
        if event & select.POLLOUT and self._pending:
            self._flush()
        if event & (select.POLLIN | select.POLLHUP | select.POLLERR):
            try:
                data = self._sock.recv(_READ)
            except ConnectionResetError:
                return False
            if not data:
                return False
            self._sink.write(data)
            while pending := getattr(self._sock, "pending", int)():
                self._sink.write(self._sock.recv(pending))
        return True

    def _stdin_ready(self) -> None:
        assert self._stdin is not None
        try:
            data = os.read(self._stdin, _READ)
        except OSError:
            data = b""  # a terminal that was hung up
        if not data:
            self._end_of_stdin()
            return
        if self._keys and (end := self._keys.seen(data)):
            data = data[:end]
            self.detached = True
        self._pending = data
        self._flush()

    def _flush(self) -> None:
        """Send what the socket takes without waiting: a container that does not read must not stop its own output."""
        import _socket  # noqa: PLC0415 - loaded already

        try:
            flags = 0 if hasattr(self._sock, "pending") else _socket.MSG_DONTWAIT
            sent = self._sock.send(self._pending, flags)
        except BlockingIOError:
            return
        except (BrokenPipeError, ConnectionResetError):
            self._pending = b""
            self._stdin = None
            return
        self._pending = self._pending[sent:]

    def _end_of_stdin(self) -> None:
        self._stdin = None
        self._shutdown_write()

    def _shutdown_write(self) -> None:
        """Half-close: the container sees the end of its stdin, its output still comes."""
        import _socket  # noqa: PLC0415 - loaded already

        try:
            self._sock.shutdown(_socket.SHUT_WR)
        except OSError:
            return  # the other side was faster
